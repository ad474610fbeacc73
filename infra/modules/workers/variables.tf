variable "name" {
  type        = string
  description = "Name of the cluster."
}

variable "group_name" {
  type        = string
  description = "Name of the autoscaling group; the roles are limited to it."
}

variable "ami_id" {
  type        = string
  description = "Image of the workers."
}

variable "root_device" {
  type        = string
  description = "Root device name of the image."
}

variable "instance_type" {
  type        = string
  description = "Instance type of the workers."
}

variable "gpus_per_node" {
  type        = number
  description = "GPUs of one worker; 0 for CPU workers."
}

variable "efa_maximum" {
  type        = number
  description = "EFA interfaces that the instance type takes at the most."
}

variable "efa_interfaces" {
  type        = number
  description = "EFA interfaces of one worker; 0 for none."
}

variable "purchase" {
  type        = string
  description = "on-demand, spot, capacity-reservation or capacity-block."
}

variable "capacity_reservation_id" {
  type        = string
  description = "The reservation or block, where purchase names one."
}

variable "desired" {
  type        = number
  description = "Workers at the first apply."
}

variable "maximum" {
  type        = number
  description = "Workers at the most."
}

variable "volume_gib" {
  type        = number
  description = "Size of the encrypted root volume, in GiB."
}

variable "subnet_id" {
  type        = string
  description = "The private subnet."
}

variable "security_group_id" {
  type        = string
  description = "Security group of all nodes."
}

variable "instance_profile" {
  type        = string
  description = "Name of the workers' instance profile."
}

variable "user_data" {
  type        = string
  description = "Rendered cloud-init, not encoded."
}

variable "tags" {
  type        = map(string)
  description = "Tags of everything that the group starts."
}
