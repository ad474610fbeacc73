"""Damage of every kind is found, with the file and the remedy."""

from __future__ import annotations

import json
import shutil

import pytest

from grover_dist.corpus.build import build_corpus
from grover_dist.corpus.verify import verify_run
from grover_dist.genome.stage import build_genome
from grover_dist.run_dir import MANIFEST, RunDir


def quiet(_: str) -> None: ...


@pytest.fixture
def run(learned, tmp_path):
    return RunDir(shutil.copytree(learned.run.path, tmp_path / "copy"))


@pytest.fixture(scope="module")
def other(settings_for, tmp_path_factory):
    """A run of another genome of the same shape."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "g.fa").write_text(">short\n" + "ACGGT" * 2_000 + "\n")
    config = settings_for(folder / "run", folder / "g.fa", bpe={"cycles": 4}, pretrain={"candidates": [2]})
    run = RunDir.open(config)
    build_corpus(config, run, build_genome(config, run, say=quiet), say=quiet)
    return run


def learned_folder(run):
    (folder,) = (run.path / "learn").glob("bpe-*")
    return folder


def rewrite_manifest(folder):
    """What a hand that replaces files might also do: make the manifest agree with them."""
    import hashlib

    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in folder.rglob("*")
        if file.is_file() and file.name != MANIFEST
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))


def only(findings, file, fault):
    (finding,) = findings
    assert finding.file == file
    assert fault in finding.fault
    assert "run" in finding.remedy
    assert str(file) in str(finding)


def test_a_sound_run(learned):
    assert verify_run(learned.run) == []


@pytest.mark.parametrize("name", ["learn/bpe-*/store/part-00001.arrow", "genome/genome-*/genome.arrow", "learn/bpe-*/merges.txt"])
def test_a_flipped_bit(run, name):
    (file,) = run.path.glob(name)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    only(verify_run(run), file, "checksum differs")


def test_a_truncated_file(run):
    file = learned_folder(run) / "store" / "part-00000.arrow"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-1])
    only(verify_run(run), file, f"{size - 1:,} bytes, {size:,} were written")


def test_a_missing_and_a_strange_file(run):
    (learned_folder(run) / "merges.txt").rename(learned_folder(run) / "merges_old.txt")
    faults = {finding.file.name: finding.fault for finding in verify_run(run)}
    assert faults == {"merges.txt": "the file is missing", "merges_old.txt": "the manifest does not list this file"}


def test_a_broken_manifest(run):
    (learned_folder(run) / MANIFEST).write_text("{")
    only(verify_run(run), learned_folder(run) / MANIFEST, "cannot be read")


def test_a_swapped_vocabulary(run, other):
    folder = learned_folder(run)
    shutil.copy(learned_folder(other) / "merges.txt", folder / "merges.txt")
    only(verify_run(run), folder / "merges.txt", "were written")
    rewrite_manifest(folder)
    only(verify_run(run), folder / "merges.txt", "not made by these merges")


def test_a_store_of_another_genome(run, other):
    folder = learned_folder(run)
    shutil.rmtree(folder)
    shutil.copytree(learned_folder(other), folder)
    findings = verify_run(run)
    assert any("made from another 'genome'" in finding.fault for finding in findings)
    assert all(folder in (finding.file, *finding.file.parents) for finding in findings)


def test_store_files_of_another_genome(run, other):
    folder = learned_folder(run)
    for name in ("store", "contigs.json", "merges.txt"):
        target = folder / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        source = learned_folder(other) / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    rewrite_manifest(folder)
    only(verify_run(run), folder / "store" / "part-00000.arrow", "made from another genome")


def test_an_empty_run(tmp_path):
    only(verify_run(RunDir(tmp_path)), tmp_path, "no complete stage")
