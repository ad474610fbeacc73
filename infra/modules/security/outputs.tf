output "cluster_group_id" {
  description = "Security group of all nodes."
  value       = aws_security_group.cluster.id
}

output "token_secret_arn" {
  description = "Secret that holds Ray's token."
  value       = aws_secretsmanager_secret.token.arn
}

output "token_ready" {
  description = "Known when the token is written and the nodes' rules exist; nodes wait for it."
  value = [
    aws_secretsmanager_secret_version.token.version_id,
    aws_vpc_security_group_ingress_rule.within.id,
    aws_vpc_security_group_egress_rule.within.id,
    aws_vpc_security_group_egress_rule.https.id,
  ]
}
