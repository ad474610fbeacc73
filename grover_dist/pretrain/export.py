"""Stage "export": the chosen model as plain Hugging Face files, proven equal to what was trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer
from transformers.models.bert.modeling_bert import BertForMaskedLM

from grover_dist import __version__
from grover_dist.config import Config
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.windows import make_windows
from grover_dist.errors import UserError
from grover_dist.genome.split import split_blocks
from grover_dist.model.bert import quiet_transformers
from grover_dist.run_dir import Artifact, RunDir, Work

_SAMPLES = 16
_BASES = np.frombuffer(b"ACGT", np.uint8)
_FIGURES = (
    ("nats_per_token", "nats a masked token", "{:.4f}"),
    ("bits_per_base", "bits a base of the masked tokens", "{:.4f}"),
    ("perplexity", "perplexity of a masked token", "{:.2f}"),
    ("top1", "masked tokens guessed at the first attempt", "{:.2%}"),
    ("top60", "masked tokens among the best 60 guesses", "{:.2%}"),
)


def export_model(config: Config, run: RunDir, corpus: Artifact, pretrained: Artifact, say: Callable[[str], None] = print) -> Artifact:
    """Publish `export/c<cycles>`: config.json, model.safetensors, tokenizer files and a model card (README.md).

    The files are read back as a user would read them; UserError unless ids and logits on sample regions equal the trained model's.
    """
    cycles = int(pretrained.counts["cycles"])

    def write(work: Work) -> None:
        shutil.copytree(pretrained.file("model"), work.path, dirs_exist_ok=True)
        work.counts |= {"cycles": cycles, "regions_compared": _verify(config, work, Corpus.open(corpus), cycles, pretrained)}
        work.file("README.md").write_text(model_card(config, corpus, pretrained), encoding="utf-8")
        say(f"export c{cycles}: ids and logits equal the trained model's on {work.counts['regions_compared']} regions")

    settings = {"windows": config.windows, "split": config.split, "seed": config.seed}
    return run.once("export", f"c{cycles}", write, settings=settings, inputs={"learn": corpus, "pretrain": pretrained}, say=say)


def _verify(config: Config, work: Work, corpus: Corpus, cycles: int, pretrained: Artifact) -> int:
    """Compare on held-out windows, every other one in lower case. A window begins and ends at token boundaries, which no merge ever
    crosses, so the tokenizer sees the same tokens in its text as the store has in the contig. Returns the number of regions.
    """
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(work.path, local_files_only=True)
        exported = AutoModelForMaskedLM.from_pretrained(work.path, local_files_only=True).eval()
        trained = BertForMaskedLM.from_pretrained(pretrained.file("model"), local_files_only=True, attn_implementation="sdpa").eval()
    split = split_blocks(corpus.store.contigs, config.split, config.seed)
    table = make_windows(corpus.store, split, config.windows, cycles, config.seed).held_out
    chosen = table.take(np.unique(np.linspace(0, len(table) - 1, _SAMPLES).astype(int)))
    for number, (start, stop) in enumerate(zip(chosen.row_start.tolist(), chosen.row_stop.tolist(), strict=True)):
        text = _BASES[corpus.store.base(start, stop)].tobytes().decode()
        ids = tokenizer(text.lower() if number % 2 else text, return_tensors="pt")["input_ids"]
        stored = corpus.ids_of_rows(start, stop, cycles).tolist()
        if ids[0].tolist() != [tokenizer.cls_token_id, *stored, tokenizer.sep_token_id]:
            raise _unequal("ids", start, stop, pretrained)
        with torch.no_grad():
            if not torch.equal(exported(ids).logits, trained(ids).logits):
                raise _unequal("logits", start, stop, pretrained)
    return len(chosen)


def _unequal(what: str, start: int, stop: int, pretrained: Artifact) -> UserError:
    return UserError(
        f"the exported model's {what} differ from the trained model's",
        where=f"rows {start:,} to {stop:,}; {pretrained.path}",
        hint="`grover-dist verify` names a damaged file; delete that artefact's folder and run again",
    )


def model_card(config: Config, corpus: Artifact, pretrained: Artifact) -> str:
    """README.md in the form that model hubs read, made from the manifests alone."""
    counts, learned = pretrained.counts, corpus.counts
    cycles, vocab_size = int(counts["cycles"]), int(counts["cycles"]) + 9
    model, settings = config.model, pretrained.manifest["settings"]
    figures = "\n".join(f"| {words} | {form.format(counts[key])} |" for key, words, form in _FIGURES)
    return f"""---
library_name: transformers
pipeline_tag: fill-mask
tags: [dna, genomics, bert, byte-pair-encoding]
---

# {config.run.name}: a language model of DNA, {cycles:,} byte-pair merges

A plain `BertForMaskedLM` with a vocabulary of {vocab_size:,} tokens (5 special, 4 bases, {cycles:,} merges).
Made by grover_dist {__version__}.

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH")
model = AutoModelForMaskedLM.from_pretrained("PATH")
logits = model(**tokenizer("ATTACAGGCGTGAGCCACCG", return_tensors="pt")).logits
```

Letters may be of either case; every letter other than A, C, G, T becomes one `[UNK]`. Sequences under about 50 bases are tokenized
differently from the same bases inside a genome: give 100 bases of flank where you can.

## Model

{model.layers} layers, {model.heads} heads, hidden {model.hidden}, feed-forward {model.feed_forward}, {model.positions} positions;
{counts["parameters"]:,} parameters.

## Training

{_source(config)}; {learned.get("bases", 0):,} bases of A, C, G, T learned the merges. Pretraining showed {counts["bases"]:,} bases
({counts["tokens"]:,} tokens) in {counts["steps"]:,} steps of {settings["batch_windows"]} windows;
{settings["mask"]["fraction"]:.1%} of the tokens were masked. {config.split.held_out_fraction:.0%} of the genome's blocks were held out:

| Held-out figure, masked tokens | |
|---|---|
{figures}

## Where it comes from

| | |
|---|---|
| vocabulary | `{corpus.path.name}`, digest `{corpus.digest[:16]}` |
| pretraining | `{pretrained.path.name}`, digest `{pretrained.digest[:16]}` |
| settings hash | `{pretrained.manifest["settings_hash"][:16]}` |
| versions | {_versions(pretrained.manifest["versions"])} |
"""


def _source(config: Config) -> str:
    if config.genome.synthetic is not None:
        return f"A synthetic genome of {config.genome.synthetic.length_bp:,} bp (seed {config.seed})"
    return "Genome: " + ", ".join(f"`{path.name}`" for path in config.genome.fasta)


def _versions(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
