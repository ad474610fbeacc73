variable "name" {
  type        = string
  description = "Name of the cluster; the value of the tag Cluster."
}

variable "monthly_usd" {
  type        = number
  description = "Budget of a month, in USD."
}

variable "alerts_topic_arn" {
  type        = string
  description = "Topic that hears when half and four fifths are spent, and when the whole is forecast."
}

variable "alert_email" {
  type        = string
  description = "Who hears too, or null."
}
