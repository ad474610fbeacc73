# 1.11: the token is made by an ephemeral resource and written through a write-only argument, so it is in no state file.
terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.98, < 6.0"
    }
  }
}
