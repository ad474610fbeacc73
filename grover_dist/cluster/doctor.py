"""`grover-dist doctor --cluster`: the checks of `grover_dist.doctor`, taken to every node of a Ray cluster."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from grover_dist.cluster.session import ray_session
from grover_dist.config import ResourceSettings
from grover_dist.doctor.compare import compare_clocks, compare_facts, compare_marks
from grover_dist.doctor.findings import Finding, NodeReport, Request
from grover_dist.doctor.network import RankGroup, judge
from grover_dist.doctor.node import Examiner

EXAMINE_SECONDS = 75.0  # a little more than a node gives its own checks
FREE_GPU_SECONDS = 15.0
ALL_REDUCE_SECONDS = 45.0
_CLOCK_ROUNDS = 5
_BROKEN = "read Ray's log on this node (/tmp/ray/session_latest/logs), install the product's wheel there, or replace the node"


@dataclass(frozen=True)
class RayNode:
    id: str
    name: str
    address: str
    gpus: int
    actor: Any


def examine_cluster(resources: ResourceSettings, request: Request) -> list[Finding]:
    """Findings of every live node, then those between nodes. Takes no CPU of the cluster, and its GPUs only while they are free."""
    with ray_session(resources.model_copy(update={"ray_address": resources.ray_address or "auto"})):
        nodes = _nodes()
        try:
            return list(_examine(nodes, request))
        finally:
            for node in nodes:
                ray.kill(node.actor)


def _nodes() -> list[RayNode]:
    """The head first. Nodes of one host (a test, several raylets) are told apart by their ids."""
    alive = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: "node:__internal_head__" not in node["Resources"])
    names = [node["NodeManagerHostname"] for node in alive]
    found = []
    for node, name in zip(alive, names, strict=True):
        pinned = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        actor = ray.remote(Examiner).options(num_cpus=0, scheduling_strategy=pinned).remote()
        label = name if names.count(name) == 1 else f"{name}/{node['NodeID'][:6]}"
        found.append(RayNode(node["NodeID"], label, node["NodeManagerAddress"], int(node["Resources"].get("GPU", 0)), actor))
    return found


def _examine(nodes: Sequence[RayNode], request: Request) -> Iterator[Finding]:
    reports, broken = _ask(
        nodes, lambda node: node.actor.examine.remote(node.name, replace(request, gpus=node.gpus, cluster=len(nodes) > 1)), EXAMINE_SECONDS
    )
    yield from broken
    found: list[NodeReport] = list(reports.values())
    for report in found:
        yield from report.findings
    yield from compare_facts(found)
    answering = [node for node in nodes if node.name in reports]
    if len(answering) > 1:
        yield from compare_clocks(_clock_offsets(answering), answering[0].name)
        if request.folder and not request.folder.startswith("s3:/"):
            yield from _marks(answering, request.folder)
    if broken:
        yield Finding("all-reduce", "skipped", "not every node answered")
    elif request.gpus and sum(node.gpus for node in nodes) < request.gpus:
        remedy = "start GPU workers and run this again, or set resources.gpus_per_rank=0"
        yield Finding("GPUs", "failed", f"a candidate's ranks need {request.gpus:g}; no node that is there offers them", remedy)
    else:
        yield _all_reduce(answering)


def _ask(nodes: Sequence[RayNode], call: Callable[[RayNode], ray.ObjectRef], seconds: float) -> tuple[dict[str, Any], list[Finding]]:
    """One call on every node: values by node, and a finding for each node that gave none."""
    asked = {node.name: call(node) for node in nodes}
    done, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds)
    values, broken = {}, []
    for name, reference in asked.items():
        if reference not in done:
            broken.append(Finding("node", "failed", f"no answer within {seconds:,.0f} s", _BROKEN, name))
            continue
        try:
            values[name] = ray.get(reference)
        except ray.exceptions.RayError as error:
            said = [line for line in str(error).splitlines() if line.strip()][-1].strip()
            broken.append(Finding("node", "failed", said[:300], _BROKEN, name))
    return values, broken


def _clock_offsets(nodes: Sequence[RayNode]) -> dict[str, float]:
    """Seconds that a node is ahead of the first one, from the quickest of some questions to both through this process's clock."""
    ahead: dict[str, float] = {}
    for node in nodes:
        best_seconds = float("inf")
        for _ in range(_CLOCK_ROUNDS):
            before = time.time()
            there = ray.get(node.actor.now.remote(), timeout=20)
            after = time.time()
            if after - before < best_seconds:
                best_seconds, ahead[node.name] = after - before, there - (before + after) / 2
    first = ahead.pop(nodes[0].name)
    return {name: seconds - first for name, seconds in ahead.items()}


def _marks(nodes: Sequence[RayNode], folder: str) -> Iterator[Finding]:
    """Each node leaves a file in the run's folder and looks for those of the others."""
    token, ids = uuid.uuid4().hex[:12], {node.id: node.name for node in nodes}
    left, _ = _ask(nodes, lambda node: node.actor.leave_mark.remote(folder, token, node.id), 20.0)
    writers = [node for node in nodes if node.name in left]  # who cannot write has said so already
    missing, broken = _ask(
        nodes, lambda node: node.actor.marks_missing.remote(folder, token, [writer.id for writer in writers if writer is not node]), 30.0
    )
    _ask(writers, lambda node: node.actor.remove_mark.remote(folder, token, node.id), 20.0)
    yield from broken
    yield from compare_marks(folder, {name: [ids[other] for other in others] for name, others in missing.items()})


def _all_reduce(nodes: Sequence[RayNode]) -> Finding:
    """One rank a GPU where there are GPUs, else one a node; the nodes' own GPUs are reserved for the time of it."""
    with_gpus = [node for node in nodes if node.gpus]
    gang = with_gpus or list(nodes)
    ranks = {node.name: node.gpus or (2 if len(gang) == 1 else 1) for node in gang}
    world = sum(ranks.values())
    if world < 2:
        return Finding("all-reduce", "skipped", "one GPU in the cluster: nothing to exchange")
    group = RankGroup(
        world, gang[0].address, ray.get(gang[0].actor.free_port.remote(gang[0].address), timeout=20), "nccl" if with_gpus else "gloo"
    )
    actors: Mapping[str, Any] = {node.name: node.actor for node in gang}
    if with_gpus:
        holders = {
            node.name: ray.remote(Examiner)
            .options(num_cpus=0, num_gpus=node.gpus, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False))
            .remote()
            for node in gang
        }
        try:
            waiting = [holder.now.remote() for holder in holders.values()]
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=FREE_GPU_SECONDS)
            if len(ready) < len(waiting):
                return Finding("all-reduce", "skipped", "some GPUs are at work; run this again when they are free")
            return _run_group(gang, holders, ranks, group)
        finally:
            for holder in holders.values():
                ray.kill(holder)
    return _run_group(gang, actors, ranks, group)


def _run_group(gang: Sequence[RayNode], actors: Mapping[str, Any], ranks: Mapping[str, int], group: RankGroup) -> Finding:
    first = {node.name: sum(ranks[before.name] for before in gang[:index]) for index, node in enumerate(gang)}
    outcomes, broken = _ask(
        gang,
        lambda node: actors[node.name].run_ranks.remote(group, first[node.name], ranks[node.name], ALL_REDUCE_SECONDS),
        ALL_REDUCE_SECONDS + 10,
    )
    if broken:
        return replace(broken[0], check="all-reduce", found=f"{broken[0].node}: {broken[0].found}", node="")
    return judge([outcome for values in outcomes.values() for outcome in values], group, nodes=len(gang))
