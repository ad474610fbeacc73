"""What the sections of the settings share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def settings_hash(settings: Any) -> str:
    """SHA-256 of settings as canonical JSON. Takes a section, or any JSON-able structure that holds sections."""
    text = json.dumps(to_plain(settings), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def to_plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def absolute(value: Any) -> Any:
    """A section, or any of its values, with relative paths made absolute. ~ stays: it is each machine's own."""
    if isinstance(value, Path):
        return value if value.parts[:1] == ("~",) else value.absolute()
    if isinstance(value, tuple):
        return tuple(absolute(item) for item in value)
    if isinstance(value, dict):
        return {key: absolute(item) for key, item in value.items()}
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: absolute(getattr(value, name)) for name in type(value).model_fields})
    return value
