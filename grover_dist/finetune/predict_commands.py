"""`grover-dist predict` and `grover-dist explain`. Heavy imports stand inside the commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="A fine-tuned model: RUN/finetune/TASK-xxxxxxxx, or its model folder.")]
Pictures = Annotated[
    list[Path],
    typer.Option("--output", help="FILE.tsv, FILE.bed, FILE.bw, or a picture, FILE.svg or FILE.png; may be given several times."),
]
Outputs = Annotated[list[Path], typer.Option("--output", help="FILE.tsv, FILE.bed or FILE.bw; may be given several times.")]
Fasta = Annotated[Path | None, typer.Option(help="A genome or sequences: FASTA or 2bit, gzipped or not.")]
ClassName = Annotated[str | None, typer.Option("--class", help="Of scores and tracks; by default the model's last class.")]


def predict(
    model: ModelPath,
    output: Outputs,
    fasta: Fasta = None,
    bed: Annotated[Path | None, typer.Option(help="Only these places, of --fasta or of the genome of the model's run.")] = None,
    window_bp: Annotated[int | None, typer.Option(help="Of a tile; by default the median training length.", min=1)] = None,
    step_bp: Annotated[int | None, typer.Option(help="Between two tiles; by default the window.", min=1)] = None,
    class_name: ClassName = None,
) -> None:
    """Predictions of a fine-tuned model along a genome, or at the places of a BED file."""
    from grover_dist.finetune import predict as stage

    more = {"window_bp": window_bp, "step_bp": step_bp, "class_name": class_name}
    with _progress("predict") as advance:
        stage.predict(model, output, fasta=fasta, bed=bed, say=typer.echo, advance=advance, **more)


def explain(
    model: ModelPath,
    bed: Annotated[Path, typer.Option(help="The places to explain, of --fasta or of the genome of the model's run.")],
    output: Pictures,
    fasta: Fasta = None,
    method: Annotated[str, typer.Option(help="occlusion or gradients.")] = "occlusion",
    class_name: ClassName = None,
) -> None:
    """Which bases a fine-tuned model's predictions rest on."""
    from grover_dist.finetune import explain as stage

    with _progress("explain") as advance:
        stage.explain(model, output, bed=bed, fasta=fasta, method=method, class_name=class_name, say=typer.echo, advance=advance)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int], None]]:
    """A line that moves on a terminal, and nothing in a log."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f} bases"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not Console(stderr=True).is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda bases: progress.advance(task, bases)
