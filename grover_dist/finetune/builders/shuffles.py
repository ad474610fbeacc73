"""Sequences with the composition of another one: what a model must not need a promoter for."""

from __future__ import annotations

import numpy as np

from grover_dist.bpe.encode import encode_codes
from grover_dist.bpe.vocabulary import BASES, UNKNOWN_ID, Vocabulary

_LETTERS = 5  # A, C, G, T and the ambiguity letter


def base_shuffled(codes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The same bases in random order."""
    return generator.permutation(codes)


def dinucleotide_shuffled(codes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A sequence drawn evenly from all with the same dinucleotide counts, first and last base.

    Altschul and Erickson 1985: a random Euler path through the graph whose edges are the neighbouring pairs. The last exits of the
    letters must form a tree towards the last letter; the other exits come in random order.
    """
    if len(codes) < 4:
        return codes.copy()
    exits = [codes[1:][codes[:-1] == letter] for letter in range(_LETTERS)]
    last = int(codes[-1])
    present = [letter for letter in range(_LETTERS) if len(exits[letter]) and letter != last]
    while True:
        final = {letter: int(generator.integers(len(exits[letter]))) for letter in present}
        if all(_reaches(letter, last, final, exits) for letter in present):
            break
    order = []
    for letter, pool in enumerate(exits):
        kept = final.get(letter)
        shuffled = generator.permutation(pool if kept is None else np.delete(pool, kept)).tolist()
        order.append(iter(shuffled if kept is None else [*shuffled, int(pool[kept])]))
    found = np.empty_like(codes)
    found[0] = here = int(codes[0])
    for index in range(1, len(codes)):
        found[index] = here = next(order[here])
    return found


def _reaches(letter: int, last: int, final: dict[int, int], exits: list[np.ndarray]) -> bool:
    for _ in range(_LETTERS):
        if letter == last:
            return True
        letter = int(exits[letter][final[letter]])
    return letter == last


def token_shuffled(codes: np.ndarray, vocabulary: Vocabulary, cycles: int, generator: np.random.Generator) -> np.ndarray:
    """The sequence's own tokens in random order (the paper's negatives). Tokenized again the sequence may have others: the new
    neighbours merge.
    """
    ids = encode_codes(codes, vocabulary, cycles)
    strings = vocabulary.strings(cycles)
    pieces = [np.array([4] if token == UNKNOWN_ID else [BASES.index(base) for base in strings[token]], np.uint8) for token in ids]
    return np.concatenate([pieces[index] for index in generator.permutation(len(pieces))])
