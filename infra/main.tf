# The whole cluster: bucket, network, roles, head, workers, alarms, budget. It holds no provider; infra/examples/ call it.

data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

data "aws_ec2_instance_type" "head" {
  instance_type = var.head_instance_type
}

data "aws_ec2_instance_type" "worker" {
  instance_type = var.worker_instance_type

  lifecycle {
    postcondition {
      condition     = !var.require_gpus || length(self.gpus) > 0
      error_message = "${var.worker_instance_type} has no GPU, and this is a GPU cluster. Choose for example g6.xlarge (1 GPU), g6.12xlarge (4) or p4d.24xlarge (8)."
    }
    postcondition {
      condition     = sum(concat([0], [for gpu in self.gpus : gpu.count])) * var.workers_max <= var.gpu_quota
      error_message = "workers_max ${var.workers_max} of ${var.worker_instance_type} is ${sum(concat([0], [for gpu in self.gpus : gpu.count])) * var.workers_max} GPUs, above gpu_quota ${var.gpu_quota}. Lower workers_max, or raise gpu_quota when the account's quota allows it."
    }
  }
}

data "aws_ec2_instance_type_offerings" "worker" {
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = [var.worker_instance_type]
  }

  lifecycle {
    postcondition {
      condition     = length(self.locations) > 0
      error_message = "${var.worker_instance_type} is not offered in ${data.aws_region.current.name}. Choose another region or another worker_instance_type."
    }
    postcondition {
      condition     = var.availability_zone == null ? true : contains(self.locations, var.availability_zone)
      error_message = "${var.worker_instance_type} is not offered in the zone ${coalesce(var.availability_zone, "-")}; in ${data.aws_region.current.name} it is in ${join(", ", sort(self.locations))}."
    }
  }
}

# Amazon Linux 2023, with and without NVIDIA's driver: the same Python on head and workers, which Ray demands.
data "aws_ssm_parameter" "head_ami" {
  count = var.head_ami_id == null ? 1 : 0
  name  = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
}

data "aws_ssm_parameter" "worker_ami" {
  count = var.worker_ami_id == null ? 1 : 0
  name = (local.gpus_per_node > 0
    ? "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-al2023/latest/ami-id"
    : "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
  )
}

data "aws_ami" "worker" {
  filter {
    name   = "image-id"
    values = [local.worker_ami_id]
  }
}

locals {
  # Account and region in the name: nobody else can hold it.
  bucket_name        = coalesce(var.bucket_name, "${var.name}-${data.aws_caller_identity.current.account_id}-${data.aws_region.current.name}")
  availability_zone  = coalesce(var.availability_zone, try(sort(data.aws_ec2_instance_type_offerings.worker.locations)[0], ""))
  head_private_ip    = cidrhost(var.private_subnet_cidr, 10)
  head_ami_id        = var.head_ami_id != null ? var.head_ami_id : nonsensitive(data.aws_ssm_parameter.head_ami[0].value)
  worker_ami_id      = var.worker_ami_id != null ? var.worker_ami_id : nonsensitive(data.aws_ssm_parameter.worker_ami[0].value)
  gpus_per_node      = sum(concat([0], [for gpu in data.aws_ec2_instance_type.worker.gpus : gpu.count]))
  workers_group_name = "${var.name}-workers"
  metric_namespace   = "GroverDist"

  script          = "${path.module}/scripts/grover-node.sh"
  script_key      = "boot/${filesha256(local.script)}/grover-node.sh"
  wheel_key       = "boot/${basename(var.product_wheel)}"
  constraints_key = "boot/${filesha256(var.constraints_file)}/constraints.txt"
}

module "storage" {
  source = "./modules/storage"

  name             = var.name
  bucket_name      = local.bucket_name
  force_destroy    = var.bucket_force_destroy
  old_version_days = var.bucket_old_version_days
  files = {
    (local.script_key)      = local.script
    (local.wheel_key)       = var.product_wheel
    (local.constraints_key) = var.constraints_file
  }
}

# From here on the name comes from the storage module: when the bucket cannot be made, nothing else is.
module "network" {
  source = "./modules/network"

  name                = module.storage.name
  vpc_cidr            = var.vpc_cidr
  private_subnet_cidr = var.private_subnet_cidr
  public_subnet_cidr  = var.public_subnet_cidr
  availability_zone   = local.availability_zone
  nat                 = var.nat
  interface_endpoints = var.interface_endpoints
  log_retention_days  = var.log_retention_days
}

module "security" {
  source = "./modules/security"

  name          = module.storage.name
  vpc_id        = module.network.vpc_id
  token_version = var.token_version
}

module "identity" {
  source = "./modules/identity"

  name                     = module.storage.name
  bucket_arn               = module.storage.bucket_arn
  token_secret_arn         = module.security.token_secret_arn
  workers_group_name       = local.workers_group_name
  metric_namespace         = local.metric_namespace
  permissions_boundary_arn = var.permissions_boundary_arn
}

module "filesystem" {
  source = "./modules/filesystem"

  name                = module.storage.name
  kind                = var.shared_filesystem
  lustre_capacity_gib = var.lustre_capacity_gib
  subnet_id           = module.network.private_subnet_id
  security_group_id   = module.security.cluster_group_id
}

locals {
  node_environment = {
    GROVER_CLUSTER           = var.name
    GROVER_REGION            = data.aws_region.current.name
    GROVER_BUCKET            = module.storage.bucket_name
    GROVER_TOKEN_SECRET      = module.security.token_secret_arn
    GROVER_HEAD_ADDRESS      = local.head_private_ip
    GROVER_WORKERS_GROUP     = local.workers_group_name
    GROVER_METRIC_NAMESPACE  = local.metric_namespace
    GROVER_HEAD_IDLE_MINUTES = var.head_idle_minutes
    GROVER_SHARED            = module.filesystem.source
    GROVER_PYTHON            = var.python
    GROVER_PACKAGES          = var.nat ? "index" : "bucket"
    GROVER_VERSION           = var.product_version
    GROVER_WHEEL_KEY         = local.wheel_key
    GROVER_WHEEL_SHA256      = filesha256(var.product_wheel)
    GROVER_CONSTRAINTS_KEY   = local.constraints_key
    GROVER_SCRIPT_KEY        = local.script_key
    GROVER_SCRIPT_SHA256     = filesha256(local.script)
  }

  user_data = { for role in ["head", "worker"] : role => format("#cloud-config\n%s", yamlencode({
    write_files = [
      {
        path        = "/etc/grover/node.env"
        permissions = "0644"
        content     = join("", [for key, value in merge(local.node_environment, { GROVER_ROLE = role }) : "${key}=${value}\n"])
      },
      { path = "/usr/local/sbin/grover-fetch", permissions = "0755", content = file("${path.module}/scripts/fetch.sh") },
      { path = "/etc/systemd/system/grover-ray.service", permissions = "0644", content = file("${path.module}/scripts/grover-ray.service") },
      { path = "/etc/systemd/system/grover-watch.service", permissions = "0644", content = file("${path.module}/scripts/grover-watch.service") },
    ]
    runcmd = [["/usr/local/sbin/grover-fetch"]]
  })) }
}

module "head" {
  source = "./modules/head"

  name              = module.storage.name
  ami_id            = local.head_ami_id
  instance_type     = data.aws_ec2_instance_type.head.instance_type
  subnet_id         = module.network.private_subnet_id
  private_ip        = local.head_private_ip
  security_group_id = module.security.cluster_group_id
  instance_profile  = module.identity.instance_profiles["head"]
  user_data         = local.user_data["head"]
  volume_gib        = var.head_volume_gib
  protect           = var.protect

  # A node that boots before its way out, its token or its files exist marks itself failed.
  depends_on = [module.storage.objects, module.network.ready, module.security.token_ready, module.identity.ready]
}

module "workers" {
  source = "./modules/workers"

  name                    = module.storage.name
  group_name              = local.workers_group_name
  ami_id                  = local.worker_ami_id
  root_device             = data.aws_ami.worker.root_device_name
  instance_type           = var.worker_instance_type
  gpus_per_node           = local.gpus_per_node
  efa_maximum             = data.aws_ec2_instance_type.worker.efa_supported ? data.aws_ec2_instance_type.worker.efa_maximum_interfaces : 0
  efa_interfaces          = var.efa_interfaces
  purchase                = var.purchase
  capacity_reservation_id = var.capacity_reservation_id
  desired                 = var.workers_desired
  maximum                 = var.workers_max
  volume_gib              = var.worker_volume_gib
  subnet_id               = module.network.private_subnet_id
  security_group_id       = module.security.cluster_group_id
  instance_profile        = module.identity.instance_profiles["worker"]
  user_data               = local.user_data["worker"]
  tags                    = var.tags

  depends_on = [module.storage.objects, module.network.ready, module.security.token_ready, module.identity.ready]
}

module "observability" {
  source = "./modules/observability"

  name               = module.storage.name
  metric_namespace   = local.metric_namespace
  log_retention_days = var.log_retention_days
  alert_email        = var.alert_email
  idle_minutes       = var.worker_idle_minutes
  head_instance_id   = module.head.instance_id
  to_zero_policy_arn = module.workers.to_zero_policy_arn
}

module "guardrails" {
  source = "./modules/guardrails"

  name             = module.storage.name
  monthly_usd      = var.monthly_budget_usd
  alerts_topic_arn = module.observability.alerts_topic_arn
  alert_email      = var.alert_email
}
