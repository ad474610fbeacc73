"""A fake of AWS on loopback: moto's server, with what it lacks or tells wrongly for this cluster mended.

Run by an interpreter that has `moto[server]`: `python fake_aws.py PORT [HOST]`. Calls that the fake does not know answer 400 at
once (the provider would repeat a 500 twenty-five times) and are listed at `/fake/unknown-calls`.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
os.environ.setdefault("MOTO_AUTOSCALING_EXECUTION_MODE", "")

from moto.autoscaling.models import FakeScalingPolicy, LifecycleHook, autoscaling_backends
from moto.budgets.models import budgets_backends
from moto.budgets.responses import BudgetsResponse
from moto.cloudwatch.models import cloudwatch_backends
from moto.core.responses import ActionResult, BaseResponse, EmptyResult
from moto.ec2.models import ec2_backends
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instances import Instance, InstanceBackend
from moto.ec2.models.launch_templates import LaunchTemplateVersion
from moto.ec2.models.security_groups import SecurityGroupRule
from moto.ec2.responses import EC2Response
from moto.efs.models import efs_backends
from moto.iam.models import iam_backends
from moto.logs.models import logs_backends
from moto.s3.models import FakeBucket, s3_backends
from moto.secretsmanager.models import secretsmanager_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from moto.sns.models import sns_backends
from moto.ssm.models import ParameterDict
from werkzeug.serving import WSGIRequestHandler, run_simple

unknown_calls: list[str] = []
ec2_placement_groups: dict[str, dict[str, Any]] = {}


def refuse_unknown_calls() -> None:
    """400 and a list, in place of 500 and a traceback."""
    original = BaseResponse.call_action

    def call_action(self: BaseResponse) -> Any:
        try:
            return original(self)
        except NotImplementedError:
            name = f"{self.service_name}:{self._get_action()}"
            unknown_calls.append(name)
            body = {"__type": "InvalidAction", "message": f"the fake does not know {name}"}
            return 400, {"Content-Type": "application/json", "status": 400}, json.dumps(body)

    BaseResponse.call_action = call_action


def placement_groups() -> None:
    groups = ec2_placement_groups

    def create_placement_group(self: EC2Response) -> ActionResult:
        name = self._get_param("GroupName")
        groups[name] = {
            "GroupName": name,
            "GroupId": f"pg-{len(groups):017x}",
            "GroupArn": f"arn:aws:ec2:{self.region}:{self.current_account}:placement-group/{name}",
            "Strategy": self._get_param("Strategy"),
            "State": "available",
            "SpreadLevel": None,
            "Tags": [{"Key": key, "Value": value} for key, value in self._parse_tag_specification().get("placement-group", {}).items()],
        }
        return ActionResult({"PlacementGroup": groups[name]})

    def describe_placement_groups(self: EC2Response) -> ActionResult:
        names = self._get_param("GroupNames", []) or list(groups)
        return ActionResult({"PlacementGroups": [groups[name] for name in names if name in groups]})

    def delete_placement_group(self: EC2Response) -> ActionResult:
        groups.pop(self._get_param("GroupName"), None)
        return EmptyResult()

    add(EC2Response, create_placement_group, describe_placement_groups, delete_placement_group)


def instance_calls() -> None:
    """Detailed monitoring."""

    def monitor_instances(self: EC2Response, state: str = "enabled") -> ActionResult:
        instances = [self.ec2_backend.get_instance(name) for name in self._get_param("InstanceIds")]
        for instance in instances:
            instance.monitoring_state = state
        return ActionResult({"InstanceMonitorings": [{"InstanceId": item.id, "Monitoring": {"State": state}} for item in instances]})

    def unmonitor_instances(self: EC2Response) -> ActionResult:
        return monitor_instances(self, "disabled")

    add(EC2Response, monitor_instances, unmonitor_instances)


def budget_calls() -> None:
    """Tags, and the subscribers of a budget's notifications."""
    tags: dict[str, dict[str, str]] = {}

    def list_tags_for_resource(self: BudgetsResponse) -> str:
        found = tags.get(self._get_param("ResourceARN"), {})
        return json.dumps({"ResourceTags": [{"Key": key, "Value": value} for key, value in found.items()]})

    def tag_resource(self: BudgetsResponse) -> str:
        given = {tag["Key"]: tag["Value"] for tag in self._get_param("ResourceTags")}
        tags.setdefault(self._get_param("ResourceARN"), {}).update(given)
        return json.dumps({})

    def describe_subscribers_for_notification(self: BudgetsResponse) -> str:
        budget = self.backend.budgets[self._get_param("AccountId")][self._get_param("BudgetName")]
        wanted = self._get_param("Notification")
        keys = ("NotificationType", "ComparisonOperator", "Threshold")
        for notification in budget.notifications:
            if all(notification.details.get(key) == wanted.get(key) for key in keys):
                return json.dumps({"Subscribers": notification.subscribers})
        return json.dumps({"Subscribers": []})

    original = BudgetsResponse.create_budget

    def create_budget(self: BudgetsResponse) -> str:
        name = self._get_param("Budget")["BudgetName"]
        arn = f"arn:aws:budgets::{self._get_param('AccountId')}:budget/{name}"
        tags[arn] = {tag["Key"]: tag["Value"] for tag in self._get_param("ResourceTags", [])}
        return original(self)

    add(BudgetsResponse, list_tags_for_resource, tag_resource, describe_subscribers_for_notification, create_budget)


def bucket_policies() -> None:
    """moto does not read a policy's conditions: a TLS-only policy would refuse every call. The fake counts as TLS."""
    original = FakeBucket.get_permission

    def get_permission(self: FakeBucket, action: str, resource: str) -> Any:
        kept = self.policy
        if kept is not None:
            policy = json.loads(kept.decode())
            policy["Statement"] = [item for item in policy["Statement"] if "aws:SecureTransport" not in json.dumps(item)]
            self.policy = json.dumps(policy).encode() if policy["Statement"] else None
        try:
            return original(self, action, resource)
        finally:
            self.policy = kept

    FakeBucket.get_permission = get_permission


def image_parameters() -> None:
    """The public parameter of NVIDIA's image: it names the plain image of the same system."""
    plain = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
    nvidia = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-al2023/latest/ami-id"
    original = ParameterDict._check_loading_status

    def _check_loading_status(self: ParameterDict, key: str) -> None:
        original(self, key)
        if key == nvidia and nvidia not in self.keys():
            parameter = copy.copy(self[plain][-1])
            parameter.name = nvidia
            self[nvidia] = [parameter]

    ParameterDict._check_loading_status = _check_loading_status


def false_drift() -> None:
    """What moto stores differently from what it was given, so that a second plan would change or replace it."""

    def without_own_tags(self: LaunchTemplateVersion, *arguments: Any, **named: Any) -> None:
        new_version(self, *arguments, **named)
        kept = [item for item in self.data.get("TagSpecifications", []) if item["ResourceType"] != "launch-template"]
        self.data["TagSpecifications"] = kept

    new_version = LaunchTemplateVersion.__init__
    LaunchTemplateVersion.__init__ = without_own_tags

    def enabled(self: FakeScalingPolicy, *arguments: Any, **named: Any) -> None:
        new_policy(self, *arguments, **named)
        self.enabled = True
        self.predictive_scaling_configuration = self.predictive_scaling_configuration or None

    new_policy = FakeScalingPolicy.__init__
    FakeScalingPolicy.__init__ = enabled

    def without_queue(self: LifecycleHook, *arguments: Any, **named: Any) -> None:
        new_hook(self, *arguments, **named)
        self.role_arn = self.notification_target_arn = None

    new_hook = LifecycleHook.__init__
    LifecycleHook.__init__ = without_queue

    def with_groups_of_interface(self: Instance, *arguments: Any, **named: Any) -> None:
        prep_nics(self, *arguments, **named)
        if not self.security_groups:
            self.security_groups = list(self.nics[0].group_set)

    prep_nics = Instance.prep_nics
    Instance.prep_nics = with_groups_of_interface

    # moto takes any attribute that it does not know for an order to remove every security group.
    change_groups = InstanceBackend.modify_instance_security_groups

    def only_when_groups_are_given(self: InstanceBackend, instance_id: str, groups: list[str]) -> Instance:
        return change_groups(self, instance_id, groups) if groups else self.get_instance(instance_id)

    InstanceBackend.modify_instance_security_groups = only_when_groups_are_given

    association = NetworkInterface.association.fget
    NetworkInterface.association = property(lambda self: association(self) or None)
    SecurityGroupRule.description = property(lambda self: self.ip_range.get("Description") or self.source_group.get("Description"))


def add(response: type, *methods: Callable[..., Any]) -> None:
    for method in methods:
        setattr(response, method.__name__, method)


def what_is_left() -> dict[str, int]:
    """Counts of what clusters consist of, in the fake's one account; what AWS itself provides is left out."""
    account, region = "123456789012", "us-east-1"
    ec2, scaling = ec2_backends[account][region], autoscaling_backends[account][region]
    iam, budgets = iam_backends[account]["aws"], budgets_backends[account]["aws"]
    counts = {
        "networks": sum(not network.is_default for network in ec2.vpcs.values()),
        "instances": sum(item.state not in ("terminated", "shutting-down") for item in ec2.all_instances()),
        "launch templates": len(ec2.launch_templates),
        "NAT gateways": sum(gateway.state != "deleted" for gateway in ec2.nat_gateways.values()),
        "addresses": len(ec2.addresses),
        "placement groups": len(ec2_placement_groups),
        "autoscaling groups": len(scaling.autoscaling_groups),
        "buckets": len(s3_backends[account]["aws"].buckets),
        "file systems": len(efs_backends[account][region].file_systems_by_id),
        "roles": len(iam.roles),
        "secrets": len(list(secretsmanager_backends[account][region].secrets.keys())),
        "log groups": len(logs_backends[account][region].groups),
        "alarms": len(cloudwatch_backends[account][region].alarms),
        "topics": len(sns_backends[account][region].topics),
        "budgets": len(budgets.budgets[account]),
    }
    return {name: count for name, count in counts.items() if count}


class Quiet(WSGIRequestHandler):
    def log_request(self, *_: Any) -> None:
        pass


class Fake(DomainDispatcherApplication):
    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["PATH_INFO"] == "/fake/unknown-calls":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(unknown_calls).encode()]
        if environ["PATH_INFO"] == "/fake/left":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(what_is_left()).encode()]
        return super().__call__(environ, start_response)


def main() -> None:
    refuse_unknown_calls()
    placement_groups()
    instance_calls()
    budget_calls()
    bucket_policies()
    image_parameters()
    false_drift()
    host = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
    run_simple(host, int(sys.argv[1]), Fake(create_backend_app), threaded=True, request_handler=Quiet)


if __name__ == "__main__":
    main()
