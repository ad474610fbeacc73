output "instance_profiles" {
  description = "Instance profile names by role: head, worker."
  value       = { for role, profile in aws_iam_instance_profile.this : role => profile.name }
}

output "ready" {
  description = "Known when the roles may do their work; nodes wait for it."
  value       = concat([for item in aws_iam_role_policy.this : item.id], [for item in aws_iam_role_policy_attachment.ssm : item.id])
}
