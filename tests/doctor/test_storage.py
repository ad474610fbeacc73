from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import pytest

from grover_dist.doctor import storage
from tests.infra.clouds import fake_server


def only(findings):
    (found,) = list(findings)
    assert bool(found.remedy) == (found.state in ("warning", "failed"))
    return found


def test_a_folder_that_cannot_be_written(tmp_path):
    """Root may write wherever there is a disk, so as root the folder is one that the kernel keeps closed."""
    closed = tmp_path / "closed" if os.getuid() else Path("/sys")
    if os.getuid():
        closed.mkdir(mode=0o555)
    found = only(storage.check_run_folder(f"{closed}/runs/one"))
    assert found.state == "failed" and found.found == f"{closed}: Permission denied"
    assert found.remedy == f"let the user that runs Ray write in {closed}, or set run.dir to another folder"


def test_the_folder_on_the_way_to_the_run_is_measured_and_left_as_it_was(tmp_path):
    found = [finding for finding in storage.check_run_folder(str(tmp_path / "runs/one")) if finding.check == "run folder"]
    assert str(tmp_path) in found[0].found and "MB/s" in found[0].found and list(tmp_path.iterdir()) == []


def test_little_room_and_a_slow_disk_are_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "LEAST_FREE_BYTES", float("inf"))
    assert "make room" in next(storage.check_disk(str(tmp_path))).remedy
    monkeypatch.setattr(storage, "LEAST_FREE_BYTES", 0)
    monkeypatch.setattr(storage, "SLOW_DISK_MB_PER_SECOND", float("inf"))
    assert "will wait for it" in next(storage.check_disk(str(tmp_path))).remedy


def test_marks_of_other_nodes(tmp_path):
    folder = str(tmp_path / "runs/one")
    storage.leave_mark(folder, "t", "a")
    assert storage.marks_missing(folder, "t", ["a"]) == []
    assert storage.marks_missing(folder, "t", ["a", "b"], seconds=0.0) == ["b"]
    storage.remove_mark(folder, "t", "a")
    assert list(tmp_path.iterdir()) == []


def test_an_endpoint_that_nobody_answers(monkeypatch):
    for key, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(key, value)
    found = only(storage.check_bucket("s3://lab-runs/one"))
    assert found.state == "failed" and "S3 is not reached" in found.remedy
    assert only(storage.check_bucket(None)).state == "skipped"


@pytest.mark.e2e
def test_a_bucket_that_is_there_and_one_that_is_not(tmp_path, monkeypatch):
    with fake_server(tmp_path) as fake:
        for key, value in {"AWS_ENDPOINT_URL": fake.url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
            monkeypatch.setenv(key, value)
        missing = only(storage.check_bucket("s3://lab-runs/one"))
        assert missing.state == "failed" and "there is no bucket lab-runs" in missing.remedy and "terraform apply" in missing.remedy
        urllib.request.urlopen(urllib.request.Request(f"{fake.url}/lab-runs", method="PUT"), timeout=30).close()
        found = only(storage.check_bucket("s3://lab-runs/one"))
        assert found.state in ("ok", "warning") and "s3://lab-runs/one: writes" in found.found
        with urllib.request.urlopen(f"{fake.url}/lab-runs", timeout=30) as listing:
            assert b"grover-doctor" not in listing.read()


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("AWS Error ACCESS_DENIED during PutObject operation: Access Denied", "let the node's role read, write and delete in lab"),
        ("AWS Error UNKNOWN (HTTP status 301) during HeadObject", "set AWS_REGION"),
        ("curlCode: 28, Timeout was reached", "S3 is not reached"),
        ("No credentials provider found", "instance profile"),
    ],
)
def test_what_to_do_follows_the_error(said, remedy):
    assert remedy in storage.bucket_remedy(said, "lab")
