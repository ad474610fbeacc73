variable "name" {
  type        = string
  description = "Name of the cluster; the prefix of every resource and the value of the tag Cluster."
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name is 3 to 24 characters, lower-case letters, digits and hyphens, beginning with a letter: for example grover-sweep."
  }
}

variable "tags" {
  type        = map(string)
  description = "Tags of everything that the autoscaling group starts; give the provider the same ones as default_tags."
  default     = {}
}

# ---------------------------------------------------------------- network

variable "vpc_cidr" {
  type        = string
  description = "Address range of the network, /16 to /26."
  default     = "10.42.0.0/20"
  validation {
    condition     = try(cidrnetmask(var.vpc_cidr) != "" && tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 26, false)
    error_message = "vpc_cidr is an IPv4 range from /16 to /26, for example 10.42.0.0/20."
  }
}

variable "private_subnet_cidr" {
  type        = string
  description = "Address range of all nodes: inside vpc_cidr, /16 to /27."
  default     = "10.42.0.0/22"
  validation {
    condition     = try(cidrnetmask(var.private_subnet_cidr) != "" && tonumber(split("/", var.private_subnet_cidr)[1]) <= 27, false)
    error_message = "private_subnet_cidr is an IPv4 range of at least 32 addresses, for example 10.42.0.0/22."
  }
  validation {
    # Inside: the network's prefix cut out of the subnet's first address is the network's own first address.
    condition = try(
      cidrhost("${cidrhost(var.private_subnet_cidr, 0)}/${split("/", var.vpc_cidr)[1]}", 0) == cidrhost(var.vpc_cidr, 0)
      && tonumber(split("/", var.private_subnet_cidr)[1]) >= tonumber(split("/", var.vpc_cidr)[1]), false
    )
    error_message = "private_subnet_cidr ${var.private_subnet_cidr} is not inside vpc_cidr ${var.vpc_cidr}."
  }
}

variable "public_subnet_cidr" {
  type        = string
  description = "Address range of the NAT gateway: inside vpc_cidr and apart from private_subnet_cidr."
  default     = "10.42.15.240/28"
  validation {
    condition = try(
      cidrhost("${cidrhost(var.public_subnet_cidr, 0)}/${split("/", var.vpc_cidr)[1]}", 0) == cidrhost(var.vpc_cidr, 0)
      && tonumber(split("/", var.public_subnet_cidr)[1]) >= tonumber(split("/", var.vpc_cidr)[1]), false
    )
    error_message = "public_subnet_cidr ${var.public_subnet_cidr} is not inside vpc_cidr ${var.vpc_cidr}."
  }
  validation {
    # Two ranges overlap when the wider one, cut to its prefix, begins where the other does.
    condition = try(
      cidrhost("${cidrhost(var.public_subnet_cidr, 0)}/${min(split("/", var.public_subnet_cidr)[1], split("/", var.private_subnet_cidr)[1])}", 0)
      != cidrhost("${cidrhost(var.private_subnet_cidr, 0)}/${min(split("/", var.public_subnet_cidr)[1], split("/", var.private_subnet_cidr)[1])}", 0), false
    )
    error_message = "public_subnet_cidr ${var.public_subnet_cidr} overlaps private_subnet_cidr ${var.private_subnet_cidr}."
  }
}

variable "availability_zone" {
  type        = string
  description = "The one zone of all nodes; null takes the first that offers worker_instance_type. GPU capacity differs much between zones."
  default     = null
  validation {
    condition     = var.availability_zone == null ? true : can(regex("^[a-z]{2}(-[a-z]+)+-[0-9][a-z]$", var.availability_zone))
    error_message = "availability_zone is a zone and not a region: for example us-east-1a."
  }
}

variable "nat" {
  type        = bool
  description = "A NAT gateway, so that nodes install from package indexes. Without it they install from boot/wheels/ of the bucket."
  default     = true
}

variable "interface_endpoints" {
  type        = bool
  description = "Private endpoints of the AWS services that nodes need; required without NAT."
  default     = false
}

# ---------------------------------------------------------------- storage

variable "bucket_name" {
  type        = string
  description = "Name of the bucket; null makes one of name, account and region, which nobody else can hold."
  default     = null
  validation {
    condition     = var.bucket_name == null ? true : can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket_name))
    error_message = "bucket_name is 3 to 63 characters: lower-case letters, digits and hyphens."
  }
}

variable "bucket_force_destroy" {
  type        = bool
  description = "Let terraform destroy delete the bucket although it holds runs."
  default     = false
}

variable "bucket_old_version_days" {
  type        = number
  description = "Days that replaced and deleted objects are kept."
  default     = 14
  validation {
    condition     = var.bucket_old_version_days >= 1 && floor(var.bucket_old_version_days) == var.bucket_old_version_days
    error_message = "bucket_old_version_days is a whole number of days, 1 or more."
  }
}

variable "shared_filesystem" {
  type        = string
  description = "What all nodes mount at /shared: efs, lustre or none. Runs on several nodes need one."
  default     = "efs"
  validation {
    condition     = contains(["efs", "lustre", "none"], var.shared_filesystem)
    error_message = "shared_filesystem is efs, lustre or none."
  }
}

variable "lustre_capacity_gib" {
  type        = number
  description = "Size of the Lustre file system: 1200, or a multiple of 2400 GiB."
  default     = 1200
  validation {
    condition     = var.lustre_capacity_gib == 1200 || (var.lustre_capacity_gib > 0 && var.lustre_capacity_gib % 2400 == 0)
    error_message = "lustre_capacity_gib is 1200, or a multiple of 2400."
  }
}

# ---------------------------------------------------------------- product

variable "product_wheel" {
  type        = string
  description = "The wheel that every node installs, built by: python -m pip wheel --no-deps --wheel-dir dist ."
  validation {
    condition     = endswith(var.product_wheel, ".whl") && fileexists(var.product_wheel)
    error_message = "There is no wheel at product_wheel. Build it in the repository: python -m pip wheel --no-deps --wheel-dir dist ."
  }
}

variable "product_version" {
  type        = string
  description = "Version of the wheel; a node that ends up with another one refuses to join."
  validation {
    condition     = can(regex("^[0-9]+\\.[0-9]+[0-9a-z.+]*$", var.product_version)) && strcontains(basename(var.product_wheel), "-${var.product_version}-")
    error_message = "product_version is the version in the name of product_wheel: 0.1.0 for grover_dist-0.1.0-py3-none-any.whl."
  }
}

variable "constraints_file" {
  type        = string
  description = "The repository's constraints.txt: the same versions on every node."
  validation {
    condition     = fileexists(var.constraints_file)
    error_message = "There is no file at constraints_file; it is constraints.txt of the repository."
  }
}

variable "python" {
  type        = string
  description = "Python of head and workers; the package manager installs it by this name."
  default     = "python3.11"
  validation {
    condition     = can(regex("^python3\\.1[1-9]$", var.python))
    error_message = "python is python3.11 or later, for example python3.12."
  }
}

variable "token_version" {
  type        = number
  description = "Raise it by one to make a new Ray token; then replace the head and the workers."
  default     = 1
  validation {
    condition     = var.token_version >= 1 && floor(var.token_version) == var.token_version
    error_message = "token_version is 1, 2, 3 and so on."
  }
}

# ---------------------------------------------------------------- head

variable "head_instance_type" {
  type        = string
  description = "Instance type of the head: no GPU, 16 GiB or more."
  default     = "m6i.xlarge"
  validation {
    condition     = can(regex("^[a-z0-9-]+\\.[a-z0-9-]+$", var.head_instance_type))
    error_message = "head_instance_type is written family.size, for example m6i.xlarge."
  }
}

variable "head_ami_id" {
  type        = string
  description = "Image of the head; null takes the newest Amazon Linux 2023 at the first apply and stays with it."
  default     = null
  validation {
    condition     = var.head_ami_id == null ? true : can(regex("^ami-[0-9a-f]{8,17}$", var.head_ami_id))
    error_message = "head_ami_id looks like ami-0123456789abcdef0."
  }
}

variable "head_volume_gib" {
  type        = number
  description = "Encrypted root volume of the head, in GiB."
  default     = 100
  validation {
    condition     = var.head_volume_gib >= 30 && var.head_volume_gib <= 16384
    error_message = "head_volume_gib is 30 to 16384; the environment alone takes 10."
  }
}

variable "protect" {
  type        = bool
  description = "Refuse to end the head, terraform destroy included, until this is false again."
  default     = false
}

# ---------------------------------------------------------------- workers

variable "worker_instance_type" {
  type        = string
  description = "Instance type of the workers."
  validation {
    condition     = can(regex("^[a-z0-9-]+\\.[a-z0-9-]+$", var.worker_instance_type))
    error_message = "worker_instance_type is written family.size, for example g6.12xlarge."
  }
}

variable "require_gpus" {
  type        = bool
  description = "Refuse a worker_instance_type without GPUs."
  default     = false
}

variable "gpu_quota" {
  type        = number
  description = "GPUs that the account's quota allows and that this cluster may use."
  default     = 0
  validation {
    condition     = var.gpu_quota >= 0 && floor(var.gpu_quota) == var.gpu_quota
    error_message = "gpu_quota is a whole number of GPUs, 0 for a cluster of CPUs."
  }
}

variable "worker_ami_id" {
  type        = string
  description = "Image of the workers; null takes the newest Amazon Linux 2023, with NVIDIA's driver for GPU types. Pin it for a long sweep."
  default     = null
  validation {
    condition     = var.worker_ami_id == null ? true : can(regex("^ami-[0-9a-f]{8,17}$", var.worker_ami_id))
    error_message = "worker_ami_id looks like ami-0123456789abcdef0."
  }
}

variable "workers_desired" {
  type        = number
  description = "Workers at the first apply; afterwards the group's own number counts."
  default     = 0
  validation {
    condition     = var.workers_desired >= 0 && floor(var.workers_desired) == var.workers_desired
    error_message = "workers_desired is a whole number, 0 or more."
  }
}

variable "workers_max" {
  type        = number
  description = "Workers at the most."
  default     = 2
  validation {
    condition     = var.workers_max >= 1 && floor(var.workers_max) == var.workers_max
    error_message = "workers_max is a whole number, 1 or more."
  }
}

variable "worker_volume_gib" {
  type        = number
  description = "Encrypted root volume of each worker, in GiB."
  default     = 200
  validation {
    condition     = var.worker_volume_gib >= 30 && var.worker_volume_gib <= 16384
    error_message = "worker_volume_gib is 30 to 16384; GPU images alone take 75."
  }
}

variable "purchase" {
  type        = string
  description = "How workers are bought: on-demand, spot, capacity-reservation or capacity-block."
  default     = "on-demand"
  validation {
    condition     = contains(["on-demand", "spot", "capacity-reservation", "capacity-block"], var.purchase)
    error_message = "purchase is on-demand, spot, capacity-reservation or capacity-block."
  }
}

variable "capacity_reservation_id" {
  type        = string
  description = "The reservation or block that purchase names."
  default     = null
  validation {
    condition     = var.capacity_reservation_id == null ? true : can(regex("^cr-[0-9a-f]{8,17}$", var.capacity_reservation_id))
    error_message = "capacity_reservation_id looks like cr-0123456789abcdef0."
  }
}

variable "efa_interfaces" {
  type        = number
  description = "EFA interfaces of each worker, beside its plain one; 0 for none."
  default     = 0
  validation {
    condition     = var.efa_interfaces >= 0 && var.efa_interfaces <= 32 && floor(var.efa_interfaces) == var.efa_interfaces
    error_message = "efa_interfaces is a whole number from 0 to 32."
  }
}

variable "permissions_boundary_arn" {
  type        = string
  description = "A boundary that the account demands of every role, or null."
  default     = null
}

# ---------------------------------------------------------------- cost

variable "worker_idle_minutes" {
  type        = number
  description = "Minutes without a job after which the workers go to zero."
  default     = 30
  validation {
    condition     = var.worker_idle_minutes >= 5 && var.worker_idle_minutes <= 1440 && floor(var.worker_idle_minutes) == var.worker_idle_minutes
    error_message = "worker_idle_minutes is a whole number from 5 to 1440."
  }
}

variable "head_idle_minutes" {
  type        = number
  description = "Minutes without a job after which the head stops itself; 0 for never. Above worker_idle_minutes."
  default     = 120
  validation {
    condition     = var.head_idle_minutes == 0 || var.head_idle_minutes > var.worker_idle_minutes
    error_message = "head_idle_minutes ${var.head_idle_minutes} must be 0 or above worker_idle_minutes ${var.worker_idle_minutes}, so that the workers go first."
  }
}

variable "monthly_budget_usd" {
  type        = number
  description = "Budget of a month in USD; alerts come at 50 and 80 percent spent, and when the whole is forecast."
  validation {
    condition     = var.monthly_budget_usd > 0
    error_message = "monthly_budget_usd is above 0."
  }
}

variable "alert_email" {
  type        = string
  description = "Who gets alarms and budget alerts; null for nobody."
  default     = null
  validation {
    condition     = var.alert_email == null ? true : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", var.alert_email))
    error_message = "alert_email is an e-mail address."
  }
}

variable "log_retention_days" {
  type        = number
  description = "Days that logs are kept: one of the numbers CloudWatch knows."
  default     = 30
  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365], var.log_retention_days)
    error_message = "log_retention_days is 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180 or 365."
  }
}
