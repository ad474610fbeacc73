# One instance on demand with a fixed private address: workers and a replaced head find it without a lookup.

resource "aws_instance" "this" {
  ami                                  = var.ami_id
  instance_type                        = var.instance_type
  subnet_id                            = var.subnet_id
  private_ip                           = var.private_ip
  vpc_security_group_ids               = [var.security_group_id]
  associate_public_ip_address          = false
  iam_instance_profile                 = var.instance_profile
  user_data                            = var.user_data
  monitoring                           = true
  ebs_optimized                        = true
  disable_api_termination              = var.protect
  instance_initiated_shutdown_behavior = "stop"

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type           = "gp3"
    volume_size           = var.volume_gib
    encrypted             = true
    delete_on_termination = true
  }

  tags        = { Name = "${var.name}-head" }
  volume_tags = { Name = "${var.name}-head", Cluster = var.name }

  # A newer image or a changed script must not replace the head in the middle of a run; `-replace` does it on purpose.
  lifecycle {
    ignore_changes = [ami, user_data]
  }
}
