"""Is a run what was written? Files against manifests, artefacts against their inputs, the store against vocabulary and genome."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from grover_dist.corpus.corpus import Corpus
from grover_dist.errors import UserError
from grover_dist.genome.stage import Genome, open_genome
from grover_dist.remote import MANIFEST, in_parallel
from grover_dist.run_dir import Artifact, RunDir, read_artifact

_COMPARE_ROWS = 1 << 24


@dataclass(frozen=True)
class Finding:
    file: Path | str
    fault: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.fault}. What to do: {self.remedy}."


def verify_run(run: RunDir) -> list[Finding]:
    """All faults of a run's folder, each with the file and the remedy; an empty list where every file is as it was written."""
    findings: list[Finding] = list(_check_remote(run)) if run.remote else []
    artifacts: list[Artifact] = []
    for manifest in sorted(run.path.glob(f"*/*/{MANIFEST}")):
        if manifest.parent.name.startswith("."):
            continue  # work in progress
        found = list(_check_files(manifest.parent))
        findings += found
        if not found:
            artifacts.append(read_artifact(manifest.parent))
    if not findings and not artifacts:
        return [Finding(run.remote.url if run.remote else run.path, "the run holds no complete stage", "run a stage first")]
    findings += _check_inputs(artifacts, damaged=bool(findings))
    genomes = {artifact.digest: open_genome(artifact) for artifact in artifacts if artifact.manifest["stage"] == "genome"}
    for artifact in artifacts:
        if artifact.manifest["stage"] == "learn":
            findings += _check_store(artifact, genomes)
    return findings


def _check_remote(run: RunDir) -> Iterator[Finding]:
    """Every object is read. Afterwards this machine's copy of what is whole is whole too."""
    for stage in sorted({name.partition("/")[0] for name in run.remote.sizes() if name.endswith(f"/{MANIFEST}")}):
        for name in run.names(stage):
            remote = run.remote / name
            remedy = f"delete the folder with `aws s3 rm --recursive {remote.url}` and run the same command again"
            try:
                files = json.loads(remote.get_bytes(MANIFEST) or b"")["files"]
            except (ValueError, KeyError) as error:
                yield Finding(f"{remote.url}/{MANIFEST}", f"the manifest cannot be read ({error})", remedy)
                continue
            sizes = remote.sizes()
            faults = in_parallel([partial(remote.fault_of, file, described, sizes.get(file)) for file, described in files.items()])
            yield from (Finding(f"{remote.url}/{file}", fault, remedy) for file, fault in zip(files, faults, strict=True) if fault)
            if not any(faults):
                run.at(name, rehash=True)


def _check_files(folder: Path) -> Iterator[Finding]:
    remedy = f"delete {folder} and run the same command again"
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        yield Finding(folder / MANIFEST, f"the manifest cannot be read ({error})", remedy)
        return
    for name, described in files.items():
        file = folder / name
        if not file.is_file():
            yield Finding(file, "the file is missing", remedy)
        elif file.stat().st_size != described["bytes"]:
            yield Finding(file, f"the file has {file.stat().st_size:,} bytes, {described['bytes']:,} were written", remedy)
        else:
            with open(file, "rb") as handle:
                if hashlib.file_digest(handle, "sha256").hexdigest() != described["sha256"]:
                    yield Finding(file, "the content is not what was written (its checksum differs)", remedy)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(file.relative_to(folder))
        if name not in files and name != MANIFEST:
            yield Finding(file, "the manifest does not list this file", f"move it out of {folder}")


def _check_inputs(artifacts: list[Artifact], *, damaged: bool) -> Iterator[Finding]:
    known = {artifact.digest for artifact in artifacts}
    for artifact in artifacts:
        for name, digest in artifact.manifest["inputs"].items():
            if digest not in known and not damaged:  # the input may be among the damaged ones
                yield Finding(
                    artifact.path / MANIFEST,
                    f"it was made from another '{name}' than this run holds",
                    f"delete {artifact.path} and run the same command again",
                )


def _check_store(artifact: Artifact, genomes: dict[str, Genome]) -> Iterator[Finding]:
    remedy = f"delete {artifact.path} and run `grover-dist learn` again"
    try:
        corpus = Corpus.open(artifact)
    except UserError as error:
        yield Finding(Path(str(error.where)), f"{error.what} (got {error.got}, expected {error.expected})", remedy)
        return
    store = corpus.store
    genome = genomes.get(artifact.manifest["inputs"]["genome"])
    for part in store.parts:
        if part.metadata["genome"] != artifact.manifest["inputs"]["genome"]:
            yield Finding(part.path, "this part of the store was made from another genome", remedy)
            return
    if genome is None:
        return
    if genome.contigs.to_json() != store.contigs.to_json():
        yield Finding(artifact.path / "contigs.json", "the contigs are not those of the genome", remedy)
        return
    for start in range(0, store.n_rows, _COMPARE_ROWS):
        stop = min(start + _COMPARE_ROWS, store.n_rows)
        if not np.array_equal(store.base(start, stop), genome.bases(start, stop)):
            yield Finding(artifact.path / "store", f"bases of rows {start:,} to {stop:,} are not those of the genome", remedy)
            return
    first_rows = store.contigs.row_start[:-1]
    if any(store.level(int(row), int(row) + 1)[0] != 65_535 for row in first_rows):
        yield Finding(artifact.path / "store", "a token crosses the start of a contig", remedy)
