"""Numbers that must not change unnoticed: what a seed means. `python tests/corpus/test_golden.py` prints the present ones.

A run that is resumed with another version of the product would otherwise go on with other windows, another order or other masks.
"""

from __future__ import annotations

import hashlib

import numpy as np

from grover_dist.config import MaskSettings, SplitSettings
from grover_dist.corpus.counter_random import WINDOW_LENGTHS, stream_key
from grover_dist.corpus.masking import mask_tokens
from grover_dist.corpus.order import Draws, sample_at
from grover_dist.corpus.windows import _tile
from grover_dist.genome.contigs import ContigTable
from grover_dist.genome.split import split_blocks

GOLDEN = {
    "first of 1,000 samples": [363, 410, 857, 293, 820, 208, 596, 180],
    "held-out blocks": [2, 9, 12, 15],
    "masks": "2462665b464f6950",
    "order of an epoch": "fd1a0e5e747f7ec3",
    "spans": "343818be0f268f32",
    "window lengths": [510, 505, 510, 510, 89, 367, 474, 217],
    "windows": "d42ec6242067fe2b",
    "weighted order": "81d3940a5a66a7fd",
}


def fingerprint(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, np.int64).tobytes()).hexdigest()[:16]


def present() -> dict[str, object]:
    ids = np.arange(5, 405) % 200 + 5
    spans = MaskSettings(fraction=0.2, span=3)
    contigs = ContigTable.from_json(
        {
            "record": [0, 1],
            "start_bp": [0, 100],
            "end_bp": [60_000, 30_100],
            "records": [{"name": name, "length_bp": 60_000, "source": "", "digest": ""} for name in ("chr1", "chr2")],
        }
    )
    split = split_blocks(contigs, SplitSettings(block_bp=5_000), seed=1)
    out, state = np.empty((3, 9_000), np.int64), np.zeros(5, np.int64)
    level = np.full(90_000, 65_535, np.uint16)
    key = stream_key(1, WINDOW_LENGTHS)
    count = _tile(level, 0, contigs.row_start, 10, key, 2**31, 20, 510, state, out)
    return {
        "first of 1,000 samples": sample_at(np.arange(8), n=1_000, seed=1, epoch=0).tolist(),
        "order of an epoch": fingerprint(sample_at(np.arange(12_345), n=12_345, seed=2, epoch=3)),
        "masks": fingerprint(np.concatenate(mask_tokens(ids, seed=1, sample_key=(0, 7), vocab_size=209, settings=MaskSettings()))),
        "spans": fingerprint(np.concatenate(mask_tokens(ids, seed=1, sample_key=(2, 7), vocab_size=209, settings=spans))),
        "held-out blocks": np.flatnonzero(split.held_out).tolist(),
        "window lengths": out[2, :8].tolist(),
        "windows": fingerprint(out[:, :count]),
        "weighted order": fingerprint(np.stack(Draws.weighted(np.arange(1_000) % 3, [0.4, 1.0, 2.5]).at(np.arange(5_000), seed=4))),
    }


def test_what_a_seed_means_has_not_changed():
    assert present() == GOLDEN


if __name__ == "__main__":
    import pprint

    pprint.pprint(present(), width=100)
