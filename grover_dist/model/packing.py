"""Whole windows laid end to end in one row, without padding, each attending to itself alone.

Dense layers then work on real tokens only. Attention is exact without any mask: on the CPU one call of SDPA for each run of equally long
windows, on a GPU one call over a jagged tensor, for which torch has flash and memory-efficient kernels with dropout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from grover_dist.model.device import to_device

PACKED_SDPA = "packed_sdpa"


class WindowEdges:
    """Where the windows of a packed row lie. An object rather than a tuple: what compiles the model must not look at the numbers, which
    differ from batch to batch.

    lengths: tokens of each window, in order. offsets int64[n + 1]; positions int64[1, tokens], from 0 in each window.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.lengths = list(lengths)
        sizes = torch.tensor(self.lengths)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        positions = torch.arange(int(offsets[-1])) - offsets[:-1].repeat_interleave(sizes)
        self.offsets, self.positions = to_device(offsets, device), to_device(positions[None], device)

    def runs(self) -> Iterator[tuple[int, int]]:
        """(windows, tokens of each) of every run of equally long windows."""
        for length, same in groupby(self.lengths):
            yield len(list(same)), length


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    windows: WindowEdges | None = None,
    **others,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it: query, key, value [rows, heads, length, size]; returns [rows, length, heads, size].

    windows: edges inside the only row. None: plain SDPA with the mask.
    """
    if windows is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others)
    attend = _attend_jagged if query.is_cuda else _attend_runs
    return attend(query, key, value, windows, dropout, scaling), None


@torch.compiler.disable
def _attend_runs(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, windows: WindowEdges, dropout: float, scaling: float | None
) -> torch.Tensor:
    attended, at = [], 0
    for count, length in windows.runs():
        end = at + count * length
        run = [tensor[0, :, at:end].unflatten(1, (count, length)).transpose(0, 1) for tensor in (query, key, value)]
        attended.append(scaled_dot_product_attention(*run, dropout_p=dropout, scale=scaling).transpose(1, 2).flatten(0, 1))
        at = end
    return torch.cat(attended)[None]


@torch.compiler.disable
def _attend_jagged(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, windows: WindowEdges, dropout: float, scaling: float | None
) -> torch.Tensor:
    shortest, longest = min(windows.lengths), max(windows.lengths)
    jagged = [
        torch.nested.nested_tensor_from_jagged(
            tensor[0].transpose(0, 1), windows.offsets, min_seqlen=shortest, max_seqlen=longest
        ).transpose(1, 2)
        for tensor in (query, key, value)
    ]
    return scaled_dot_product_attention(*jagged, dropout_p=dropout, scale=scaling).transpose(1, 2).values()[None]


AttentionInterface.register(PACKED_SDPA, packed_attention)
AttentionMaskInterface.register(PACKED_SDPA, sdpa_mask)
