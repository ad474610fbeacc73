variable "name" {
  type        = string
  description = "Name of the cluster."
}

variable "ami_id" {
  type        = string
  description = "Image of the head. Later changes are ignored."
}

variable "instance_type" {
  type        = string
  description = "Instance type of the head; it needs no GPU."
}

variable "subnet_id" {
  type        = string
  description = "The private subnet."
}

variable "private_ip" {
  type        = string
  description = "The head's fixed address inside the private subnet."
}

variable "security_group_id" {
  type        = string
  description = "Security group of all nodes."
}

variable "instance_profile" {
  type        = string
  description = "Name of the head's instance profile."
}

variable "user_data" {
  type        = string
  description = "Rendered cloud-init."
}

variable "volume_gib" {
  type        = number
  description = "Size of the encrypted root volume, in GiB."
}

variable "protect" {
  type        = bool
  description = "Refuse termination, terraform destroy included, until this is false again."
}
