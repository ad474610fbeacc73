output "instance_id" {
  description = "The head's instance."
  value       = aws_instance.this.id
}

output "private_ip" {
  description = "The head's address inside the network."
  value       = aws_instance.this.private_ip
}
