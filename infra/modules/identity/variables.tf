variable "name" {
  type        = string
  description = "Name of the cluster."
}

variable "bucket_arn" {
  type        = string
  description = "The only bucket that nodes may touch."
}

variable "token_secret_arn" {
  type        = string
  description = "The only secret that nodes may read."
}

variable "workers_group_name" {
  type        = string
  description = "The only autoscaling group that nodes may change."
}

variable "metric_namespace" {
  type        = string
  description = "The only namespace that nodes may write metrics to."
}

variable "permissions_boundary_arn" {
  type        = string
  default     = null
  description = "A boundary that the account demands of every role, or null."
}
