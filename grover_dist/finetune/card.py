"""The model card of a fine-tuned model, made from its metrics alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grover_dist import __version__

_CLS = """
```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH")
model = AutoModelForSequenceClassification.from_pretrained("PATH")
logits = model(**tokenizer("ACGT...", return_tensors="pt")).logits
```
"""
_OTHER = """
The head reads the {pooling} of the last states over all tokens, which `BertForSequenceClassification` does not: it would read `[CLS]`.
So the folder holds a `BertModel` and the linear layer apart:

```python
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

tokenizer, trunk, head = AutoTokenizer.from_pretrained("PATH"), AutoModel.from_pretrained("PATH"), load_file("PATH/head.safetensors")
states = trunk(**tokenizer("ACGT...", return_tensors="pt")).last_hidden_state
logits = torch.nn.functional.linear(trunk.pooler(states.{call}), head["classifier.weight"], head["classifier.bias"])
```
"""
_CALLS = {"mean": "mean(dim=1, keepdim=True)", "max": "amax(dim=1, keepdim=True)", "last": "narrow(1, -2, 1)"}


def model_card(metrics: Mapping[str, Any], *, pooling: str, positions: int, run_name: str) -> str:
    """README.md in the form that model hubs read."""
    usage = _CLS if pooling == "cls" else _OTHER.format(pooling=pooling, call=_CALLS[pooling])
    methods = metrics["methods"]
    order = sorted(methods, key=lambda name: (name != "pretrained", -methods[name]["mcc"]["value"]))
    rows = "\n".join(
        f"| {'**this model**' if name == 'pretrained' else name} | {_interval(methods[name]['mcc'])} | {_interval(methods[name]['auroc'])} "
        f"| {_interval(methods[name]['auprc'])} | {methods[name]['f1']['value']:.3f} | {methods[name]['accuracy']['value']:.3f} |"
        for name in order
    )
    warnings = "\n".join(f"- **{text}**" for text in metrics["data"]["warnings"]) or "- none"
    counts = ", ".join(f"{count:,} {split}" for split, count in metrics["rows"].items())
    return f"""---
library_name: transformers
pipeline_tag: text-classification
tags: [dna, genomics, bert, byte-pair-encoding]
---

# {metrics["task"]}: {" or ".join(f"`{name}`" for name in metrics["classes"])}

Fine-tuned from the model of {run_name} by grover_dist {__version__}.
{usage}
`grover-dist predict PATH --fasta FILE` streams a genome. Letters may be of either case. A sequence of more than {positions - 2:,}
tokens is read in windows of nearly equal length, and their logits are averaged; it is never cut.

## Test part

{counts} sequences. Intervals: {metrics["confidence"]:.0%}, bootstrap over {metrics["resampled"]}; the value is the mean over
{len(methods["pretrained"]["mcc"]["seeds"])} seeds, and these files are those of the seed with the best validation MCC.

| method | MCC | AUROC | AUPRC | F1 | accuracy |
|---|---|---|---|---|---|
{rows}

{metrics["sentence"]}

## What the data give away

{warnings}
"""


def _interval(found: Mapping[str, float]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
