variable "name" {
  type        = string
  description = "Name of the cluster."
}

variable "kind" {
  type        = string
  description = "none, efs or lustre."
}

variable "lustre_capacity_gib" {
  type        = number
  description = "Size of the Lustre file system, in GiB."
}

variable "subnet_id" {
  type        = string
  description = "The private subnet."
}

variable "security_group_id" {
  type        = string
  description = "Security group of all nodes."
}
