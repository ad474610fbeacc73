# The folder /shared of all nodes. EFS: pay for what is stored, nothing to size. Lustre: for a genome that hundreds of ranks read at once.
# The nodes' own security group is open within itself, so both need no rule of their own.

resource "aws_efs_file_system" "this" {
  #checkov:skip=CKV_AWS_184:no secret of several parties is kept here, and a key of one's own costs money and outlives the cluster; encrypted with AWS's key
  count = var.kind == "efs" ? 1 : 0

  creation_token  = var.name
  encrypted       = true
  throughput_mode = "elastic"
  tags            = { Name = var.name }

  lifecycle_policy {
    transition_to_ia = "AFTER_30_DAYS"
  }
}

resource "aws_efs_mount_target" "this" {
  count = var.kind == "efs" ? 1 : 0

  file_system_id  = aws_efs_file_system.this[0].id
  subnet_id       = var.subnet_id
  security_groups = [var.security_group_id]
}

resource "aws_fsx_lustre_file_system" "this" {
  count = var.kind == "lustre" ? 1 : 0

  deployment_type             = "PERSISTENT_2"
  per_unit_storage_throughput = 125
  storage_capacity            = var.lustre_capacity_gib
  subnet_ids                  = [var.subnet_id]
  security_group_ids          = [var.security_group_id]
  data_compression_type       = "LZ4"
  tags                        = { Name = var.name }
}
