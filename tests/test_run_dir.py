from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import time

import pytest

from grover_dist.config import config_from
from grover_dist.errors import UserError
from grover_dist.run_dir import MANIFEST, RunDir, read_artifact, write_atomically


@pytest.fixture
def run(tmp_path) -> RunDir:
    return RunDir.open(_config(tmp_path / "run"))


def _config(path, fasta="genome.fa", **more):
    return config_from({"run": {"dir": str(path)}, "genome": {"fasta": fasta}, **more})


def _write(work) -> None:
    work.file("deep/data.txt").write_text("data")
    work.counts["lines"] = 1


def test_a_stage_is_written_once_and_then_found(run):
    calls = []
    write = lambda work: (calls.append(1), _write(work))  # noqa: E731
    first = run.once("learn", "bpe", write, settings={"cycles": 3})
    words = []
    again = run.once("learn", "bpe", write, settings={"cycles": 3}, say=words.append)
    assert calls == [1] and again.path == first.path and again.digest == first.digest
    assert again.counts == {"lines": 1} and again.file("deep/data.txt").read_text() == "data"
    assert "complete already" in words[0]


def test_changed_settings_or_inputs_make_another_folder(run):
    base = run.once("genome", "genome", _write, settings={})
    paths = {
        run.once("learn", "bpe", _write, settings=settings, inputs=inputs).path
        for settings, inputs in (({"cycles": 3}, {}), ({"cycles": 4}, {}), ({"cycles": 3}, {"genome": base}))
    }
    assert len(paths) == 3


def test_digest_leaves_out_records_of_how_a_run_went(run):
    def write(clock):
        def inner(work):
            _write(work)
            work.file("metrics.jsonl").write_text(clock)

        return inner

    one = run.once("pretrain", "a", write("1 s"), settings={})
    two = run.once("pretrain", "a", write("2 s"), settings={"x": 1})
    assert one.manifest["files"].keys() == two.manifest["files"].keys()
    renamed = {**two.manifest, "settings_hash": one.manifest["settings_hash"]}
    assert type(two)(two.path, renamed).digest == one.digest


def test_an_error_leaves_nothing(run):
    def fail(work):
        work.file("half.bin").write_bytes(b"x" * 1000)
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        run.once("learn", "bpe", fail, settings={})
    assert run.latest("learn") is None
    assert [path for path in (run.path / "learn").rglob("*") if path.suffix != ".lock"] == []


def test_a_resumable_stage_keeps_its_work_and_goes_on(run):
    def fail(work):
        assert not work.resumed
        work.file("checkpoint").write_text("7")
        raise KeyboardInterrupt

    def go_on(work):
        assert work.resumed and work.file("checkpoint").read_text() == "7"

    with pytest.raises(KeyboardInterrupt):
        run.once("pretrain", "c1", fail, settings={}, resumable=True)
    assert run.once("pretrain", "c1", go_on, settings={}, resumable=True).file("checkpoint").is_file()


def test_full_disk_is_told_in_words_and_leaves_nothing(run):
    def full(work):
        work.file("half.bin").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="disk is full") as caught:
        run.once("learn", "bpe", full, settings={})
    assert "run the same command again" in str(caught.value)
    assert [path for path in (run.path / "learn").rglob("*") if path.suffix != ".lock"] == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_really_full_device_is_told_in_words(run):
    def full(work):
        os.symlink("/dev/full", work.path / "data.arrow")
        with open(work.path / "data.arrow", "wb") as handle:
            handle.write(b"x" * 100_000)

    with pytest.raises(UserError, match="disk is full"):
        run.once("learn", "bpe", full, settings={})


@pytest.mark.parametrize(("damage", "words"), [("shorten", "cut short"), ("remove", "missing"), ("flip", "checksum")])
def test_a_damaged_file_is_found(run, damage, words):
    artifact = run.once("learn", "bpe", _write, settings={})
    file = artifact.file("deep/data.txt")
    if damage == "shorten":
        file.write_text("dat")
    elif damage == "remove":
        file.unlink()
    else:
        file.write_text("dbta")
    with pytest.raises(UserError, match=words) as caught:
        read_artifact(artifact.path, checksums=True)
    assert str(file) in str(caught.value)


def test_an_artefact_of_another_format_version_is_refused(run):
    artifact = run.once("learn", "bpe", _write, settings={})
    manifest = json.loads(artifact.file(MANIFEST).read_text())
    write_atomically(artifact.file(MANIFEST), json.dumps({**manifest, "schema": 99}).encode())
    with pytest.raises(UserError, match="another version"):
        run.find("learn", "bpe", settings={})


def test_the_folder_of_another_run_or_of_something_else_is_refused(tmp_path):
    RunDir.open(_config(tmp_path / "run"))
    RunDir.open(_config(tmp_path / "run", bpe={"cycles": 2000}))  # other settings on the same genome are welcome
    with pytest.raises(UserError, match="another run: its genome differs"):
        RunDir.open(_config(tmp_path / "run", fasta="other.fa"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.docx").write_text("x")
    with pytest.raises(UserError, match="holds no run of ours"):
        RunDir.open(_config(tmp_path / "other"))
    with pytest.raises(UserError, match="not a run's folder"):
        RunDir.existing(tmp_path / "other")


def test_the_resolved_settings_are_written_and_valid(tmp_path):
    from grover_dist.config import load_config

    config = _config(tmp_path / "run").with_absolute_paths()
    RunDir.open(config)
    assert load_config(tmp_path / "run" / "config.yaml") == config


def _hold(path, started) -> None:
    def write(work):
        started.set()
        time.sleep(60)

    RunDir(path).once("learn", "bpe", write, settings={})


def test_a_killed_writer_lets_go_of_its_stage(run):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    holder = context.Process(target=_hold, args=(run.path, started))
    holder.start()
    assert started.wait(30)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert run.latest("learn") is None
    assert run.once("learn", "bpe", _write, settings={}).counts == {"lines": 1}


def test_a_second_writer_is_told_after_its_patience(run, monkeypatch):
    from grover_dist import run_dir

    with run.begin("learn", "bpe", settings={}) as work:
        _write(work)
        final = work.path.with_name(work.path.name[1:-8])
        with pytest.raises(UserError, match="another process is writing"):
            run_dir._lock(final, patience_seconds=0.3)
    assert run.latest("learn") is not None
