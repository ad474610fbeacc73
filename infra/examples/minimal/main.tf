# The smallest cluster that is real: a head and up to two CPU workers.
# It is for the first hour: every step up to the report, for the price of three small instances.

module "cluster" {
  source = "../.."

  name                 = var.name
  tags                 = local.tags
  product_wheel        = var.product_wheel
  product_version      = var.product_version
  constraints_file     = "${path.root}/../../../constraints.txt"
  monthly_budget_usd   = var.monthly_budget_usd
  alert_email          = var.alert_email
  bucket_name          = var.bucket_name
  bucket_force_destroy = var.bucket_force_destroy
  availability_zone    = var.availability_zone
  worker_ami_id        = var.worker_ami_id
  shared_filesystem    = var.shared_filesystem
  vpc_cidr             = var.vpc_cidr
  private_subnet_cidr  = var.private_subnet_cidr
  public_subnet_cidr   = var.public_subnet_cidr

  head_instance_type   = "m6i.xlarge"
  worker_instance_type = "m6i.2xlarge"
  worker_volume_gib    = 50
  workers_max          = 2
}
