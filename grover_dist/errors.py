"""Errors that are the user's to mend: what is wrong, where, what was expected and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A fault in the input, the settings or the machine. The command line prints it as one paragraph and exits with 2.

    what: one sentence that names the fault. where: the file, record, line or setting. got, expected: the values.
    hint: what to do or to run next.
    """

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        got: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        self.what, self.where, self.got, self.expected, self.hint = what, where, got, expected, hint
        super().__init__(what)

    def __str__(self) -> str:
        parts = [self.what.rstrip(".") + "."]
        if self.where is not None:
            parts.append(f"Where: {self.where}.")
        if self.got is not None:
            parts.append(f"Got: {self.got}.")
        if self.expected is not None:
            parts.append(f"Expected: {self.expected}.")
        if self.hint is not None:
            parts.append(f"What to do: {self.hint.rstrip('.')}.")
        return " ".join(parts)

    def __reduce__(self):
        # Keyword-only arguments are lost by the default pickling, and Ray pickles what a worker raises.
        return _rebuild, (self.what, self.where, self.got, self.expected, self.hint)


def _rebuild(what: str, where: object, got: object, expected: object, hint: str | None) -> UserError:
    return UserError(what, where=where, got=got, expected=expected, hint=hint)


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """The known names most like `name`, as text for an error ("'cycles', 'seed'"), or all of them when few are known."""
    known = [str(item) for item in known]
    found = difflib.get_close_matches(name, known, n=count, cutoff=0.5)
    if not found and len(known) <= 12:
        found = known
    return ", ".join(f"'{item}'" for item in found) or "nothing similar"
