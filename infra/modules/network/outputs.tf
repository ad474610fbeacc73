output "vpc_id" {
  description = "The network."
  value       = aws_vpc.this.id
}

output "private_subnet_id" {
  description = "The subnet of all nodes."
  value       = aws_subnet.private.id
}

output "ready" {
  description = "Known when the ways out of the private subnet exist; nodes wait for it."
  value       = concat(aws_route.private[*].id, [aws_vpc_endpoint.s3.id], [for endpoint in aws_vpc_endpoint.interface : endpoint.id])
}
