variable "name" {
  type        = string
  description = "Name of the cluster."
}

variable "bucket_name" {
  type        = string
  description = "Name of the bucket; unique over all of AWS."
}

variable "force_destroy" {
  type        = bool
  description = "Let terraform destroy delete a bucket that still holds runs."
}

variable "old_version_days" {
  type        = number
  description = "Days that replaced and deleted objects are kept."
}

variable "files" {
  type        = map(string)
  description = "Object key to local file: the node script, and the wheel of the product when it is given."
}
