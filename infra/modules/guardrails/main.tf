# Counted by the tag Cluster, which must be activated once as a cost allocation tag in the account's billing console.

resource "aws_budgets_budget" "this" {
  name         = var.name
  budget_type  = "COST"
  limit_amount = format("%.2f", var.monthly_usd)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"

  cost_filter {
    name   = "TagKeyValue"
    values = [format("user:Cluster$%s", var.name)]
  }

  dynamic "notification" {
    for_each = { 50 = "ACTUAL", 80 = "ACTUAL", 100 = "FORECASTED" }
    content {
      comparison_operator        = "GREATER_THAN"
      threshold                  = notification.key
      threshold_type             = "PERCENTAGE"
      notification_type          = notification.value
      subscriber_sns_topic_arns  = [var.alerts_topic_arn]
      subscriber_email_addresses = var.alert_email == null ? [] : [var.alert_email]
    }
  }
}
