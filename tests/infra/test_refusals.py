"""Bad input is refused with a sentence before anything is made."""

from __future__ import annotations

import urllib.request

import pytest

from tests.infra.clouds import Fake, Terraform

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.xdist_group("minimal")]


@pytest.fixture(scope="module")
def sweep(terraform: Terraform) -> Terraform:
    example = terraform.at("examples/gpu-sweep")
    example.run("init", "-input=false", "-lockfile=readonly")
    return example


def refused(example: Terraform, *arguments: str) -> str:
    """The words of a plan that must fail, on one line."""
    done = example.run("plan", "-input=false", "-no-color", "-lock=false", *arguments, codes=(1,))
    return " ".join(done.stderr.replace("│", " ").split())


def test_every_wrong_variable_is_named_at_once(sweep: Terraform, variables: list[str]) -> None:
    words = refused(
        sweep,
        *variables,
        "-var=name=Grover Sweep",
        "-var=private_subnet_cidr=10.43.0.0/22",
        "-var=availability_zone=us-east-1",
        "-var=bucket_name=My_Bucket",
        "-var=purchase=cheap",
        "-var=workers_max=0",
        "-var=efa_interfaces=99",
        "-var=product_version=9.9.9",
        "-var=alert_email=nobody",
        "-var=monthly_budget_usd=0",
        "-var=shared_filesystem=floppy",
    )
    for sentence in (
        "name is 3 to 24 characters",
        "private_subnet_cidr 10.43.0.0/22 is not inside vpc_cidr 10.42.0.0/20",
        "availability_zone is a zone and not a region",
        "bucket_name is 3 to 63 characters",
        "purchase is on-demand, spot, capacity-reservation or capacity-block",
        "workers_max is a whole number, 1 or more",
        "efa_interfaces is a whole number from 0 to 32",
        "product_version is the version in the name of product_wheel",
        "alert_email is an e-mail address",
        "monthly_budget_usd is above 0",
        "shared_filesystem is efs, lustre or none",
    ):
        assert sentence in words


def test_a_zone_is_no_region(sweep: Terraform, variables: list[str]) -> None:
    assert "region is a region and not a zone" in refused(sweep, *variables, "-var=region=us-east-1a")


def test_an_invented_region(sweep: Terraform, variables: list[str]) -> None:
    assert "invalid AWS Region: eu-mars-1" in refused(sweep, *variables, "-var=region=eu-mars-1")


def test_overlapping_subnets(sweep: Terraform, variables: list[str]) -> None:
    words = refused(sweep, *variables, "-var=public_subnet_cidr=10.42.3.0/28")
    assert "public_subnet_cidr 10.42.3.0/28 overlaps private_subnet_cidr 10.42.0.0/22" in words


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["-var=worker_instance_type=m6i.2xlarge"], "m6i.2xlarge has no GPU, and this is a GPU cluster"),
        (["-var=workers_max=5"], "workers_max 5 of g6.12xlarge is 20 GPUs, above gpu_quota 16"),
        (
            ["-var=worker_instance_type=p4d.24xlarge", "-var=workers_max=1", "-var=region=eu-west-3"],
            "p4d.24xlarge is not offered in eu-west-3",
        ),
        (["-var=availability_zone=us-east-1e"], "g6.12xlarge is not offered in the zone us-east-1e"),
    ],
)
def test_machines_that_cannot_be_had(sweep: Terraform, variables: list[str], given: list[str], sentence: str) -> None:
    kinds = ("aws_ec2_instance_type.worker", "aws_ec2_instance_type_offerings.worker")
    targets = [f"-target=module.cluster.data.{kind}" for kind in kinds]  # these two alone: the whole plan says the same, later
    assert sentence in refused(sweep, *variables, *targets, *given)


def test_a_taken_bucket_name_stops_the_apply_before_anything_is_made(sweep: Terraform, fake: Fake, variables: list[str]) -> None:
    taken = urllib.request.Request(f"{fake.url}/grover-taken", method="PUT", headers={"x-moto-account-id": "999999999999"})
    urllib.request.urlopen(taken, timeout=30).close()
    assert fake.left() == {}
    state = ["-state=taken.tfstate", "-lock=false"]
    done = sweep.run("apply", "-input=false", "-auto-approve", "-no-color", *state, *variables, "-var=bucket_name=grover-taken", codes=(1,))
    assert "BucketAlreadyExists" in done.stderr
    assert fake.left() == {}
