# A sweep over candidate vocabularies on GPU nodes in one placement group.

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

  require_gpus            = true
  gpu_quota               = var.gpu_quota
  worker_instance_type    = var.worker_instance_type
  workers_max             = var.workers_max
  workers_desired         = var.workers_desired
  purchase                = var.purchase
  capacity_reservation_id = var.capacity_reservation_id
  efa_interfaces          = var.efa_interfaces
}
