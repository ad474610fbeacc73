output "group_name" {
  description = "The autoscaling group."
  value       = aws_autoscaling_group.this.name
}

output "to_zero_policy_arn" {
  description = "Scaling policy that sends all workers away."
  value       = aws_autoscaling_policy.to_zero.arn
}

output "launch_template_id" {
  description = "The launch template, for ray up or a node by hand."
  value       = aws_launch_template.this.id
}
