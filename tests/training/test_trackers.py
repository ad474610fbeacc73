import pytest

from grover_dist.config import TrackingSettings
from grover_dist.errors import UserError
from grover_dist.training import trackers
from grover_dist.training.metrics import MetricsWriter
from grover_dist.training.trackers import MlflowTracker, TensorBoardTracker, WandbTracker, check_trackers, make_trackers


def run(*chosen, first_step, last_step):
    writer = MetricsWriter(trackers=chosen)
    writer.begin(first_step)
    for step in range(first_step + 1, last_step + 1):
        writer.write(step, held_out_bits_per_base=2 - step / 10)
    writer.close()


def test_tensorboard_holds_each_step_once_after_a_resume(tmp_path):
    run(TensorBoardTracker(tmp_path), first_step=0, last_step=5)
    run(TensorBoardTracker(tmp_path), first_step=3, last_step=6)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path)).Reload().Scalars("held_out_bits_per_base")
    assert [event.step for event in events] == [1, 2, 3, 4, 5, 6]
    assert events[-1].value == pytest.approx(1.4)


@pytest.mark.parametrize(("setting", "module"), [({"mlflow": "sqlite:///x.db"}, "mlflow"), ({"wandb": "offline"}, "wandb")])
def test_what_is_not_installed_is_named_with_its_extra(monkeypatch, setting, module):
    check_trackers(TrackingSettings())
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"{module} is not installed") as caught:
        check_trackers(TrackingSettings(**setting))
    assert "grover_dist[tracking]" in caught.value.hint


def test_settings_choose(tmp_path):
    def kinds(**settings):
        chosen = make_trackers(TrackingSettings(**settings), logs=tmp_path, project="p", name="c40", key="c40-0")
        return [type(tracker) for tracker in chosen]

    assert kinds() == [TensorBoardTracker]
    assert kinds(tensorboard=False) == []
    assert kinds(mlflow="sqlite:///x.db", wandb="offline") == [TensorBoardTracker, MlflowTracker, WandbTracker]


def test_mlflow_takes_up_the_same_run(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run(MlflowTracker(uri, "project", "c40", "c40-0"), first_step=0, last_step=5)
    run(MlflowTracker(uri, "project", "c40", "c40-0"), first_step=5, last_step=6)
    run(MlflowTracker(uri, "project", "c50", "c50-0"), first_step=0, last_step=1)
    client = mlflow.MlflowClient(tracking_uri=uri)
    runs = {found.info.run_name: found for found in client.search_runs([client.get_experiment_by_name("project").experiment_id])}
    assert runs.keys() == {"c40", "c50"} and runs["c40"].info.status == "FINISHED"
    history = client.get_metric_history(runs["c40"].info.run_id, "held_out_bits_per_base")
    assert [(metric.step, metric.value) for metric in history] == [(step, pytest.approx(2 - step / 10)) for step in range(1, 7)]


def test_a_store_that_mlflow_cannot_use_is_named():
    pytest.importorskip("mlflow")
    with pytest.raises(UserError, match="cannot use its store") as caught:
        MlflowTracker("nonsense://store", "project", "c40", "c40-0").begin(0)
    assert "tracking.mlflow" in str(caught.value)


def test_wandb_offline_needs_no_account_and_keeps_every_step(tmp_path):
    pytest.importorskip("wandb")
    run(WandbTracker("offline", tmp_path, "project", "c40", "c40-0"), first_step=0, last_step=3)
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert content.count(b"held_out_bits_per_base") >= 3
    assert all(str(2 - step / 10).encode() in content for step in (1, 2, 3))
