"""Where else a run's figures go: TensorBoard, MLflow, Weights & Biases. The last two come with the extra `tracking`."""

from __future__ import annotations

import hashlib
import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from grover_dist.config import TrackingSettings
from grover_dist.errors import UserError

_PACKAGES = {"mlflow": "mlflow", "wandb": "wandb"}  # setting: module
_RUN_TAG = "grover_dist.run"


class Tracker(Protocol):
    def begin(self, first_step: int) -> None:
        """Called once, before anything is written; steps after `first_step` will come again."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def check_trackers(settings: TrackingSettings) -> None:
    """UserError where a tracker that was asked for is not installed."""
    for setting, module in _PACKAGES.items():
        if getattr(settings, setting) is not None and importlib.util.find_spec(module) is None:
            raise UserError(
                f"{module} is not installed",
                where=f"tracking.{setting}",
                got=getattr(settings, setting),
                hint="pip install 'grover_dist[tracking]', or set it to null",
            )


def make_trackers(settings: TrackingSettings, *, logs: Path, project: str, name: str, key: str) -> list[Tracker]:
    """Those that the settings ask for. project: the run's name; name: of one training, like "c600"; key: tells it from all others of the
    project, and is the same when it is resumed.
    """
    trackers: list[Tracker] = []
    if settings.tensorboard:
        trackers.append(TensorBoardTracker(logs / "tensorboard" / key))
    if settings.mlflow is not None:
        trackers.append(MlflowTracker(settings.mlflow, project, name, key))
    if settings.wandb is not None:
        trackers.append(WandbTracker(settings.wandb, logs / "wandb", project, name, key))
    return trackers


class TensorBoardTracker:
    """Scalars in an event file; what a run that was cut off wrote after its checkpoint is purged."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._writer = folder, None

    def begin(self, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second of imports, so not before it is needed

        self._writer = SummaryWriter(str(self._folder), purge_step=first_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class MlflowTracker:
    """A run in the experiment `project`, found again by its tag when training is resumed."""

    def __init__(self, uri: str, project: str, name: str, key: str) -> None:
        self._uri, self._project, self._name, self._key = uri, project, name, key
        self._client, self._run_id = None, ""

    def begin(self, first_step: int) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            self._client = MlflowClient(tracking_uri=self._uri)
            known = self._client.get_experiment_by_name(self._project)
        except MlflowException as error:
            raise UserError(
                f"MLflow cannot use its store: {error}",
                where="tracking.mlflow",
                got=self._uri,
                hint="give a database like sqlite:////shared/mlflow.db, or the address of a server",
            ) from None
        experiment = known.experiment_id if known else self._client.create_experiment(self._project)
        found = self._client.search_runs([experiment], f"tags.`{_RUN_TAG}` = '{self._key}'")
        run = found[0] if found else self._client.create_run(experiment, tags={_RUN_TAG: self._key}, run_name=self._name)
        self._run_id = run.info.run_id
        self._client.update_run(self._run_id, status="RUNNING")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1_000)
        self._client.log_batch(self._run_id, metrics=[Metric(name, float(value), now, step) for name, value in values.items()])

    def close(self) -> None:
        if self._client is not None:
            self._client.set_terminated(self._run_id)


class WandbTracker:
    """A run of the project; offline, its files lie under `folder` until `wandb sync` sends them."""

    def __init__(self, mode: str, folder: Path, project: str, name: str, key: str) -> None:
        self._mode, self._folder, self._project, self._name = mode, folder, project, name
        self._id = hashlib.sha256(f"{project}/{key}".encode()).hexdigest()[:16]
        self._run = None

    def begin(self, first_step: int) -> None:
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=self._project, name=self._name, id=self._id, resume="allow", mode=self._mode, dir=str(self._folder),
            settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
        self._run.define_metric("*", step_metric="training_step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"training_step": step, **values})

    def close(self) -> None:
        if self._run is not None:
            import wandb

            self._run.finish()
            wandb.teardown()  # waits until its helper process has written the file; ours may end without any tear-down
