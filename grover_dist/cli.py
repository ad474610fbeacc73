"""The command line. Heavy imports stand inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from grover_dist.errors import UserError
from grover_dist.finetune.build_commands import build
from grover_dist.finetune.predict_commands import explain, predict

if TYPE_CHECKING:
    from grover_dist.config import Config
    from grover_dist.run_dir import RunDir

app = typer.Typer(
    name="grover-dist",
    help="Train DNA language models whose vocabulary is chosen by evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="A settings file, for example configs/demo.yaml.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY.SUB=VALUE]...", help="Settings that replace those of the file.")]
RunPath = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or s3://bucket/prefix (run.dir).")]


def main() -> None:
    """Exit codes: 0 done, 1 failed, 2 user error (one paragraph, no traceback)."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        typer.echo("failed; what is complete is kept, and the same command goes on from there", err=True)
        sys.exit(1)


def _config(path: Path, overrides: list[str] | None) -> Config:
    from grover_dist.config import load_config

    return load_config(path, overrides or [])


def _stage(path: Path, overrides: list[str] | None, stage: str) -> None:
    """Run the pipeline up to a stage; what is complete already is skipped."""
    from grover_dist.cluster.pipeline import pipeline_session
    from grover_dist.run_dir import RunDir

    config = _config(path, overrides)
    run = RunDir.open(config)
    with pipeline_session(config, run, say=_say) as pipeline:
        result = getattr(pipeline, stage)()
    for artifact in result if isinstance(result, list) else [result]:
        _say(run.address_of(artifact))


def _say(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()


@app.command()
def run(config: ConfigPath, overrides: Overrides = None) -> None:
    """The whole pipeline: genome, vocabularies, pretraining, selection, fine-tuning, analysis, export, report."""
    from grover_dist.cluster.pipeline import pipeline_session
    from grover_dist.run_dir import RunDir

    settings = _config(config, overrides)
    folder = RunDir.open(settings)
    with pipeline_session(settings, folder, say=_say) as pipeline:
        report = pipeline.report()
        exported = pipeline.export()
    _say(f"model:  {folder.address_of(exported)}")
    _say(f"report: {folder.address_of(report, 'report.html')}")


@app.command()
def learn(config: ConfigPath, overrides: Overrides = None) -> None:
    """Read the genome, learn every vocabulary and write the store."""
    _stage(config, overrides, "corpus")


@app.command()
def pretrain(config: ConfigPath, overrides: Overrides = None) -> None:
    """Pretrain and score every candidate vocabulary."""
    _stage(config, overrides, "candidates")


@app.command()
def select(config: ConfigPath, overrides: Overrides = None) -> None:
    """Choose the vocabulary by next-k-mer prediction."""
    _stage(config, overrides, "selection")


@app.command()
def finetune(config: ConfigPath, overrides: Overrides = None) -> None:
    """Fine-tune the chosen model on the labelled tasks of the settings."""
    _stage(config, overrides, "finetunes")


@app.command()
def analyze(config: ConfigPath, overrides: Overrides = None) -> None:
    """Analyse what the chosen model's token embeddings encode."""
    _stage(config, overrides, "analysis")


@app.command()
def grammar(run: RunPath, overrides: Overrides = None) -> None:
    """Write the grammar book of a run that has been analysed: its words and their rules, as pages and tables."""
    from grover_dist.config import load_config
    from grover_dist.grammar.stage import grammar_of_run
    from grover_dist.run_dir import RunDir

    folder = RunDir.existing(run)
    book = grammar_of_run(load_config(folder.settings_file(), overrides or []), folder, say=_say)
    _say(f"book: {book.file('index.html').resolve()}")


@app.command()
def tracks(
    run: RunPath,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder.")],
    region: Annotated[
        list[str] | None, typer.Option(help="RECORD or RECORD:START-END; may be given again. All of the genome without it.")
    ] = None,
    genome: Annotated[str, typer.Option(help="The browser's name of the assembly, for the hub.")] = "hg19",
) -> None:
    """Tracks of an analysed model for a genome browser: tokens, information and surprise of each base, clusters of regions, a UCSC hub."""
    from grover_dist.analysis.browser import write_tracks
    from grover_dist.analysis.sums import load_model
    from grover_dist.config import load_config
    from grover_dist.corpus.corpus import Corpus
    from grover_dist.grammar.stage import analysed
    from grover_dist.run_dir import RunDir

    if folder.exists() and any(folder.iterdir()):
        raise UserError("the folder is not empty", where=folder, hint="name a new folder")
    opened = RunDir.existing(run)
    corpus, pretrained, analysis = analysed(opened)
    config = load_config(opened.settings_file())
    write_tracks(
        load_model(pretrained),
        Corpus.open(corpus),
        int(analysis.counts["cycles"]),
        folder,
        regions=region or [],
        max_tokens=config.windows.max_tokens,
        genome=genome,
        seed=config.seed,
        say=_say,
    )


@app.command()
def export(config: ConfigPath, overrides: Overrides = None) -> None:
    """Write the chosen model as plain Hugging Face files and check that they give the same logits."""
    _stage(config, overrides, "export")


@app.command()
def report(config: ConfigPath, overrides: Overrides = None) -> None:
    """Write the HTML report, after whatever it still needs."""
    _stage(config, overrides, "report")


@app.command()
def synth(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder.")],
    length_bp: Annotated[int, typer.Option(help="Bases of the genome.")] = 2_000_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same genome.")] = 1,
) -> None:
    """Evolve a synthetic genome with known words, and write its FASTA and its truth."""
    from grover_dist.config import SyntheticSettings
    from grover_dist.genome.synthetic import make_genome

    if folder.exists() and any(folder.iterdir()):
        raise UserError("the folder is not empty", where=folder, hint="name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    make_genome(SyntheticSettings(length_bp=length_bp), seed, folder)
    _say(str((folder / "genome.fa").resolve()))


@app.command()
def encode(
    run: RunPath,
    cycles: Annotated[int, typer.Option(help="Which vocabulary.")],
    region: Annotated[str | None, typer.Option(help="RECORD or RECORD:START-END, 0-based, half-open; commas are allowed.")] = None,
    fasta: Annotated[Path | None, typer.Option(help="Sequences of your own; all of them, or a --region.")] = None,
    format: Annotated[str, typer.Option(help="bed, tsv or arrow.")] = "bed",
    output: Annotated[Path | None, typer.Option(help="A file instead of the standard output.")] = None,
) -> None:
    """Tokens of a region of the run's genome, or of new sequences, with their coordinates."""
    from grover_dist.corpus.encode_regions import encode_fasta, encode_region
    from grover_dist.run_dir import RunDir

    if region is None and fasta is None:
        raise UserError("nothing to encode", expected="--region, --fasta, or both", hint="for example --region chr22:17,000,000-17,010,000")
    folder = RunDir.existing(run)
    if fasta is None:
        encode_region(folder, region, cycles, format=format, output=output)
    else:
        encode_fasta(folder, fasta, cycles, region=region, format=format, output=output, say=lambda line: typer.echo(line, err=True))


app.add_typer(build, name="build")
app.command()(predict)
app.command()(explain)


@app.command()
def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    hardware: Annotated[str, typer.Option(help="'this' machine, measured for a second, or a GPU by name: a100, h100, h200, l4.")] = "this",
    mfu: Annotated[float, typer.Option(help="Share of the peak that training is expected to reach.", min=0.01, max=1.0)] = 0.4,
    cores: Annotated[int, typer.Option(help="Cores that learn the vocabularies.", min=1)] = 2,
    machine: Annotated[
        str | None, typer.Option(help="A machine of the price table, for example g6.12xlarge; brings its GPU along.")
    ] = None,
) -> None:
    """Memory, steps, hours, money and disk of a run, before anything starts."""
    from grover_dist.cluster.plan import describe_plan, plan_candidates
    from grover_dist.cluster.prices import describe_money, read_prices
    from grover_dist.training.plan import GPU_PEAK_FLOPS, measured_matmul_rate

    settings = _config(config, overrides)
    prices = read_prices(settings.resources.prices)
    if machine is not None:
        hardware = prices.machine(machine).gpu or hardware
    if hardware != "this" and hardware not in GPU_PEAK_FLOPS:
        raise UserError("unknown hardware", got=hardware, expected=", ".join(["this", *GPU_PEAK_FLOPS]))
    peak = measured_matmul_rate() if hardware == "this" else GPU_PEAK_FLOPS[hardware]
    name = f"{'this machine, measured' if hardware == 'this' else hardware} at {mfu:.0%} of {peak / 1e12:,.2f} TFLOP/s"
    for line in describe_plan(settings, flops_per_second=mfu * peak, hardware=name, cores=cores):
        _say(line)
    candidates = plan_candidates(settings, flops_per_second=mfu * peak)
    for line in describe_money(settings, candidates, prices, hardware=hardware, machine=machine):
        _say(line)


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="Settings of the run to be: its folder, its GPUs.")] = None,
    overrides: Overrides = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="Every node of the Ray cluster that this machine belongs to.")] = False,
    address: Annotated[str | None, typer.Option(help="Every node of the cluster with this dashboard, by a job.")] = None,
    bucket: Annotated[str | None, typer.Option(help="s3://NAME, to be written and read; on nodes of infra/ theirs is known.")] = None,
) -> None:
    """Check this machine, or every node of a cluster, and say what to do about what is wrong."""
    from grover_dist.doctor.findings import Request
    from grover_dist.doctor.table import print_table

    settings = _config(config, overrides) if config else None
    if address:
        from grover_dist.cluster.submit import CONFIG_NAME, submit_job

        flags = ["doctor", *([CONFIG_NAME] if settings else []), "--cluster", *(["--bucket", bucket] if bucket else [])]
        sys.exit(submit_job(settings, address=address, command=flags, follow=True, say=_say))
    request = Request(folder=_folder(settings), bucket=bucket, gpus=settings.resources.gpus_per_rank if settings else 0)
    if cluster:
        from grover_dist.cluster.doctor import examine_cluster
        from grover_dist.config import ResourceSettings

        findings = examine_cluster(settings.resources if settings else ResourceSettings(), request)
    else:
        from grover_dist.doctor.local import examine_here

        findings = examine_here(request)
    print_table(findings)
    failed = sum(finding.state == "failed" for finding in findings)
    if failed:
        raise UserError(f"{failed} check{'s' if failed > 1 else ''} failed", hint="see above")


def _folder(settings: Config | None) -> str | None:
    return None if settings is None else str(settings.run.dir)


@app.command()
def status(run: RunPath) -> None:
    """Which stages of a run are complete, and where its candidates stand."""
    from grover_dist.cluster.status import describe_run
    from grover_dist.run_dir import RunDir

    for line in describe_run(RunDir.existing(run)):
        _say(line)


@app.command()
def verify(
    run: RunPath,
    grover: Annotated[bool, typer.Option("--grover", help="Compare an hg19 run with what is known of GROVER's vocabulary.")] = False,
) -> None:
    """Check every file of a run against its manifest, and the store against its vocabulary."""
    from grover_dist.corpus.verify import verify_run
    from grover_dist.run_dir import RunDir

    if grover:
        _verify_grover(RunDir.existing(run))
        return
    findings = verify_run(RunDir.existing(run))
    for finding in findings:
        _say(str(finding))
    if findings:
        raise UserError(f"{len(findings)} fault{'s' if len(findings) > 1 else ''} found", where=run)
    _say("every file is as it was written")


def _verify_grover(run: RunDir) -> None:
    from grover_dist.analysis.token_statistics import token_statistics
    from grover_dist.bpe.grover_check import CYCLES, check_grover
    from grover_dist.corpus.corpus import Corpus

    learned = run.latest("learn")
    if learned is None:
        raise UserError("the run has no vocabulary yet", where=run.address, hint="run `grover-dist learn CONFIG` first")
    corpus = Corpus.open(learned)
    counts = token_statistics(corpus, CYCLES).count if corpus.cycles_known >= CYCLES else None
    checks = check_grover(corpus.vocabulary, counts, corpus.store.n_rows)
    for check in checks:
        _say(f"{'as expected' if check.passed else 'DIFFERS':12} {check.name}: expected {check.expected}, found {check.found}")
    failed = [check for check in checks if not check.passed]
    if failed:
        pieces = sum(check.whole_genome for check in failed)
        raise UserError(
            f"{len(failed)} of {len(checks)} statements about GROVER's vocabulary differ ({pieces} of them hold for the whole hg19 only)",
            where=run.address,
            hint="compare a run on hg19, chromosomes 1-22, X and Y, with bpe.cycles of 600 or more",
        )


@app.command()
def submit(
    config: ConfigPath,
    overrides: Overrides = None,
    address: Annotated[str, typer.Option(help="The Ray dashboard.")] = "http://127.0.0.1:8265",
    follow: Annotated[bool, typer.Option(help="Show the job's words until it ends.")] = True,
) -> None:
    """Run the pipeline as a Ray job. Submitting the same settings again goes on where the last job ended."""
    from grover_dist.cluster.submit import CONFIG_NAME, submit_job

    sys.exit(submit_job(_config(config, overrides), address=address, command=["run", CONFIG_NAME], follow=follow, say=_say))


if __name__ == "__main__":
    main()
