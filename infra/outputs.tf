output "head_instance_id" {
  description = "The head."
  value       = module.head.instance_id
}

output "head_private_ip" {
  description = "The head's address inside the network."
  value       = module.head.private_ip
}

output "bucket_name" {
  description = "The bucket."
  value       = module.storage.bucket_name
}

output "workers_group" {
  description = "The workers' autoscaling group."
  value       = module.workers.group_name
}

output "log_group" {
  description = "Log group of the nodes."
  value       = module.observability.log_group
}

output "network" {
  description = "What launch/ray-cluster.yaml needs to start nodes in this network."
  value = {
    subnet_id         = module.network.private_subnet_id
    security_group_id = module.security.cluster_group_id
    instance_profiles = module.identity.instance_profiles
    availability_zone = local.availability_zone
    head_ami_id       = local.head_ami_id
    worker_ami_id     = local.worker_ami_id
  }
}

output "user_data" {
  description = "Rendered cloud-init of head and worker; it holds no secret."
  value       = local.user_data
}

locals {
  aws_region_option = "--region ${data.aws_region.current.name}"
  all_workers       = "aws autoscaling set-desired-capacity ${local.aws_region_option} --auto-scaling-group-name ${module.workers.group_name} --desired-capacity"
}

output "next" {
  description = "The commands that come next, in their order."
  value = {
    "1_tunnel"  = "aws ssm start-session ${local.aws_region_option} --target ${module.head.instance_id} --document-name AWS-StartPortForwardingSession --parameters portNumber=8265,localPortNumber=8265"
    "2_token"   = "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(aws secretsmanager get-secret-value ${local.aws_region_option} --secret-id ${module.security.token_secret_arn} --query SecretString --output text)"
    "3_workers" = "${local.all_workers} ${var.workers_max}"
    "4_doctor"  = "grover-dist doctor CONFIG run.dir=/shared/runs/sweep --address http://127.0.0.1:8265"
    "5_submit"  = "grover-dist submit CONFIG run.dir=/shared/runs/sweep --address http://127.0.0.1:8265"
    "6_logs"    = "aws logs tail ${local.aws_region_option} ${module.observability.log_group} --follow"
    "7_stop"    = "${local.all_workers} 0"
    "8_wake"    = "aws ec2 start-instances ${local.aws_region_option} --instance-ids ${module.head.instance_id}"
    "9_end"     = "terraform destroy"
  }
}
