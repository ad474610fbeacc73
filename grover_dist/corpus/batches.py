"""Batches for masked-language-model training: a pure function of (seed, step, rank, world), so nothing but the step is kept to resume."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from grover_dist.bpe.encode import encode_codes
from grover_dist.config import MaskSettings
from grover_dist.corpus.corpus import Corpus
from grover_dist.corpus.counter_random import MASKS, STRANDS, coins, stream_key
from grover_dist.corpus.masking import mask_lines, start_threshold
from grover_dist.corpus.order import Draws
from grover_dist.corpus.windows import Windows, WindowTable
from grover_dist.errors import UserError

CLS_ID, SEP_ID, FIRST_MERGE_ID = 2, 3, 9
_SPECIALS = 2  # [CLS] before and [SEP] after a window
_HELD_OUT_EPOCH = 0xFFFFFFFF  # the masks of held-out windows never change


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass. input_ids int64[n, length], padded with 0, a window a row; or, packed, int64[1, positions]: whole windows end to
    end. attention_mask, of the same shape: 1 where there is a token. masked_index int64[m]: positions in the flattened input_ids,
    ascending; labels int64[m]. n_tokens: without [CLS], [SEP] and padding. weights: float32[m] of the masked tokens in the loss, None
    where all weigh one. window_lengths: int64[n] with [CLS] and [SEP], where packed, else None.
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    masked_index: np.ndarray
    labels: np.ndarray
    n_bases: int
    n_tokens: int
    weights: np.ndarray | None = None
    window_lengths: np.ndarray | None = None

    @property
    def n_padding(self) -> int:
        """Positions that hold nothing."""
        return self.attention_mask.size - int(self.attention_mask.sum())

    @property
    def padding_share(self) -> float:
        return self.n_padding / self.attention_mask.size

    def packed(self) -> MicroBatch:
        """The same windows and masks end to end in one row."""
        keep = self.attention_mask.ravel() == 1
        place = np.cumsum(keep) - 1
        return replace(
            self,
            input_ids=self.input_ids.ravel()[keep][None],
            attention_mask=np.ones((1, int(place[-1]) + 1), np.int64),
            masked_index=place[self.masked_index],
            window_lengths=self.attention_mask.sum(1),
        )


@dataclass(frozen=True)
class MaskedBatches:
    """The endless sequence of samples, cut into global batches of `batch_windows`.

    Sample i of the run is the window at place i of `draws` (by default every window once an epoch). Step s holds samples
    s * batch_windows and following, whatever the ranks. Sorted by length they are dealt to the ranks to and fro, so that all have about
    as many tokens; a rank cuts its own into micro-batches of equal window count (give or take one), the same number on each rank. Masks
    and strands are keyed by (seed, pass, window), so neither ranks nor micro-batches change them. held_out_mask: of held-out windows,
    where they are masked otherwise than `mask` says.

    packing: a micro-batch is one row of whole windows without padding, and a rank's windows are dealt to its micro-batches as to ranks.
    Without it a micro-batch is padded to its longest window, and holds windows of about the same length.

    reverse_complement: half of the samples are shown as their other strand, tokenized anew and cut to the longest window; never held-out
    ones. soft_mask_weight: of a lower-case base in the loss; a token weighs the mean of its bases.
    """

    corpus: Corpus
    windows: Windows
    cycles: int
    seed: int
    batch_windows: int
    micro_batch_windows: int
    mask: MaskSettings
    reverse_complement: bool = False
    soft_mask_weight: float = 1.0
    packing: bool = False
    draws: Draws | None = None
    held_out_mask: MaskSettings | None = None

    def step(self, step: int, rank: int = 0, world: int = 1) -> list[MicroBatch]:
        """The micro-batches of one rank in one optimizer step."""
        epochs, indices = self.samples(step, rank, world)
        per_rank = -(-self.batch_windows // world)
        parts = -(-per_rank // self.micro_batch_windows)
        longest_first = np.arange(len(indices))
        cuts = _deal(longest_first, parts) if self.packing else np.array_split(longest_first, parts)
        return [self._micro_batch(self.windows.train, epochs[cut], indices[cut]) for cut in cuts]

    def samples(self, step: int, rank: int = 0, world: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """(pass, training window) of each sample of one rank in one step, the longest first."""
        self._check_world(world)
        places = step * self.batch_windows + np.arange(self.batch_windows, dtype=np.int64)
        passes, indices = self._draws.at(places, seed=self.seed)
        mine = _deal(np.argsort(-self.windows.train.n_tokens[indices], kind="stable"), world)[rank]
        return passes[mine], indices[mine]

    @cached_property
    def _draws(self) -> Draws:
        return self.draws or Draws.uniform(len(self.windows.train))

    def held_out(self, n_windows: int, rank: int = 0, world: int = 1) -> list[MicroBatch]:
        """`n_windows` held-out windows (all, if there are fewer), spread evenly over the genome, with masks that never change; a rank's
        part of them. Sorted by length, so ranks may have different numbers of micro-batches.
        """
        table = self.windows.held_out
        count = min(n_windows, len(table))
        indices = ((np.arange(count) + 0.5) * len(table) / count).astype(np.int64)[rank::world]
        indices = indices[np.argsort(-table.n_tokens[indices], kind="stable")]
        cuts = [indices[at : at + self.micro_batch_windows] for at in range(0, len(indices), self.micro_batch_windows)]
        made = replace(self, mask=self.held_out_mask or self.mask)
        return [made._micro_batch(table, np.full(len(cut), _HELD_OUT_EPOCH), cut) for cut in cuts]

    def longest(self, n_windows: int) -> MicroBatch:
        """The `n_windows` longest training windows in one forward pass; again from the longest where there are fewer."""
        order = np.argsort(-self.windows.train.n_tokens, kind="stable")
        return self._micro_batch(self.windows.train, np.zeros(n_windows, np.int64), np.resize(order, n_windows))

    def token_counts(self, n_windows: int) -> np.ndarray:
        """How often each id stands in `n_windows` training windows (all, if there are fewer), spread evenly over the genome.

        int64[cycles + 9]; special ids are never in a window.
        """
        table = self.windows.train
        count = min(n_windows, len(table))
        counts = np.zeros(self.cycles + FIRST_MERGE_ID, np.int64)
        for part in np.array_split(((np.arange(count) + 0.5) * len(table) / count).astype(np.int64), -(-count // 256)):
            chosen = table.take(part)
            ids = np.zeros((len(part), int(chosen.n_tokens.max())), np.int64)
            self.corpus.ids_of_windows(chosen.row_start, chosen.row_stop, self.cycles, ids)
            counts += np.bincount(ids.ravel(), minlength=len(counts))
        counts[0] = 0  # what the shorter windows leave empty
        return counts

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
        lengths = chosen.n_tokens.astype(np.int64)
        turned = self._other_strand(chosen, epochs, indices)
        width = max([int(lengths.max()), *(len(ids) for ids in turned.values())]) + _SPECIALS
        input_ids = np.zeros((len(indices), width), np.int64)
        self.corpus.ids_of_windows(chosen.row_start, chosen.row_stop, self.cycles, input_ids, column=1)
        for line, ids in turned.items():
            lengths[line] = len(ids)
            input_ids[line] = 0
            input_ids[line, 1 : len(ids) + 1] = ids
        input_ids[:, 0] = CLS_ID
        input_ids[np.arange(len(indices)), lengths + 1] = SEP_ID
        original = input_ids.copy() if self.soft_mask_weight != 1 else None
        n_bases = int(self.corpus.vocabulary.lengths(self.cycles)[input_ids].sum()) if turned else chosen.n_bases
        key, threshold = stream_key(self.seed, MASKS), start_threshold(self.mask)
        vocab_size = self.cycles + FIRST_MERGE_ID
        masked_index, labels = mask_lines(input_ids, lengths, epochs, indices, key, vocab_size, threshold, self.mask.span)
        batch = MicroBatch(
            input_ids=input_ids,
            attention_mask=(np.arange(width) < (lengths + _SPECIALS)[:, None]).astype(np.int64),
            masked_index=masked_index,
            labels=labels,
            n_bases=n_bases,
            n_tokens=int(lengths.sum()),
            weights=None if original is None else self._weights(original, chosen, turned)[masked_index],
        )
        return batch.packed() if self.packing else batch

    def _other_strand(self, chosen: WindowTable, epochs: np.ndarray, indices: np.ndarray) -> dict[int, np.ndarray]:
        """Ids of the windows that are shown as their reverse complement, by line."""
        if not self.reverse_complement or epochs[0] == _HELD_OUT_EPOCH:
            return {}
        lines = np.flatnonzero(coins(stream_key(self.seed, STRANDS), epochs, indices))
        longest = int(self.windows.train.n_tokens.max())
        found = {}
        for line in lines.tolist():
            codes = 3 - self.corpus.store.base(int(chosen.row_start[line]), int(chosen.row_stop[line]))[::-1]
            found[line] = encode_codes(codes, self.corpus.vocabulary, self.cycles)[:longest]
        return found

    def _weights(self, original: np.ndarray, chosen: WindowTable, turned: dict[int, np.ndarray]) -> np.ndarray:
        """float32, flat over the batch: the mean weight of each token's bases."""
        bases = self.corpus.vocabulary.lengths(self.cycles)[original].astype(np.int64)  # 0 for special ids
        weights = np.ones(original.shape, np.float32)
        for line, counts in enumerate(bases):
            soft = self.corpus.store.masked(int(chosen.row_start[line]), int(chosen.row_stop[line]))
            before = np.concatenate([[0], np.cumsum(soft[::-1] if line in turned else soft)])
            ends = np.cumsum(counts)
            share = (before[ends] - before[ends - counts]) / np.maximum(counts, 1)
            weights[line] = 1 - (1 - self.soft_mask_weight) * share
        return weights.ravel()


def _deal(order: np.ndarray, parts: int) -> list[np.ndarray]:
    """`order` dealt like cards, to and fro: parts of equal number (give or take one) and, where it is sorted, of about equal sum."""
    rounds, place = np.divmod(np.arange(len(order)), parts)
    part = np.where(rounds % 2 == 0, place, parts - 1 - place)
    return [order[part == which] for which in range(parts)]
