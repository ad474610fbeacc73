"""Batches for masked-language-model training: a pure function of (seed, step, rank, world), so nothing but the step is kept to resume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grover_dist.config import MaskSettings
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.counter_random import MASKS, stream_key
from grover_dist.corpus.masking import mask_lines, start_threshold
from grover_dist.corpus.order import sample_at
from grover_dist.corpus.windows import Windows, WindowTable
from grover_dist.errors import UserError

CLS_ID, SEP_ID, FIRST_MERGE_ID = 2, 3, 9
_SPECIALS = 2  # [CLS] before and [SEP] after a window
_HELD_OUT_EPOCH = 0xFFFFFFFF  # the masks of held-out windows never change


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass. input_ids int64[n, length], padded with 0; attention_mask int64[n, length]; masked_index int64[m]: positions in the
    flattened input_ids, ascending; labels int64[m]. n_tokens: without [CLS], [SEP] and padding.
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    masked_index: np.ndarray
    labels: np.ndarray
    n_bases: int
    n_tokens: int

    @property
    def padding_share(self) -> float:
        return 1.0 - float(self.attention_mask.mean())


@dataclass(frozen=True)
class MaskedBatches:
    """The endless sequence of samples, cut into global batches of `batch_windows`.

    Sample i of the run is window `sample_at(i mod n)` of epoch i // n. Step s holds samples s * batch_windows and following; rank r of w
    takes every w-th from the r-th, sorts its own by length and cuts them into micro-batches of equal window count (give or take one). All
    ranks have the same number of micro-batches. Masks are keyed by (seed, epoch, window), so neither ranks nor micro-batches change them.
    """

    corpus: Corpus
    windows: Windows
    cycles: int
    seed: int
    batch_windows: int
    micro_batch_windows: int
    mask: MaskSettings

    def step(self, step: int, rank: int = 0, world: int = 1) -> list[MicroBatch]:
        """The micro-batches of one rank in one optimizer step."""
        epochs, indices = self.samples(step, rank, world)
        order = np.argsort(-self.windows.train.n_tokens[indices], kind="stable")
        per_rank = -(-self.batch_windows // world)
        cuts = np.array_split(order, -(-per_rank // self.micro_batch_windows))
        return [self._micro_batch(self.windows.train, epochs[cut], indices[cut]) for cut in cuts]

    def samples(self, step: int, rank: int = 0, world: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """(epoch, training window) of each sample of one rank in one step."""
        self._check_world(world)
        n = len(self.windows.train)
        number = step * self.batch_windows + np.arange(rank, self.batch_windows, world, dtype=np.int64)
        epochs = number // n
        indices = np.empty_like(number)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = sample_at(number[here] % n, n=n, seed=self.seed, epoch=int(epoch))
        return epochs, indices

    def held_out(self, n_windows: int, rank: int = 0, world: int = 1) -> list[MicroBatch]:
        """`n_windows` held-out windows (all, if there are fewer), spread evenly over the genome, with masks that never change; a rank's
        part of them. Sorted by length, so ranks may have different numbers of micro-batches.
        """
        table = self.windows.held_out
        count = min(n_windows, len(table))
        indices = ((np.arange(count) + 0.5) * len(table) / count).astype(np.int64)[rank::world]
        indices = indices[np.argsort(-table.n_tokens[indices], kind="stable")]
        cuts = [indices[at : at + self.micro_batch_windows] for at in range(0, len(indices), self.micro_batch_windows)]
        return [self._micro_batch(table, np.full(len(cut), _HELD_OUT_EPOCH), cut) for cut in cuts]

    def _check_world(self, world: int) -> None:
        smallest, largest = self.batch_windows // world, -(-self.batch_windows // world)
        if smallest < -(-largest // self.micro_batch_windows):
            raise UserError(
                "the batch cannot be dealt to so many ranks",
                where="pretrain.batch_windows",
                got=f"{self.batch_windows} windows, {world} ranks, {self.micro_batch_windows} at most in a forward pass",
                hint=f"set pretrain.batch_windows to a multiple of {world}",
            )

    def _micro_batch(self, table: WindowTable, epochs: np.ndarray, indices: np.ndarray) -> MicroBatch:
        chosen = table.take(indices)
        width = int(chosen.n_tokens.max()) + _SPECIALS
        input_ids = np.zeros((len(indices), width), np.int64)
        self.corpus.ids_of_windows(chosen.row_start, chosen.row_stop, self.cycles, input_ids, column=1)
        lengths = chosen.n_tokens.astype(np.int64)
        lines = np.arange(len(indices))
        input_ids[:, 0] = CLS_ID
        input_ids[lines, lengths + 1] = SEP_ID
        key, threshold = stream_key(self.seed, MASKS), start_threshold(self.mask)
        vocab_size = self.cycles + FIRST_MERGE_ID
        masked_index, labels = mask_lines(input_ids, lengths, epochs, indices, key, vocab_size, threshold, self.mask.span)
        return MicroBatch(
            input_ids=input_ids,
            attention_mask=(np.arange(width) < (lengths + _SPECIALS)[:, None]).astype(np.int64),
            masked_index=masked_index,
            labels=labels,
            n_bases=chosen.n_bases,
            n_tokens=int(lengths.sum()),
        )
