output "bucket_name" {
  description = "The bucket, known once it exists."
  value       = aws_s3_bucket.this.id
}

output "bucket_arn" {
  description = "The bucket's ARN."
  value       = aws_s3_bucket.this.arn
}

output "objects" {
  description = "Keys of the uploaded files, known once they are there; nodes wait for them."
  value       = [for object in aws_s3_object.files : object.key]
}

output "name" {
  description = "The cluster's name, once the bucket exists: what uses it is made after the bucket, so a taken bucket name stops all."
  value       = var.name
  depends_on  = [aws_s3_bucket.this]
}
