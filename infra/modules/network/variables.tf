variable "name" {
  type        = string
  description = "Name of the cluster; the prefix of every resource."
}

variable "vpc_cidr" {
  type        = string
  description = "Address range of the network."
}

variable "private_subnet_cidr" {
  type        = string
  description = "Address range of the subnet of all nodes; inside vpc_cidr."
}

variable "public_subnet_cidr" {
  type        = string
  description = "Address range of the NAT gateway's subnet; inside vpc_cidr and apart from private_subnet_cidr."
}

variable "availability_zone" {
  type        = string
  description = "The one zone of all nodes."
}

variable "nat" {
  type        = bool
  description = "A NAT gateway, so that nodes reach package indexes. It costs about 33 USD a month."
}

variable "interface_endpoints" {
  type        = bool
  description = "Private endpoints for the AWS services that nodes need where there is no NAT gateway."
}

variable "log_retention_days" {
  type        = number
  description = "Days that flow logs are kept."
}
