"""The learned merges as arrays, as text files, and what follows from them: token strings and lengths at any number of cycles."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grover_dist.errors import UserError
from grover_dist.run_dir import write_atomically

if TYPE_CHECKING:
    import tokenizers

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BASES = "ACGT"
UNKNOWN_ID = SPECIAL_TOKENS.index("[UNK]")
FIRST_BASE_ID = len(SPECIAL_TOKENS)
FIRST_MERGE_ID = FIRST_BASE_ID + len(BASES)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Merges in the order of learning; ids are model ids (5 special tokens, A C G T, then one id a merge).

    left, right: uint16[cycles], the parts of each merge. count: int64[cycles], occurrences of the pair when it was chosen.
    """

    left: np.ndarray
    right: np.ndarray
    count: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype in (("left", np.uint16), ("right", np.uint16), ("count", np.int64)):
            array = np.ascontiguousarray(getattr(self, name), dtype=dtype)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        assert self.left.shape == self.right.shape == self.count.shape

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and all(
            np.array_equal(getattr(self, n), getattr(other, n)) for n in ("left", "right", "count")
        )

    __hash__ = None

    def __reduce__(self):
        return Vocabulary, (self.left, self.right, self.count)  # derived tables are made again where they are needed

    def derived(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` makes, once for this vocabulary and key."""
        known = self.__dict__.setdefault("_derived", {})
        if key not in known:
            known[key] = make()
        return known[key]

    @property
    def cycles(self) -> int:
        return len(self.left)

    @property
    def size(self) -> int:
        """Entries of a model's embedding: special tokens, bases and merges."""
        return FIRST_MERGE_ID + self.cycles

    def at(self, cycles: int) -> Vocabulary:
        """The vocabulary as it was after `cycles` merges. Raises UserError beyond what was learned."""
        if cycles == self.cycles:
            return self
        if not 0 <= cycles <= self.cycles:
            raise UserError(
                "the vocabulary has fewer cycles than asked for",
                got=cycles,
                expected=f"0 to {self.cycles}",
                hint="raise bpe.cycles and learn again",
            )
        return Vocabulary(self.left[:cycles], self.right[:cycles], self.count[:cycles])

    @cached_property
    def _lengths(self) -> np.ndarray:
        lengths = np.zeros(self.size, np.uint32)
        lengths[FIRST_BASE_ID:FIRST_MERGE_ID] = 1
        for merge, (left, right) in enumerate(zip(self.left.tolist(), self.right.tolist(), strict=True)):
            lengths[FIRST_MERGE_ID + merge] = lengths[left] + lengths[right]
        return lengths

    def lengths(self, cycles: int | None = None) -> np.ndarray:
        """Bases of each token by model id, uint32[cycles + 9]; 0 for the special tokens."""
        return self._lengths[: FIRST_MERGE_ID + self.at(self.cycles if cycles is None else cycles).cycles]

    @cached_property
    def _strings(self) -> list[str]:
        strings = [*SPECIAL_TOKENS, *BASES]
        for left, right in zip(self.left.tolist(), self.right.tolist(), strict=True):
            strings.append(strings[left] + strings[right])
        return strings

    def strings(self, cycles: int | None = None) -> list[str]:
        """Token strings by model id."""
        return self._strings[: FIRST_MERGE_ID + self.at(self.cycles if cycles is None else cycles).cycles]

    def write(self, folder: Path, extra: dict | None = None) -> None:
        """merges.txt (`LEFT RIGHT COUNT` as bases, one line a cycle) and vocabulary.json (token string -> id, and `extra`)."""
        strings = self.strings()
        lines = (
            f"{strings[a]} {strings[b]} {n}\n" for a, b, n in zip(self.left.tolist(), self.right.tolist(), self.count.tolist(), strict=True)
        )
        write_atomically(Path(folder) / "merges.txt", "".join(lines).encode())
        described = {"cycles": self.cycles, "size": self.size, "tokens": {string: i for i, string in enumerate(strings)}, **(extra or {})}
        write_atomically(Path(folder) / "vocabulary.json", json.dumps(described, indent=0).encode())

    @classmethod
    def read(cls, folder: Path) -> Vocabulary:
        """Read what `write` wrote; only merges.txt is needed. Raises UserError naming the line that is wrong."""
        path = Path(folder) / "merges.txt"
        try:
            lines = path.read_text().splitlines()
        except OSError as error:
            raise UserError("the merges cannot be read", where=path, got=error.strerror, hint="run `grover-dist learn` first") from None
        ids = {base: FIRST_BASE_ID + i for i, base in enumerate(BASES)}
        rows: list[tuple[int, int, int]] = []
        for number, line in enumerate(lines, start=1):
            parts = line.split(" ")
            if len(parts) != 3 or parts[0] not in ids or parts[1] not in ids or not parts[2].isdigit() or parts[0] + parts[1] in ids:
                raise UserError(
                    "not a line of merges",
                    where=f"{path}, line {number}",
                    got=repr(line[:80]),
                    expected="LEFT RIGHT COUNT, made of bases or of tokens from the lines above, each token once",
                    hint="learn the vocabulary again",
                )
            rows.append((ids[parts[0]], ids[parts[1]], int(parts[2])))
            ids[parts[0] + parts[1]] = FIRST_MERGE_ID + len(rows) - 1
        return cls.from_rows(rows)

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[int, int, int]]) -> Vocabulary:
        """From (left id, right id, count), model ids."""
        array = np.asarray(rows, np.int64).reshape(-1, 3)
        return cls(array[:, 0].astype(np.uint16), array[:, 1].astype(np.uint16), array[:, 2])

    def to_tokenizer(self, cycles: int | None = None) -> tokenizers.Tokenizer:
        """A Hugging Face tokenizer with the same ids; see `grover_dist.bpe.tokenizer`."""
        from grover_dist.bpe.tokenizer import make_tokenizer

        return make_tokenizer(self.at(self.cycles if cycles is None else cycles))

    def save_tokenizer(self, folder: Path, cycles: int | None = None, max_length: int = 512) -> None:
        """tokenizer.json, tokenizer_config.json and special_tokens_map.json, for `AutoTokenizer.from_pretrained`.

        max_length: positions of the model in tokens, [CLS] and [SEP] included.
        """
        from grover_dist.bpe.tokenizer import save_tokenizer

        save_tokenizer(self.at(self.cycles if cycles is None else cycles), Path(folder), max_length)
