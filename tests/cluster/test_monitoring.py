"""The dashboard asks for series that exist: those of Ray are scraped from a live node, as Prometheus does it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request

import pytest
import yaml

from tests.cluster.raylets import REPOSITORY, Nodes
from tests.infra.fake_node import until

MONITORING = REPOSITORY / "launch/monitoring"
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text())
GPU_ONLY = {"ray_node_gpus_utilization", "ray_node_gram_used"}  # no node without a GPU has them

SET_GAUGES = """
import json, sys, time, ray
from ray.util.metrics import Gauge
ray.init(address="auto", log_to_driver=False)
@ray.remote(num_cpus=1)
def work(names):
    gauges = [Gauge(name, "of a test", ("candidate", "run")) for name in names]
    for _ in range(90):
        for gauge in gauges:
            gauge.set(1.0, {"candidate": "c600", "run": "sweep"})
        time.sleep(1)
ray.get(work.remote(json.loads(sys.argv[1])))
"""


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def series() -> set[str]:
    return {name for expression in expressions() for name in re.findall(r"\bray_\w+", expression)}


def of_training() -> set[str]:
    return {name for name in series() if name.startswith("ray_grover_")}


def test_the_dashboard_is_whole():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"]) >= 10
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "run"}
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert all(expression.count("(") == expression.count(")") for expression in expressions())
    assert of_training() and series() - of_training()


def test_series_of_training_are_those_that_gangs_export():
    gauges = pytest.importorskip("grover_dist.cluster.gauges", reason="this version exports no gauges of training").GAUGES
    assert of_training() <= {f"ray_{name}" for name, _ in gauges.values()}


def scrape(nodes: Nodes) -> str:
    """Every target of Ray's own list for Prometheus."""
    found = nodes.folder / "head/prom_metrics_service_discovery.json"
    if not found.is_file():
        return ""
    texts = []
    for target in (target for group in json.loads(found.read_text()) for target in group["targets"]):
        try:
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as answer:
                texts.append(answer.read().decode())
        except OSError:
            continue  # not up yet
    return "\n".join(texts)


def names_in(text: str) -> set[str]:
    return {re.split(r"[{ ]", line)[0] for line in text.splitlines() if line and not line.startswith("#")}


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_every_series_of_the_dashboard_is_on_the_wire(tmp_path):
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    (file,) = config["scrape_configs"][0]["file_sd_configs"][0]["files"]
    nodes = Nodes(tmp_path)
    work = None
    try:
        nodes.start_head()
        names = json.dumps(sorted(name.removeprefix("ray_") for name in of_training()))
        environment = nodes.environment | {"RAY_ADDRESS": nodes.address}
        work = subprocess.Popen([sys.executable, "-c", SET_GAUGES, names], env=environment)
        wanted = series() - GPU_ONLY
        try:
            until(lambda: wanted <= names_in(scrape(nodes)), seconds=200, what="every series")
        except AssertionError:
            pytest.fail(f"never seen: {sorted(wanted - names_in(scrape(nodes)))}")
        text = scrape(nodes)
        assert file.rpartition("/")[2] in {path.name for path in (nodes.folder / "head").iterdir()}
        for name in of_training():
            line = next(line for line in text.splitlines() if line.startswith(name + "{"))
            assert 'candidate="c600"' in line and 'run="sweep"' in line
        assert re.search(r'ray_resources\{.*Name="CPU".*State="USED"', text)
    finally:
        if work is not None:
            work.kill()
            work.wait(timeout=20)
        nodes.close()
