locals {
  tags = { Cluster = var.name, Product = "grover_dist" }

  # Against a local fake of AWS nothing is looked up elsewhere and nothing is tried twenty-five times.
  fake = var.aws_endpoint_url == null ? false : true
}

provider "aws" {
  region                      = var.region
  access_key                  = local.fake ? "fake" : null
  secret_key                  = local.fake ? "fake" : null
  max_retries                 = local.fake ? 1 : null
  s3_use_path_style           = local.fake
  skip_credentials_validation = local.fake
  skip_metadata_api_check     = local.fake
  skip_requesting_account_id  = false

  default_tags {
    tags = local.tags
  }

  dynamic "endpoints" {
    for_each = local.fake ? [var.aws_endpoint_url] : []
    content {
      autoscaling    = endpoints.value
      budgets        = endpoints.value
      cloudwatch     = endpoints.value
      ec2            = endpoints.value
      efs            = endpoints.value
      fsx            = endpoints.value
      iam            = endpoints.value
      logs           = endpoints.value
      s3             = endpoints.value
      secretsmanager = endpoints.value
      sns            = endpoints.value
      ssm            = endpoints.value
      sts            = endpoints.value
    }
  }
}
