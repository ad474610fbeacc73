resource "aws_cloudwatch_log_group" "nodes" {
  #checkov:skip=CKV_AWS_158:no secret of several parties is kept here, and a key of one's own costs money and outlives the cluster; encrypted with AWS's key
  name              = "/${var.name}/nodes"
  retention_in_days = var.log_retention_days
}

resource "aws_sns_topic" "alerts" {
  #checkov:skip=CKV_AWS_26:alarms and budgets may not publish to a topic under AWS's own key; its messages hold no secret
  name = "${var.name}-alerts"
}

data "aws_iam_policy_document" "alerts" {
  statement {
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alerts.arn]
    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"]
    }
  }
}

resource "aws_sns_topic_policy" "alerts" {
  arn    = aws_sns_topic.alerts.arn
  policy = data.aws_iam_policy_document.alerts.json
}

resource "aws_sns_topic_subscription" "email" {
  count = var.alert_email == null ? 0 : 1

  topic_arn = aws_sns_topic.alerts.arn
  protocol  = "email"
  endpoint  = var.alert_email
}

# Missing data is not idleness: a dead agent must not send a busy cluster home.
resource "aws_cloudwatch_metric_alarm" "idle" {
  alarm_name          = "${var.name}-idle"
  alarm_description   = "No job for ${var.idle_minutes} minutes: the workers go to zero"
  namespace           = var.metric_namespace
  metric_name         = "Idle"
  dimensions          = { Cluster = var.name }
  statistic           = "Minimum"
  period              = 60
  evaluation_periods  = var.idle_minutes
  datapoints_to_alarm = var.idle_minutes
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.to_zero_policy_arn, aws_sns_topic.alerts.arn]
}

# A wheel or an image that cannot boot would be replaced for ever, and paid for: the third failure in an hour ends it.
resource "aws_cloudwatch_metric_alarm" "bootstrap" {
  alarm_name          = "${var.name}-bootstrap"
  alarm_description   = "Nodes fail to boot: the workers go to zero. Read the log group /${var.name}/nodes"
  namespace           = var.metric_namespace
  metric_name         = "BootstrapFailed"
  dimensions          = { Cluster = var.name }
  statistic           = "Sum"
  period              = 3600
  evaluation_periods  = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = [var.to_zero_policy_arn, aws_sns_topic.alerts.arn]
}

resource "aws_cloudwatch_metric_alarm" "head" {
  alarm_name          = "${var.name}-head"
  alarm_description   = "The head fails its status check"
  namespace           = "AWS/EC2"
  metric_name         = "StatusCheckFailed"
  dimensions          = { InstanceId = var.head_instance_id }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 3
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 1
  treat_missing_data  = "notBreaching" # a head that stopped because it was idle is no fault
  alarm_actions       = [aws_sns_topic.alerts.arn]
}
