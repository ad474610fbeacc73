variable "name" {
  type        = string
  description = "Name of the cluster."
}

variable "metric_namespace" {
  type        = string
  description = "Namespace of the metrics that nodes write."
}

variable "log_retention_days" {
  type        = number
  description = "Days that node logs are kept."
}

variable "alert_email" {
  type        = string
  description = "Who gets alarms, or null for nobody."
}

variable "idle_minutes" {
  type        = number
  description = "Minutes without a job after which the workers go to zero."
}

variable "head_instance_id" {
  type        = string
  description = "The head's instance."
}

variable "to_zero_policy_arn" {
  type        = string
  description = "Scaling policy that sends all workers away."
}
