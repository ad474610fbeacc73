"""`grover-dist build ...`: labelled tables from the genome of a run and its annotation. Heavy imports stand inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from grover_dist.errors import UserError

build = typer.Typer(help="Make a labelled table for fine-tuning from a run's genome and its annotation.", no_args_is_help=True)

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder (run.dir) in which `grover-dist learn` has ended.")]
Output = Annotated[Path, typer.Option(help="The table: .parquet, .tsv, .csv, also with .gz. A manifest is written beside it.")]
Tss = Annotated[Path, typer.Option(help="Start sites: BED, EPDnew BED, GTF or refGene, gzipped or not.")]
TssFormatOption = Annotated[str, typer.Option("--tss-format", help="auto, bed, epdnew, gtf or refgene.")]
Piece = Annotated[bool, typer.Option("--piece", help="The genome is a piece of the annotated one: leave out lines beyond its ends.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same table.")]


@build.command()
def promid(
    run: RunPath,
    tss: Tss,
    output: Output,
    negatives: Annotated[
        str, typer.Option(help="Columns of negatives, with commas.")
    ] = "token_shuffled,base_shuffled,dinucleotide_shuffled,genomic",
    cycles: Annotated[int | None, typer.Option(help="Vocabulary whose tokens are shuffled; by default the run's chosen one.")] = None,
    tss_format: TssFormatOption = "auto",
    apart_bp: Annotated[int, typer.Option(help="Start sites of a strand nearer than this to a kept one are left out.")] = 300,
    away_bp: Annotated[int, typer.Option(help="Between a genomic negative and any start site.")] = 5_000,
    piece: Piece = False,
    seed: Seed = 1,
) -> None:
    """Promoters (300 bp, -249/+50) and, in a column each, their negatives."""
    from grover_dist.finetune.builders.promoters import build_promid

    corpus, folder = _open(run)
    kinds = [name.strip() for name in negatives.split(",") if name.strip()]
    if "token_shuffled" in kinds and cycles is None:
        cycles = _chosen_cycles(folder)
    if cycles is not None:
        corpus.check_cycles(cycles)
    build_promid(
        corpus.store, tss, output, vocabulary=corpus.vocabulary, cycles=cycles, negatives=kinds, tss_format=tss_format, piece=piece,
        apart_bp=apart_bp, away_bp=away_bp, seed=seed, say=_say,
    )  # fmt: skip
    _end(output)


@build.command()
def promscan(
    run: RunPath,
    tss: Tss,
    output: Output,
    tss_format: TssFormatOption = "auto",
    apart_bp: Annotated[int, typer.Option(help="Start sites of a strand nearer than this to a kept one are left out.")] = 10_000,
    piece: Piece = False,
    seed: Seed = 1,
) -> None:
    """Ten 1-kb windows around each start site; the one that holds it is positive."""
    from grover_dist.finetune.builders.promoters import build_promscan

    build_promscan(
        _open(run)[0].store, tss, output, tss_format=tss_format, piece=piece, apart_bp=apart_bp, seed=seed, say=_say
    )  # fmt: skip
    _end(output)


@build.command("ctcf-bind")
def ctcf_bind(
    run: RunPath,
    peaks: Annotated[Path, typer.Option(help="ChIP-seq peaks: narrowPeak or BED, gzipped or not.")],
    output: Output,
    motif: Annotated[Path | None, typer.Option(help="JASPAR or MEME text; by default CTCF, MA0139.1 of JASPAR.")] = None,
    motif_name: Annotated[str | None, typer.Option(help="Which motif of the file.")] = None,
    p_value: Annotated[float, typer.Option(help="Of a site by chance, at one place.", min=1e-12, max=0.5)] = 1e-5,
    width_bp: Annotated[int, typer.Option(help="Bases around the site's middle.", min=20)] = 1_000,
    summit_within: Annotated[
        int | None, typer.Option(help="Bound: within so many bases of a summit, instead of overlapping a peak.")
    ] = None,
    piece: Piece = False,
) -> None:
    """Sites of a motif, bound where they overlap a ChIP-seq peak."""
    from grover_dist.finetune.builders.ctcf import build_ctcf_bind
    from grover_dist.finetune.builders.motifs import MA0139_1

    build_ctcf_bind(
        _open(run)[0].store, peaks, output, motif=motif or MA0139_1, motif_name=motif_name, p_value=p_value, width_bp=width_bp,
        summit_within_bp=summit_within, piece=piece, say=_say,
    )  # fmt: skip
    _end(output)


def _open(run: Path):
    from grover_dist.corpus.corpus import Corpus
    from grover_dist.run_dir import RunDir

    folder = RunDir.existing(run)
    learned = folder.latest("learn")
    if learned is None:
        raise UserError("the run has no vocabulary yet", where=run, hint="run `grover-dist learn CONFIG` first")
    return Corpus.open(learned), folder


def _chosen_cycles(folder) -> int:
    selection = folder.latest("selection")
    if selection is None:
        raise UserError("the run has not chosen a vocabulary yet", where=folder.path, hint="name one with --cycles, or run `select` first")
    return int(selection.counts["chosen"])


def _end(output: Path) -> None:
    _say(str(output.resolve()))


def _say(line: str) -> None:
    typer.echo(line)
