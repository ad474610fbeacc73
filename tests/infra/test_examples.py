"""Both examples on the fake: plan, apply, a second plan without drift, destroy to nothing. The AWS provider is the real one."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.clouds import REPOSITORY, Fake, Terraform, environment_names
from tests.infra.ports import open_to_outside, resources

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

PRIVATE = "10.42.0.0/22"
EXAMPLES = {"minimal": [], "gpu-sweep": ["-var=workers_desired=2", "-var=efa_interfaces=1"]}


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in EXAMPLES])
def planned(
    request: pytest.FixtureRequest, terraform: Terraform, fake: Fake, variables: list[str]
) -> tuple[str, Terraform, dict[str, Any]]:
    example = terraform.at(f"examples/{request.param}")
    example.run("init", "-input=false", "-lockfile=readonly")
    example.run("plan", "-input=false", "-out=first.plan", *variables, *EXAMPLES[request.param])
    return request.param, example, example.json("show", "-json", "first.plan")


def test_no_port_of_ray_is_reachable_from_outside(planned: tuple[str, Terraform, dict[str, Any]]) -> None:
    _, _, plan = planned
    assert open_to_outside(plan, private_cidr=PRIVATE) == []
    ingress = [item for item in resources(plan) if item["type"] == "aws_vpc_security_group_ingress_rule"]
    assert [item["address"] for item in ingress] == ["module.cluster.module.security.aws_vpc_security_group_ingress_rule.within"]


@pytest.mark.parametrize("port", [6379, 8265, 10001])
def test_an_open_port_is_seen(planned: tuple[str, Terraform, dict[str, Any]], port: int) -> None:
    _, _, plan = planned
    opened = copy.deepcopy(plan)
    opened["planned_values"]["root_module"].setdefault("resources", []).append(
        {
            "mode": "managed",
            "type": "aws_vpc_security_group_ingress_rule",
            "address": "added",
            "values": {"cidr_ipv4": "0.0.0.0/0", "from_port": port, "to_port": port, "ip_protocol": "tcp"},
        }
    )
    assert open_to_outside(opened, private_cidr=PRIVATE) == ["added"]


def test_a_public_head_is_seen(planned: tuple[str, Terraform, dict[str, Any]]) -> None:
    _, _, plan = planned
    opened = copy.deepcopy(plan)
    head = next(item for item in resources(opened) if item["type"] == "aws_instance")
    head["values"]["associate_public_ip_address"] = True
    assert open_to_outside(opened, private_cidr=PRIVATE) == [head["address"]]


def test_disks_are_encrypted_and_metadata_needs_a_session(planned: tuple[str, Terraform, dict[str, Any]]) -> None:
    _, _, plan = planned
    found = {item["type"]: item["values"] for item in resources(plan)}
    head, workers = found["aws_instance"], found["aws_launch_template"]
    assert head["root_block_device"][0]["encrypted"] is True
    assert workers["block_device_mappings"][0]["ebs"][0]["encrypted"] == "true"
    assert head["metadata_options"][0]["http_tokens"] == workers["metadata_options"][0]["http_tokens"] == "required"
    assert found["aws_efs_file_system"]["encrypted"] is True


def test_the_token_is_in_no_plan_and_no_state(planned: tuple[str, Terraform, dict[str, Any]]) -> None:
    _, _, plan = planned
    version = next(item for item in resources(plan) if item["type"] == "aws_secretsmanager_secret_version")
    assert version["values"].get("secret_string_wo") is None
    assert not version["values"].get("secret_string")


def test_apply_then_no_drift_then_destroy_to_nothing(
    planned: tuple[str, Terraform, dict[str, Any]],
    fake: Fake,
    variables: list[str],
    record_property: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, example, _ = planned
    given = [*variables, *EXAMPLES[name]]
    seconds = {}

    began = time.monotonic()
    example.run("apply", "-input=false", "-parallelism=20", "first.plan")
    seconds["apply"] = time.monotonic() - began
    state = example.json("show", "-json")
    made = [item["address"] for item in _state_resources(state["values"]["root_module"])]

    began = time.monotonic()
    second = example.run("plan", "-input=false", "-detailed-exitcode", "-parallelism=20", *given, codes=(0, 2))
    seconds["second plan"] = time.monotonic() - began
    assert second.returncode == 0, f"drift:\n{second.stdout}"

    outputs = {key: item["value"] for key, item in state["values"]["outputs"].items()}
    assert outputs["next"]["1_tunnel"].startswith("aws ssm start-session --region us-east-1 --target i-")
    assert "AWS-StartPortForwardingSession" in outputs["next"]["1_tunnel"]
    _check_user_data(outputs["user_data"])

    began = time.monotonic()
    example.run("destroy", "-input=false", "-refresh=false", "-auto-approve", "-parallelism=20", *given)
    seconds["destroy"] = time.monotonic() - began
    assert "values" not in example.json("show", "-json"), "the state still holds resources"
    assert fake.left() == {}, "the fake still holds resources"
    assert fake.unknown_calls() == []

    took = ", ".join(f"{step} {value:.0f} s" for step, value in seconds.items())
    record_property("infra", f"{name}: {len(made)} resources, {took}")
    with capsys.disabled():
        print(f"\n{name}: {len(made)} resources, {took}")


def _check_user_data(user_data: dict[str, str]) -> None:
    """What test_node_script executes is what Terraform renders: the same files, and the values that the scripts name."""
    scripts = REPOSITORY / "infra/scripts"
    for role, text in user_data.items():
        assert text.startswith("#cloud-config\n")
        assert len(text.encode()) < 8_000, "AWS takes 16 KB"
        rendered = yaml.safe_load(text)
        assert rendered["runcmd"] == [["/usr/local/sbin/grover-fetch"]]
        files = {file["path"]: file["content"] for file in rendered["write_files"]}
        assert files.pop("/usr/local/sbin/grover-fetch") == (scripts / "fetch.sh").read_text()
        for unit in scripts.glob("*.service"):
            assert files.pop(f"/etc/systemd/system/{unit.name}") == unit.read_text()
        values = dict(line.split("=", 1) for line in files.pop("/etc/grover/node.env").splitlines())
        assert files == {}
        assert values["GROVER_ROLE"] == role
        assert set(values) == environment_names()
        assert all(values.values()) and not any("${" in value for value in values.values())
        assert values["GROVER_SCRIPT_SHA256"] == hashlib.sha256((scripts / "grover-node.sh").read_bytes()).hexdigest()


def _state_resources(module: dict[str, Any]) -> list[dict[str, Any]]:
    found = [item for item in module.get("resources", []) if item["mode"] == "managed"]
    for child in module.get("child_modules", []):
        found += _state_resources(child)
    return found


def test_lock_files_agree_and_name_no_host_of_their_own() -> None:
    texts = {path.read_text() for path in (REPOSITORY / "infra").glob("**/.terraform.lock.hcl") if ".terraform/" not in str(path)}
    assert len(texts) == 1
    text = texts.pop()
    assert 'provider "registry.terraform.io/hashicorp/aws"' in text and "h1:" in text
    assert json.dumps(text).count("://") == 0


def test_the_committed_lock_files_stand_beside_every_root() -> None:
    for folder in (Path("."), *(Path("examples") / name for name in EXAMPLES)):
        assert (REPOSITORY / "infra" / folder / ".terraform.lock.hcl").is_file()
