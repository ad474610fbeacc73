output "alerts_topic_arn" {
  description = "Topic of all alarms."
  value       = aws_sns_topic.alerts.arn
}

output "log_group" {
  description = "Log group of the nodes."
  value       = aws_cloudwatch_log_group.nodes.name
}
