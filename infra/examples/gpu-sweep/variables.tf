variable "region" {
  type        = string
  description = "Region of everything, for example us-east-1."
  validation {
    condition     = can(regex("^(us|eu|ap|ca|sa|me|af|il|mx)-[a-z]+-[0-9]$", var.region))
    error_message = "region is a region and not a zone: for example us-east-1, eu-central-1."
  }
}

variable "name" {
  type        = string
  description = "Name of the cluster: 3 to 24 lower-case letters, digits and hyphens."
  default     = "grover-sweep"
}

variable "product_wheel" {
  type        = string
  description = "The wheel of grover_dist that every node installs."
}

variable "product_version" {
  type        = string
  description = "Version of that wheel."
}

variable "monthly_budget_usd" {
  type        = number
  description = "Budget of a month in USD; alerts come before it is spent."
  default     = 2000
}

variable "alert_email" {
  type        = string
  description = "Who gets alarms and budget alerts; null for nobody."
  default     = null
}

variable "bucket_name" {
  type        = string
  description = "Name of the bucket; null makes one that nobody else can hold."
  default     = null
}

variable "bucket_force_destroy" {
  type        = bool
  description = "Let terraform destroy delete the bucket although it holds runs."
  default     = false
}

variable "availability_zone" {
  type        = string
  description = "The one zone of all nodes; null takes the first that offers the workers' type."
  default     = null
}

variable "worker_ami_id" {
  type        = string
  description = "Image of the workers; null takes the newest. Pin it for a long sweep."
  default     = null
}

variable "shared_filesystem" {
  type        = string
  description = "What all nodes mount at /shared: efs, lustre or none."
  default     = "efs"
}

variable "vpc_cidr" {
  type        = string
  description = "Address range of the network."
  default     = "10.42.0.0/20"
}

variable "private_subnet_cidr" {
  type        = string
  description = "Address range of the nodes, inside vpc_cidr."
  default     = "10.42.0.0/22"
}

variable "public_subnet_cidr" {
  type        = string
  description = "Address range of the NAT gateway, inside vpc_cidr and apart from the nodes'."
  default     = "10.42.15.240/28"
}

variable "worker_instance_type" {
  type        = string
  description = "Instance type of the workers; it must have GPUs."
  default     = "g6.12xlarge"
}

variable "workers_max" {
  type        = number
  description = "Workers at the most."
  default     = 4
}

variable "workers_desired" {
  type        = number
  description = "Workers at the first apply; 0 costs nothing until the sweep is ready."
  default     = 0
}

variable "gpu_quota" {
  type        = number
  description = "GPUs that the account's quota allows and that this cluster may use."
  default     = 16
}

variable "purchase" {
  type        = string
  description = "How workers are bought: on-demand, spot, capacity-reservation or capacity-block."
  default     = "on-demand"
}

variable "capacity_reservation_id" {
  type        = string
  description = "The reservation or block that purchase names."
  default     = null
}

variable "efa_interfaces" {
  type        = number
  description = "EFA interfaces of each worker; 0 for none."
  default     = 0
}

variable "aws_endpoint_url" {
  type        = string
  description = "A local fake of AWS, for tests; null for AWS itself."
  default     = null
}
