# Each module alone, with a mocked provider: no AWS, no fake. (security holds an ephemeral resource, which mocks refuse before
# Terraform 1.12; tests/infra applies it for real.)

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { name = "us-east-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mocked" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:us-east-1:123456789012:log-group:mocked" }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:us-east-1:123456789012:mocked" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 1 }
  }
}

variables {
  name                     = "grover-test"
  vpc_cidr                 = "10.42.0.0/20"
  private_subnet_cidr      = "10.42.0.0/22"
  public_subnet_cidr       = "10.42.15.240/28"
  availability_zone        = "us-east-1a"
  nat                      = true
  interface_endpoints      = false
  bucket_name              = "grover-test-bucket"
  log_retention_days       = 30
  force_destroy            = false
  old_version_days         = 14
  files                    = {}
  bucket_arn               = "arn:aws:s3:::grover-test-bucket"
  token_secret_arn         = "arn:aws:secretsmanager:us-east-1:123456789012:secret:grover-test/ray-token"
  workers_group_name       = "grover-test-workers"
  metric_namespace         = "GroverDist"
  group_name               = "grover-test-workers"
  ami_id                   = "ami-0123456789abcdef0"
  root_device              = "/dev/xvda"
  instance_type            = "p4d.24xlarge"
  gpus_per_node            = 8
  efa_maximum              = 4
  efa_interfaces           = 4
  purchase                 = "on-demand"
  capacity_reservation_id  = null
  desired                  = 0
  maximum                  = 2
  volume_gib               = 200
  subnet_id                = "subnet-0123456789abcdef0"
  security_group_id        = "sg-0123456789abcdef0"
  instance_profile         = "grover-test-worker"
  user_data                = "#cloud-config\n"
  tags                     = { Lab = "test" }
  private_ip               = "10.42.0.10"
  protect                  = false
  alert_email              = "lab@example.org"
  idle_minutes             = 30
  head_instance_id         = "i-0123456789abcdef0"
  to_zero_policy_arn       = "arn:aws:autoscaling:us-east-1:123456789012:scalingPolicy:mocked"
  monthly_usd              = 100
  alerts_topic_arn         = "arn:aws:sns:us-east-1:123456789012:mocked"
  kind                     = "lustre"
  lustre_capacity_gib      = 1200
  permissions_boundary_arn = null
}

run "network_with_nat" {
  command = plan
  module { source = "./modules/network" }

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && length(aws_vpc_endpoint.interface) == 0
    error_message = "One NAT gateway and no paid endpoints."
  }
  assert {
    condition     = !aws_subnet.private.map_public_ip_on_launch && !aws_subnet.public[0].map_public_ip_on_launch
    error_message = "No subnet gives public addresses."
  }
}

run "network_without_nat" {
  command = plan
  module { source = "./modules/network" }
  variables {
    nat                 = false
    interface_endpoints = true
  }

  assert {
    condition     = length(aws_internet_gateway.this) == 0 && length(aws_route.private) == 0
    error_message = "Without NAT there is no way to the internet at all."
  }
  assert {
    condition     = contains(keys(aws_vpc_endpoint.interface), "secretsmanager") && contains(keys(aws_vpc_endpoint.interface), "ssm")
    error_message = "Nodes reach their token and Systems Manager by private endpoints."
  }
}

run "network_without_any_way_out" {
  command = plan
  module { source = "./modules/network" }
  variables {
    nat = false
  }
  expect_failures = [aws_vpc.this]
}

run "storage" {
  command = plan
  module { source = "./modules/storage" }

  assert {
    condition = (
      aws_s3_bucket_public_access_block.this.block_public_acls && aws_s3_bucket_public_access_block.this.block_public_policy &&
      aws_s3_bucket_public_access_block.this.ignore_public_acls && aws_s3_bucket_public_access_block.this.restrict_public_buckets
    )
    error_message = "The bucket is closed to the public in all four ways."
  }
  assert {
    condition     = aws_s3_bucket_versioning.this.versioning_configuration[0].status == "Enabled"
    error_message = "The bucket is versioned."
  }
}

run "identity" {
  command = plan
  module { source = "./modules/identity" }

  assert {
    condition     = toset(keys(aws_iam_instance_profile.this)) == toset(["head", "worker"])
    error_message = "One profile for each role."
  }
  assert {
    # PutMetricData knows no resources; every other permission names what it is for.
    condition     = alltrue([for statement in data.aws_iam_policy_document.node.statement : statement.sid == "OwnMetrics" || !contains(statement.resources, "*")])
    error_message = "A permission on everything."
  }
  assert {
    condition     = alltrue([for statement in concat(data.aws_iam_policy_document.head.statement, data.aws_iam_policy_document.worker.statement) : alltrue([for item in statement.resources : endswith(item, "autoScalingGroupName/grover-test-workers")])])
    error_message = "Nodes may change their own autoscaling group and no other."
  }
}

run "head" {
  command = plan
  module { source = "./modules/head" }

  assert {
    condition     = aws_instance.this.metadata_options[0].http_tokens == "required" && aws_instance.this.root_block_device[0].encrypted
    error_message = "IMDSv2 alone, and an encrypted disk."
  }
  assert {
    condition     = !aws_instance.this.associate_public_ip_address && aws_instance.this.instance_initiated_shutdown_behavior == "stop"
    error_message = "No public address; an idle head stops and keeps its disk."
  }
}

run "workers_on_demand_with_efa" {
  command = apply
  module { source = "./modules/workers" }

  assert {
    condition     = length(aws_placement_group.this) == 1 && aws_placement_group.this[0].strategy == "cluster"
    error_message = "GPU workers stand together."
  }
  assert {
    condition     = [for item in aws_launch_template.this.network_interfaces : item.interface_type] == ["interface", "efa-only", "efa-only", "efa-only", "efa-only"]
    error_message = "A plain interface, then EFA-only devices."
  }
  assert {
    condition     = [for item in aws_launch_template.this.network_interfaces : item.network_card_index] == [0, 0, 1, 2, 3]
    error_message = "One EFA device on each network card."
  }
  assert {
    condition     = aws_launch_template.this.metadata_options[0].http_tokens == "required" && aws_launch_template.this.block_device_mappings[0].ebs[0].encrypted == "true"
    error_message = "IMDSv2 alone, and an encrypted disk."
  }
  assert {
    condition     = aws_autoscaling_group.this.wait_for_capacity_timeout == "0" && aws_autoscaling_group.this.min_size == 0
    error_message = "An apply does not wait for GPUs, and idleness may send all away."
  }
}

run "workers_on_spot" {
  command = plan
  module { source = "./modules/workers" }
  variables {
    purchase       = "spot"
    efa_interfaces = 0
  }

  assert {
    condition     = aws_launch_template.this.instance_market_options[0].market_type == "spot"
    error_message = "Spot is asked for."
  }
  assert {
    condition     = aws_launch_template.this.network_interfaces[0].associate_public_ip_address == "false"
    error_message = "No public address."
  }
}

run "workers_in_a_reservation" {
  command = plan
  module { source = "./modules/workers" }
  variables {
    purchase                = "capacity-block"
    capacity_reservation_id = "cr-0123456789abcdef0"
  }

  assert {
    condition     = length(aws_placement_group.this) == 0 && aws_launch_template.this.instance_market_options[0].market_type == "capacity-block"
    error_message = "A reservation goes without a placement group."
  }
}

run "workers_in_a_reservation_without_its_name" {
  command = plan
  module { source = "./modules/workers" }
  variables {
    purchase = "capacity-reservation"
  }
  expect_failures = [aws_launch_template.this]
}

run "workers_with_more_efa_than_the_type_takes" {
  command = plan
  module { source = "./modules/workers" }
  variables {
    efa_interfaces = 5
  }
  expect_failures = [aws_launch_template.this]
}

run "observability" {
  command = plan
  module { source = "./modules/observability" }

  assert {
    condition     = aws_cloudwatch_metric_alarm.idle.treat_missing_data == "notBreaching" && aws_cloudwatch_metric_alarm.idle.evaluation_periods == 30
    error_message = "A dead agent is not idleness."
  }
  assert {
    condition     = contains(aws_cloudwatch_metric_alarm.idle.alarm_actions, var.to_zero_policy_arn) && contains(aws_cloudwatch_metric_alarm.bootstrap.alarm_actions, var.to_zero_policy_arn)
    error_message = "Idleness and failing boots send the workers away."
  }
}

run "guardrails" {
  command = plan
  module { source = "./modules/guardrails" }

  assert {
    condition     = aws_budgets_budget.this.limit_amount == "100.00" && length(aws_budgets_budget.this.notification) == 3
    error_message = "A budget with three notices."
  }
  assert {
    condition     = one(aws_budgets_budget.this.cost_filter).values[0] == "user:Cluster$grover-test"
    error_message = "It counts this cluster alone."
  }
}

run "lustre" {
  command = plan
  module { source = "./modules/filesystem" }

  assert {
    condition     = aws_fsx_lustre_file_system.this[0].storage_capacity == 1200 && length(aws_efs_file_system.this) == 0
    error_message = "Lustre and nothing else."
  }
}

run "no_filesystem" {
  command = plan
  module { source = "./modules/filesystem" }
  variables {
    kind = "none"
  }

  assert {
    condition     = output.source == "none"
    error_message = "Nodes mount nothing."
  }
}
