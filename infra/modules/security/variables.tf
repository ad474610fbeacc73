variable "name" {
  type        = string
  description = "Name of the cluster."
}

variable "vpc_id" {
  type        = string
  description = "The network."
}

variable "token_version" {
  type        = number
  description = "Raise it by one to make a new Ray token; nodes read it when they boot."
}
