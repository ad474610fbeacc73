"""A run in an object store, from a genome to the report, and taken up again by a machine that has nothing of it."""

from __future__ import annotations

import json

import pytest

from grover_dist.cluster.status import STAGES
from grover_dist.run_dir import MANIFEST, RunDir
from tests.e2e.test_pipeline import start

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.distributed, pytest.mark.timeout(1500)]


def test_a_run_in_s3_ends_with_its_report_and_an_empty_machine_does_nothing_again(bucket, tmp_path):
    url = f"{bucket}/runs/smoke"
    process = start(url, tmp_path, f"run.cache={tmp_path / 'one'}", "resources.bpe_actors=2")
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    run = RunDir.existing(url)
    report = output.strip().splitlines()[-1].removeprefix("report: ")
    assert report.startswith(url) and b"<html" in run.remote.get_bytes(report.removeprefix(f"{url}/"))[:2000].lower()
    assert [stage for stage in STAGES if not run.names(stage)] == []
    listed = {name: size for name, size in run.remote.sizes().items() if not name.startswith("logs/")}
    published = {"run.json", "config.yaml"}
    for stage in STAGES:
        for name in run.names(stage):
            published |= {f"{name}/{MANIFEST}", *(f"{name}/{file}" for file in run.read_manifest(name)["files"])}
    assert set(listed) == published  # nothing half-written, no checkpoint of work that is done
    assert run.remote.get_bytes("logs/pretrain-c60.jsonl")

    process = start(url, tmp_path, f"run.cache={tmp_path / 'two'}", "resources.bpe_actors=2")
    again, _ = process.communicate(timeout=900)
    assert process.returncode == 0, again
    assert again.strip().splitlines()[-1] == output.strip().splitlines()[-1]
    after = {name: size for name, size in run.remote.sizes().items() if not name.startswith("logs/")}
    manifests = {name: json.loads(run.remote.get_bytes(name)) for name in after if name.endswith(MANIFEST)}
    assert after == listed and len(manifests) >= len(STAGES)
    assert run.remote.get_bytes("logs/pretrain-c60.jsonl").count(b"\n") == (
        next((tmp_path / "one").glob("smoke-*")) / "logs/pretrain-c60.jsonl"
    ).read_bytes().count(b"\n")
