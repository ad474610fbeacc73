"""`grover-dist submit`: a command as a Ray job, with a small working folder and absolute paths."""

from __future__ import annotations

import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from grover_dist.config import Config
from grover_dist.errors import UserError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

CONFIG_NAME = "config.yaml"


def submit_job(config: Config | None, *, address: str, command: Sequence[str], follow: bool, say: Callable[[str], None]) -> int:
    """Submit `grover-dist COMMAND...`, and with `follow` repeat the job's words until it ends. Returns the exit code for the command line.

    The working folder holds the package and the resolved settings, nothing else: no data, no runs, no `.git`.
    """
    from ray.job_submission import JobStatus, JobSubmissionClient

    with tempfile.TemporaryDirectory(prefix="grover-dist-job-") as folder:
        write_working_folder(config, Path(folder))
        try:
            client = JobSubmissionClient(address)
            job = _submit(client, folder, command, name=config.run.name if config else command[0])
        except (ConnectionError, RuntimeError) as error:
            raise UserError(
                "the Ray dashboard does not take the job",
                where=address,
                got=" ".join(str(error).split())[:300],
                hint="start a head with `ray start --head`, open the tunnel to it, or name it with --address",
            ) from error
    say(f"job {job} on {address}; stop it with `ray job stop {job} --address {address}`, submit again to go on")
    if not follow:
        return 0
    shown = 0
    while True:
        status = client.get_job_status(job)
        logs = client.get_job_logs(job)
        end = logs.rfind("\n") + 1
        if end > shown:
            say(logs[shown:end].rstrip("\n"))
            shown = end
        if status in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED):
            break
        time.sleep(1.0)
    say(f"job {job}: {status.value.lower()}")
    return 0 if status == JobStatus.SUCCEEDED else 1


def _submit(client: JobSubmissionClient, folder: str, command: Sequence[str], *, name: str) -> str:
    """A head that has just started has no agent for jobs yet; it is given a minute."""
    deadline = time.monotonic() + 60.0
    while True:
        try:
            return client.submit_job(
                entrypoint=f"python -m grover_dist {shlex.join(command)}",
                runtime_env={"working_dir": folder},
                metadata={"run": name},
            )
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def write_working_folder(config: Config | None, folder: Path) -> None:
    """Everything that the job needs beside the environment of its nodes."""
    package = Path(__file__).resolve().parent.parent
    shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc"))
    if config is not None:
        (folder / CONFIG_NAME).write_text(config.with_absolute_paths().to_yaml())
