"""Byte pairs of a whole genome: the exact rule (`reference`), the fast learner (`partition`, `learn`), the vocabulary and its uses."""

from grover_dist.bpe.vocabulary import FIRST_BASE_ID, FIRST_MERGE_ID, SPECIAL_TOKENS, Vocabulary

__all__ = ["FIRST_BASE_ID", "FIRST_MERGE_ID", "SPECIAL_TOKENS", "Vocabulary"]
