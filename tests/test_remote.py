"""A run in an object store, against a real S3 protocol server: copies, verification, faults of the store and of the connection."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import pytest

from grover_dist import remote as remote_module
from grover_dist.config import config_from
from grover_dist.errors import UserError
from grover_dist.remote import Remote
from grover_dist.run_dir import MANIFEST, RunDir
from tests.s3_server import CuttingProxy, s3_server


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(remote_module, "_WAITS_SECONDS", (0.01, 0.01, 0.01))


def open_run(url: str, cache: Path, **more) -> RunDir:
    return RunDir.open(config_from({"genome": {"fasta": "g.fa"}, "run": {"dir": f"{url}/runs/first", "cache": str(cache)}, **more}))


def write_some(run: RunDir, content: bytes = b"x" * 100_000):
    def write(work):
        work.file("a/big.bin").write_bytes(content)
        work.write_json("b.json", {"one": 1})

    return run.once("stage", "some", write, settings={})


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_stage_is_copied_there_and_from_there_to_another_machine(bucket, tmp_path):
    here, there = open_run(bucket, tmp_path / "here"), open_run(bucket, tmp_path / "there")
    artifact = write_some(here)
    assert sorted(here.remote.sizes(artifact.path.relative_to(here.path).as_posix())) == [
        f"stage/{artifact.path.name}/{name}" for name in ("a/big.bin", "b.json", MANIFEST)
    ]
    copy = there.find("stage", "some", settings={})
    assert copy.path != artifact.path and copy.manifest == artifact.manifest and copy.digest == artifact.digest
    assert copy.file("a/big.bin").read_bytes() == artifact.file("a/big.bin").read_bytes()
    assert there.latest("stage").path == there.here(artifact).path == copy.path
    assert there.names("stage") == [f"stage/{copy.path.name}"]
    assert there.address_of(copy, "b.json") == f"{bucket}/runs/first/stage/{copy.path.name}/b.json"


def test_a_rerun_with_an_empty_cache_writes_nothing_anew(bucket, tmp_path):
    write_some(open_run(bucket, tmp_path / "one"))
    said = []
    run = open_run(bucket, tmp_path / "two")
    run.once("stage", "some", lambda work: pytest.fail("was written again"), settings={}, say=said.append)
    assert "skipped" in said[0]


def test_what_has_no_manifest_yet_is_not_there(bucket, tmp_path):
    here, there = open_run(bucket, tmp_path / "here"), open_run(bucket, tmp_path / "there")
    with here.begin("stage", "some", settings={}) as work:
        work.file("early.bin").write_bytes(b"early")
        work.uploaded["early.bin"] = work.remote.put(work.file("early.bin"), "early.bin")
        work.remote.put_bytes("left/over.bin", b"from an attempt that was cut off")
        assert there.find("stage", "some", settings={}) is None and there.names("stage") == []
    found = there.find("stage", "some", settings={})
    assert files(found.path) == ["early.bin", MANIFEST]
    assert sorted(work.remote.sizes()) == ["early.bin", MANIFEST]


def test_a_corrupt_copy_is_found_and_fetched_again(bucket, tmp_path):
    artifact = write_some(open_run(bucket, tmp_path / "here"))
    run = open_run(bucket, tmp_path / "there")
    file = run.find("stage", "some", settings={}).file("a/big.bin")
    other_file_before = file.parent.with_name("b.json").stat()
    for damage in (b"y" * 100_000, b"x" * 99_999, None):
        file.write_bytes(damage) if damage is not None else file.unlink()
        run.find("stage", "some", settings={})
        assert file.read_bytes() == artifact.file("a/big.bin").read_bytes()
    assert file.parent.with_name("b.json").stat().st_mtime_ns == other_file_before.st_mtime_ns  # only what was wrong was copied


def test_silent_damage_is_found_by_verify(bucket, tmp_path):
    from grover_dist.corpus.verify import verify_run

    run = open_run(bucket, tmp_path / "here")
    file = write_some(run).file("a/big.bin")
    times = file.stat()
    file.write_bytes(b"y" * 100_000)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if the disk had done it
    assert verify_run(run) == []
    assert file.read_bytes() == b"x" * 100_000
    name = f"stage/{file.parent.parent.name}"
    run.remote.put_bytes(f"{name}/a/big.bin", b"z" * 100_000)
    run.remote.delete([f"{name}/b.json"])
    faults = {str(finding.file): finding.fault for finding in verify_run(run)}
    assert "checksum differs" in faults[f"{run.address}/{name}/a/big.bin"]
    assert "missing" in faults[f"{run.address}/{name}/b.json"]


def bring_in_a_process(pickled: bytes, seen) -> None:
    run, artifact = pickle.loads(pickled)
    seen.put(run.here(artifact).file("a/big.bin").stat().st_ino)


def test_processes_of_one_machine_share_one_copy(bucket, tmp_path):
    artifact = write_some(open_run(bucket, tmp_path / "here"))
    run = open_run(bucket, tmp_path / "there")
    context = multiprocessing.get_context("spawn")
    seen = context.Queue()
    processes = [context.Process(target=bring_in_a_process, args=(pickle.dumps((run, artifact)), seen)) for _ in range(3)]
    for process in processes:
        process.start()
    found = {seen.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(found) == 1


def test_another_genome_and_a_folder_that_is_not_ours(bucket, tmp_path):
    open_run(bucket, tmp_path)
    with pytest.raises(UserError, match=r"belongs to another run.*genome"):
        open_run(bucket, tmp_path, genome={"fasta": "other.fa"})
    Remote(f"{bucket}/mine").put_bytes("notes.txt", b"mine")
    with pytest.raises(UserError, match="holds no run of ours"):
        RunDir.open(config_from({"genome": {"fasta": "g.fa"}, "run": {"dir": f"{bucket}/mine", "cache": str(tmp_path)}}))


def test_reading_by_address(bucket, tmp_path):
    write_some(open_run(bucket, tmp_path))
    run = RunDir.existing(f"{bucket}/runs/first/")
    assert run.path.parent == tmp_path and run.latest("stage").file("b.json").is_file()
    with pytest.raises(UserError, match=r"no run\.json"):
        RunDir.existing(f"{bucket}/runs/second")


@pytest.mark.parametrize("place", ["s3://UPPER/x", "s3://bucket", "gs://bucket/x", "s3:/bucket/x", "s3://bucket/a?b=c"])
def test_places_that_cannot_be(place):
    with pytest.raises(UserError, match=r"run\.dir.*neither"):
        config_from({"genome": {"fasta": "g.fa"}, "run": {"dir": place}})


def test_a_bucket_that_is_missing(bucket, tmp_path):
    with pytest.raises(UserError, match=r"no such bucket.*s3://no-such-bucket/runs/first.*aws s3 mb s3://no-such-bucket"):
        open_run("s3://no-such-bucket", tmp_path)
    with pytest.raises(UserError, match="no such bucket"):
        Remote("s3://no-such-bucket/x").sizes()


def test_a_bucket_that_is_forbidden(tmp_path, tmp_path_factory, monkeypatch, bucket):
    with s3_server(tmp_path_factory.mktemp("guarded"), INITIAL_NO_AUTH_ACTION_COUNT="0") as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(UserError, match=r"refuses access.*s3://guarded/runs/first.*s3:PutObject"):
            open_run("s3://guarded", tmp_path)


@pytest.fixture
def proxy(bucket, s3_url, monkeypatch):
    proxy = CuttingProxy(s3_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield proxy
    proxy.close()


SIZE = 12_000_000  # two parts of a multipart upload


def test_a_connection_that_drops_now_and_then_changes_nothing(bucket, tmp_path, proxy):
    run, content = open_run(bucket, tmp_path / "here"), os.urandom(SIZE)
    proxy.cuts, proxy.after_bytes = 3, 1_000_000
    artifact = write_some(run, content)
    uploading = proxy.cut_so_far
    proxy.cuts = 3
    copy = open_run(bucket, tmp_path / "there").find("stage", "some", settings={})
    assert uploading > 0 and proxy.cut_so_far > uploading
    assert copy.file("a/big.bin").read_bytes() == content and copy.manifest == artifact.manifest


def test_a_connection_that_is_lost_while_writing(bucket, tmp_path, proxy):
    run = open_run(bucket, tmp_path / "here")
    proxy.cuts, proxy.after_bytes = 10**9, 1_000_000
    with pytest.raises(UserError, match=rf"does not answer.*{bucket}/runs/first/stage/some-\w+/a/big.bin.*same command"):
        write_some(run, os.urandom(SIZE))
    proxy.cuts = 0
    assert run.latest("stage") is None
    assert not any(name.endswith(("big.bin", MANIFEST)) for name in run.remote.sizes())
    assert not list((run.path / "stage").glob("some-*")) and not list((run.path / "stage").glob(".*.partial"))
    assert write_some(run).manifest["files"]["a/big.bin"]["bytes"] == 100_000


def test_a_connection_that_is_lost_while_reading(bucket, tmp_path, proxy):
    artifact = write_some(open_run(bucket, tmp_path / "here"), os.urandom(SIZE))
    run = open_run(bucket, tmp_path / "there")
    proxy.cuts, proxy.after_bytes = 10**9, 1_000_000
    with pytest.raises(UserError, match=r"does not answer.*a/big.bin"):
        run.find("stage", "some", settings={})
    folder = run.path / "stage" / artifact.path.name
    assert set(files(folder)) <= {"b.json"}  # whole files alone, and no manifest
    proxy.cuts = 0
    assert run.here(artifact).file("a/big.bin").read_bytes() == artifact.file("a/big.bin").read_bytes()


def test_an_object_that_is_not_what_was_written(bucket, tmp_path):
    artifact = write_some(open_run(bucket, tmp_path / "here"))
    run = open_run(bucket, tmp_path / "there")
    name = f"stage/{artifact.path.name}/a/big.bin"
    run.remote.put_bytes(name, b"y" * 100_000)
    with pytest.raises(UserError, match=rf"checksum differs.*{name}.*aws s3 rm --recursive"):
        run.here(artifact)
    run.remote.delete([name])
    with pytest.raises(UserError, match=rf"missing.*{name}"):
        run.here(artifact)


def test_commands_take_an_address(bucket, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from grover_dist.cli import app

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    artifact = write_some(open_run(bucket, tmp_path / "cache"))
    (tmp_path / "cache").rename(tmp_path / "gone")  # as seen from a machine that has nothing of the run
    status = CliRunner().invoke(app, ["status", f"{bucket}/runs/first"])
    assert status.exit_code == 0 and status.output.startswith(f"run {bucket}/runs/first")
    verify = CliRunner().invoke(app, ["verify", f"{bucket}/runs/first"])
    assert verify.exit_code == 0 and "as it was written" in verify.output
    (copy,) = (tmp_path / "home").rglob("big.bin")
    assert copy.read_bytes() == artifact.path.parents[2].parent.joinpath("gone", *artifact.path.parts[-3:], "a/big.bin").read_bytes()
    encode = CliRunner().invoke(app, ["encode", f"{bucket}/runs/first", "--cycles", "10", "--region", "x"])
    assert encode.exit_code != 0 and "no vocabulary yet" in str(encode.exception) and f"{bucket}/runs/first" in str(encode.exception)
