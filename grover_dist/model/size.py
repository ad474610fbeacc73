"""What the model costs, by formula: parameters and arithmetic. Nothing is imported that `grover-dist plan` would wait for."""

from __future__ import annotations

from grover_dist.config import ModelSettings


def parameters(settings: ModelSettings, vocab_size: int, *, pooler: bool = False) -> int:
    """Weights of the masked language model. The decoder shares the token embedding. Checked against the built model by a test."""
    hidden, feed_forward = settings.hidden, settings.feed_forward
    dense = hidden * hidden + hidden
    norm = 2 * hidden
    embeddings = (vocab_size + settings.positions + 2) * hidden + norm
    layer = 4 * dense + (hidden * feed_forward + feed_forward) + (feed_forward * hidden + hidden) + 2 * norm
    head = dense + norm + vocab_size
    return embeddings + settings.layers * layer + head + (dense if pooler else 0)


def flops_per_token(settings: ModelSettings, vocab_size: int, *, length_tokens: float, masked_fraction: float) -> float:
    """Floating-point operations of one training token: forward and backward, matrix products only.

    A product of weights costs 2 operations a weight forward and 4 backward: 6 (4 h^2 + 2 h f) a layer. Attention scores and their use
    cost 2 x 2 x length x h forward, three times that in all. The head, 6 (h^2 + h v), works on the masked tokens only. Embedding,
    LayerNorm, softmax and GELU are left out, as is usual (Chowdhery et al. 2022, PaLM, appendix B), so MFU is not flattered.
    """
    hidden, feed_forward = settings.hidden, settings.feed_forward
    layer = 6 * (4 * hidden * hidden + 2 * hidden * feed_forward) + 12 * length_tokens * hidden
    head = 6 * (hidden * hidden + hidden * vocab_size)
    return settings.layers * layer + masked_fraction * head
