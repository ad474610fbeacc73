# One group for all nodes. Everything is open inside it and nothing from outside. It names itself for ingress and for egress:
# EFA traffic is not covered by an egress rule to 0.0.0.0/0.

resource "aws_security_group" "cluster" {
  #checkov:skip=CKV2_AWS_5:head and workers take it from this module's output, which the check does not follow
  name        = "${var.name}-cluster"
  description = "Nodes of ${var.name}"
  vpc_id      = var.vpc_id
  tags        = { Name = "${var.name}-cluster" }
}

resource "aws_vpc_security_group_ingress_rule" "within" {
  security_group_id            = aws_security_group.cluster.id
  description                  = "All traffic between the nodes"
  referenced_security_group_id = aws_security_group.cluster.id
  ip_protocol                  = "-1"
}

resource "aws_vpc_security_group_egress_rule" "within" {
  security_group_id            = aws_security_group.cluster.id
  description                  = "All traffic between the nodes"
  referenced_security_group_id = aws_security_group.cluster.id
  ip_protocol                  = "-1"
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.cluster.id
  description       = "HTTPS: AWS services and package indexes"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

# Ray's token. Ephemeral and write-only: it is in no plan and in no state file.
ephemeral "aws_secretsmanager_random_password" "token" {
  password_length     = 48
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "token" {
  #checkov:skip=CKV_AWS_149:no secret of several parties is kept here, and a key of one's own costs money and outlives the cluster; encrypted with AWS's key
  #checkov:skip=CKV2_AWS_57:a new token in the middle of a run would cut nodes off; token_version makes a new one when the user says so
  name                    = "${var.name}/ray-token"
  description             = "Token of the Ray cluster ${var.name}"
  recovery_window_in_days = 0 # a destroyed cluster must be able to come back under its name
}

resource "aws_secretsmanager_secret_version" "token" {
  secret_id                = aws_secretsmanager_secret.token.id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.token.random_password
  secret_string_wo_version = var.token_version
}
