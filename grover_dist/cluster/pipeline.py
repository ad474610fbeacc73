"""The whole run: each stage is called once, after what it needs; what is complete already is skipped.

The driver holds nothing that the run's folder does not: it may die at any moment, and the same command goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from grover_dist.bpe.vocabulary import Vocabulary
from grover_dist.cluster.candidates import note_failure, note_rung
from grover_dist.cluster.console import following
from grover_dist.cluster.gangs import Call, run_gang, run_task
from grover_dist.cluster.learners import learn_on_ray
from grover_dist.cluster.schedule import Job, doubling_speed, pack, rank_numbers, run_jobs
from grover_dist.cluster.session import Room, current_room, ray_session
from grover_dist.config import Config, ResourceSettings
from grover_dist.errors import UserError
from grover_dist.run_dir import Artifact, RunDir
from grover_dist.training.plan import mean_window_tokens

if TYPE_CHECKING:
    from grover_dist.selection.ladder import Rung
    from grover_dist.selection.statistics import Comparison


@contextmanager
def pipeline_session(config: Config, run: RunDir, *, say: Callable[[str], None]) -> Iterator[Pipeline]:
    """A pipeline over a Ray session, with the workers' words repeated through `say`."""
    with ray_session(config.resources) as room, following(run, say) as catch_up:
        yield Pipeline(config, run, room, say, catch_up)


class Pipeline:
    """The stages in the order of the data. Each method returns its artefacts, made now or found complete, and asks for what it needs."""

    def __init__(
        self, config: Config, run: RunDir, room: Room, say: Callable[[str], None], catch_up: Callable[[], None] = lambda: None
    ) -> None:
        self.config, self.run, self.room, self.say, self.catch_up = config, run, room, say, catch_up
        self._done: dict[str, Any] = {}

    def genome(self) -> Artifact:
        return self._task("genome", "grover_dist.genome.stage:build_genome")

    def corpus(self) -> Artifact:
        genome = self.genome()
        return self._once("corpus", lambda: learn_on_ray(self.config, self.run, genome, self.room, self.say))

    def health(self) -> Artifact:
        return self._task("health", "grover_dist.corpus.health:measure_health", corpus=self.corpus())

    def task(self) -> Artifact:
        return self._task("kmer-task", "grover_dist.selection.task:build_task", genome=self.genome())

    def candidates(self) -> list[Artifact]:
        """The "kmer" artefacts of every candidate, on the last rung that it reached."""
        return list(self._ladder()["evaluations"].values())

    def selection(self) -> Artifact:
        ladder = self._ladder()
        from grover_dist.selection.decide import decide

        return self._once("selection", lambda: decide(self.config, self.run, **ladder, say=self.say))

    def chosen(self) -> tuple[int, Artifact]:
        """Cycles and "pretrain" artefact of the chosen candidate."""
        cycles = int(self.selection().counts["chosen"])
        return cycles, self._ladder()["pretrained"][cycles]

    def finetunes(self) -> list[Artifact]:
        return self._downstream("finetune")["finetune"]

    def analysis(self) -> Artifact:
        return self._downstream("analysis")["analysis"]

    def shuffled(self) -> Artifact | None:
        """The chosen candidate's twin, trained on the shuffled genome; None where the settings want none."""
        if not self.config.analysis.shuffled_fraction:
            return None
        cycles, _ = self.chosen()
        call = self._call(f"shuffled-c{cycles}", "grover_dist.analysis.nulls:pretrain_shuffled", corpus=self.corpus(), cycles=cycles)
        return self._once("shuffled", lambda: self._run(self._gang_jobs([(call, 1.0)], auto=False))[call.name]["shuffled"])

    def grammar(self) -> Artifact:
        analysis, (cycles, pretrained) = self.analysis(), self.chosen()
        arguments = {"corpus": self.corpus(), "pretrained": pretrained, "analysis": analysis, "genome": self.genome()}
        return self._task("grammar", "grover_dist.grammar.stage:write_grammar", **arguments, cycles=cycles)

    def export(self) -> Artifact:
        return self._downstream("export")["export"]

    def report(self) -> Artifact:
        artifacts = self._downstream("finetune", "analysis", "export")
        ladder = self._ladder()
        everything: dict[str, Artifact | list[Artifact]] = {
            "genome": self.genome(),
            "learn": self.corpus(),
            "health": self.health(),
            "kmer-task": self.task(),
            "kmer-baselines": ladder["baselines"],
            "pretrain": list(ladder["pretrained"].values()),
            "kmer": list(ladder["evaluations"].values()),
            "selection": self.selection(),
            **artifacts,
            "grammar": self.grammar(),
        }
        return self._task("report", "grover_dist.report.stage:write_report", artifacts=everything)

    def _ladder(self) -> dict[str, Any]:
        return self._once("ladder", self._climb)

    def _climb(self) -> dict[str, Any]:
        """Every candidate on every rung that the ladder lets it reach: the arguments of `decide`."""
        from grover_dist.selection.ladder import climb
        from grover_dist.selection.scores import compare_evaluations

        task = self.task()  # first: a genome too small for the split is refused before anything is learned
        corpus = self.corpus()
        candidates = self.config.pretrain.candidates
        parent = self.config.pretrain.warm_start
        call = self._call("kmer-baselines", "grover_dist.selection.baselines:build_baselines", genome=self.genome(), task=task)
        beside = [Job("kmer-baselines", lambda: run_task(call), cpus=1.0), Job("health", self.health, cpus=1.0)]
        results: dict[str, Any] = {}

        def train(rung: Rung, alive: Sequence[int], before: Mapping[int, Any]) -> dict[int, Any]:
            def jobs(wanted: Sequence[int], warm: Artifact | None = None) -> list[Job]:
                return self._gang_jobs([self._trial_call(cycles, rung, corpus, task, before.get(cycles), warm) for cycles in wanted])

            note_rung(self.run, rung, alive)
            if rung.index == 0 and parent is not None:  # the larger ones wait for it
                results.update(self._run([*jobs([cycles for cycles in alive if cycles <= parent]), *beside]))
                larger = [cycles for cycles in alive if cycles > parent]
                results.update(self._run(jobs(larger, results[f"c{parent}"]["pretrain"])))
            else:
                results.update(self._run([*jobs(alive), *(beside if rung.index == 0 else [])]))
            return {cycles: results[f"c{cycles}"] for cycles in alive}

        def compare(found: Mapping[int, Any]) -> Comparison:
            evaluations, pretrained = ({cycles: item[stage] for cycles, item in found.items()} for stage in ("kmer", "pretrain"))
            return compare_evaluations(self.config, evaluations, pretrained)

        state = climb(
            self.config.selection.ladder,
            self.config.pretrain.budget_bases,
            candidates,
            train=train,
            compare=compare,
            bases_per_step=self._bases_per_step(corpus),
            say=self.say,
        )
        return {
            "evaluations": {cycles: item["kmer"] for cycles, item in state.found.items()},
            "pretrained": {cycles: item["pretrain"] for cycles, item in state.found.items()},
            "baselines": results["kmer-baselines"],
            "reached": state.reached,
            "verdicts": state.verdicts,
        }

    def _trial_call(
        self, cycles: int, rung: Rung, corpus: Artifact, task: Artifact, before: Mapping[str, Artifact] | None, warm: Artifact | None
    ) -> tuple[Call, float]:
        """A candidate's turn on a rung, and what it costs in tokens."""
        call = self._call(
            f"c{cycles}",
            "grover_dist.selection.trial:run_trial",
            corpus=corpus,
            task=task,
            cycles=cycles,
            budget_bases=rung.budget_bases,
            continue_from=before["pretrain"] if before else None,
            warm_from=warm,
            early=not rung.last,
        )
        return call, rung.budget_bases * _tokens_per_base(corpus, cycles)

    def _bases_per_step(self, corpus: Artifact) -> int:
        """The least that the largest vocabulary's shortest run, one step, needs: half of a step's bases, since steps are rounded."""
        tokens = mean_window_tokens(self.config.windows) * self.config.pretrain.batch_windows
        return max(1, math.ceil(tokens / _tokens_per_base(corpus, max(self.config.pretrain.candidates)) / 2))

    def _downstream(self, *wanted: str) -> dict[str, Any]:
        """What the chosen model is used for; all that is wanted runs side by side."""
        missing = [stage for stage in wanted if stage not in self._done]
        if missing:
            corpus = self.corpus()
            cycles, pretrained = self.chosen()
            jobs: list[Job] = []
            if "finetune" in missing:
                for task in self.config.finetune.tasks:
                    call = self._call(
                        f"finetune-{task.name}",
                        "grover_dist.finetune.stage:finetune_in_gang",
                        corpus=corpus,
                        pretrained=pretrained,
                        task_settings=task,
                        cycles=cycles,
                    )
                    jobs += self._gang_jobs([(call, 1.0 + task.head.epochs)], auto=False)
            shuffled = self.shuffled() if "analysis" in missing else None
            arguments = {"corpus": corpus, "pretrained": pretrained}
            tasks = {
                "analysis": ("grover_dist.cluster.passes:analyze_on_ray", {**arguments, "cycles": cycles, "shuffled": shuffled}),
                "export": ("grover_dist.pretrain.export:export_model", arguments),
            }
            for stage in missing:
                if stage in tasks:
                    call = self._call(stage, tasks[stage][0], **tasks[stage][1])
                    jobs.append(Job(stage, lambda call=call: run_task(call), cpus=1.0))
            results = self._run(jobs)
            for stage in missing:
                self._done[stage] = (
                    [results[f"finetune-{task.name}"]["finetune"] for task in self.config.finetune.tasks]
                    if stage == "finetune"
                    else results[stage]
                )
        return {stage: self._done[stage] for stage in wanted}

    def _gang_jobs(self, wanted: Sequence[tuple[Call, float]], *, auto: bool = True) -> list[Job]:
        """Jobs of gangs with their costs. How wide each is trained is what the settings say, or what ends the whole earliest."""
        resources = self.config.resources
        auto = auto and resources.gpus_per_candidate == "auto"
        room = self.room = self._wait_for_room(1 if auto else resources.ranks_per_candidate)
        fit = resources.ranks_in(room.cpus, room.gpus)
        widths, priorities = [resources.ranks_per_candidate] * len(wanted), [cost for _, cost in wanted]
        if auto and wanted and fit:
            heads = [self.config.selection.head, self.config.selection.ladder.probe]
            numbers = rank_numbers(self.config.pretrain.batch_windows, *(head.batch_sequences for head in heads if head))
            packed = pack(priorities, fit, numbers, doubling_speed(resources.scaling_efficiency), places=self._places)
            widths, priorities = packed.width, packed.priority
            shown = ", ".join(f"{call.name} {width}" for (call, _), width in zip(wanted, widths, strict=True))
            self.say(f"resources: ranks by candidate on room for {fit}: {shown}")
        if max(widths, default=0) > fit:
            raise UserError(
                "the cluster is smaller than what one candidate needs",
                where="resources",
                got=f"{room.cpus:g} CPUs and {room.gpus:g} GPUs: room for {fit} rank{'' if fit == 1 else 's'}",
                expected=f"{max(widths)} ranks of {resources.cpus_per_rank:g} CPUs and {resources.gpus_per_rank:g} GPUs",
                hint=f"set resources.ranks_per_candidate={fit}" if fit else _what_would_fit(resources, room),
            )
        jobs = []
        for (call, _), width, priority in zip(wanted, widths, priorities, strict=True):
            each = resources.with_ranks(width)
            jobs.append(
                Job(
                    call.name,
                    lambda call=call, each=each: run_gang(call, each),
                    cpus=width * resources.cpus_per_rank,
                    gpus=width * resources.gpus_per_rank,
                    cost=priority,
                )
            )
        return jobs

    @property
    def _places(self) -> int | None:
        places = self.config.resources.candidates_at_once
        return None if places == "auto" else places

    def _run(self, jobs: Sequence[Job]) -> dict[str, Any]:
        """Run side by side. What succeeds is kept; the first failure is raised when all have ended."""
        self.room = current_room()
        for job in jobs:
            note_failure(self.run, job.name, None)
        outcome = run_jobs(jobs, cpus=self.room.cpus, gpus=self.room.gpus, places=self._places)
        self.catch_up()
        for name, error in outcome.failures.items():
            note_failure(self.run, name, error)
            self.say(f"{name} failed: {error if isinstance(error, UserError) else type(error).__name__}")
        for error in outcome.failures.values():
            raise error
        return outcome.results

    def _wait_for_room(self, ranks: int) -> Room:
        """The cluster's room, as soon as so many ranks fit into it or the minutes that the settings give are over."""
        resources, room = self.config.resources, self.room
        deadline = time.monotonic() + 60.0 * resources.wait_for_room_minutes
        told = False
        while resources.ranks_in(room.cpus, room.gpus) < ranks and time.monotonic() < deadline:
            if not told:
                need = f"{ranks * resources.cpus_per_rank:g} CPUs and {ranks * resources.gpus_per_rank:g} GPUs"
                self.say(f"waits for nodes: {need} are needed, and the cluster has {room.cpus:g} and {room.gpus:g}")
                told = True
            time.sleep(2.0)
            room = current_room()
        return room

    def _call(self, name: str, function: str, **arguments: Any) -> Call:
        return Call(function, self.config, self.run.absolute(), name, arguments)

    def _task(self, name: str, function: str, **arguments: Any) -> Artifact:
        return self._once(name, lambda: run_task(self._call(name, function, **arguments)))

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._done:
            self._done[name] = make()
            self.catch_up()
        return self._done[name]


def _what_would_fit(resources: ResourceSettings, room: Room) -> str:
    gpu = ", resources.gpus_per_rank=0" if resources.gpus_per_rank > room.gpus else ""
    return f"not one rank fits; set resources.cpus_per_rank={min(resources.cpus_per_rank, room.cpus):g}{gpu}, or use a larger cluster"


def _tokens_per_base(corpus: Artifact, cycles: int) -> float:
    """A merge of count n takes n boundaries away (fewer in runs of one token), so the smaller vocabulary has more tokens to train on."""
    return max(1.0 - Vocabulary.read(corpus.path).count[:cycles].sum() / corpus.counts["bases"], 1e-3)
