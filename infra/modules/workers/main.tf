locals {
  reserved = contains(["capacity-reservation", "capacity-block"], var.purchase)

  # A reservation already decides where its instances stand; a placement group beside it makes launches fail.
  placement_group = var.gpus_per_node > 0 && !local.reserved

  # The plain interface carries Ray and S3; the others carry EFA traffic alone and take no addresses of the subnet.
  efa_devices = [for card in range(var.efa_interfaces) : { card = card, device = 1, type = "efa-only" }]
  interfaces  = concat([{ card = 0, device = 0, type = "interface" }], local.efa_devices)

  tags = merge(var.tags, { Name = "${var.name}-worker", Cluster = var.name })
}

resource "aws_placement_group" "this" {
  count = local.placement_group ? 1 : 0

  name     = "${var.name}-workers"
  strategy = "cluster"
}

resource "aws_launch_template" "this" {
  name                   = "${var.name}-worker"
  description            = "Worker of ${var.name}"
  image_id               = var.ami_id
  instance_type          = var.instance_type
  ebs_optimized          = true
  update_default_version = true
  user_data              = base64encode(var.user_data)

  iam_instance_profile {
    name = var.instance_profile
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  monitoring {
    enabled = true
  }

  block_device_mappings {
    device_name = var.root_device
    ebs {
      volume_type           = "gp3"
      volume_size           = var.volume_gib
      encrypted             = "true"
      delete_on_termination = "true"
    }
  }

  dynamic "network_interfaces" {
    for_each = local.interfaces
    content {
      network_card_index          = network_interfaces.value.card
      device_index                = network_interfaces.value.device
      interface_type              = network_interfaces.value.type
      security_groups             = [var.security_group_id]
      associate_public_ip_address = length(local.interfaces) == 1 ? "false" : null # refused beside several interfaces; the subnet gives none
      delete_on_termination       = "true"
    }
  }

  dynamic "instance_market_options" {
    for_each = var.purchase == "capacity-block" ? ["capacity-block"] : var.purchase == "spot" ? ["spot"] : []
    content {
      market_type = instance_market_options.value
      dynamic "spot_options" {
        for_each = var.purchase == "spot" ? [1] : []
        content {
          spot_instance_type             = "one-time"
          instance_interruption_behavior = "terminate"
        }
      }
    }
  }

  dynamic "capacity_reservation_specification" {
    for_each = local.reserved ? [1] : []
    content {
      capacity_reservation_target {
        capacity_reservation_id = var.capacity_reservation_id
      }
    }
  }

  # The provider's default tags do not reach what an autoscaling group starts.
  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume", "network-interface"])
    content {
      resource_type = tag_specifications.value
      tags          = local.tags
    }
  }

  lifecycle {
    precondition {
      condition     = !local.reserved || var.capacity_reservation_id != null
      error_message = "purchase = \"${var.purchase}\" needs capacity_reservation_id, for example cr-0123456789abcdef0."
    }
    precondition {
      condition     = var.efa_interfaces <= var.efa_maximum
      error_message = "${var.instance_type} takes at most ${var.efa_maximum} EFA interfaces, and efa_interfaces is ${var.efa_interfaces}."
    }
  }
}

resource "aws_autoscaling_group" "this" {
  name                      = var.group_name
  min_size                  = 0
  max_size                  = var.maximum
  desired_capacity          = var.desired
  vpc_zone_identifier       = [var.subnet_id]
  placement_group           = local.placement_group ? aws_placement_group.this[0].id : null
  health_check_type         = "EC2"
  health_check_grace_period = 900
  capacity_rebalance        = false # a gang that runs is worth more than a node that may stay longer
  wait_for_capacity_timeout = "0"   # GPUs may come in an hour; an apply must not wait for them
  force_delete              = true
  enabled_metrics           = ["GroupDesiredCapacity", "GroupInServiceInstances"]

  launch_template {
    id      = aws_launch_template.this.id
    version = aws_launch_template.this.latest_version
  }

  initial_lifecycle_hook {
    name                 = "drain"
    lifecycle_transition = "autoscaling:EC2_INSTANCE_TERMINATING"
    default_result       = "CONTINUE"
    heartbeat_timeout    = 120
  }

  dynamic "tag" {
    for_each = local.tags
    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }

  # The idle alarm and the user change the number of workers; Terraform sets the first one.
  lifecycle {
    ignore_changes = [desired_capacity]
    precondition {
      condition     = var.desired <= var.maximum
      error_message = "workers_desired ${var.desired} is above workers_max ${var.maximum}."
    }
  }
}

resource "aws_autoscaling_policy" "to_zero" {
  name                   = "${var.name}-idle-to-zero"
  autoscaling_group_name = aws_autoscaling_group.this.name
  policy_type            = "SimpleScaling"
  adjustment_type        = "ExactCapacity"
  scaling_adjustment     = 0
  cooldown               = 60
}
