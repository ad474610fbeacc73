"""From YAML files and `key.sub=value` overrides to the tree."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from grover_dist.config.section import Section
from grover_dist.config.tree import Config
from grover_dist.errors import UserError, nearest


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file with its `extends:` chain, apply `key.sub=value` overrides, validate. Every fault is reported at once.

    Paths inside the file are relative to the working folder, as everywhere on a command line, and are made absolute here.
    """
    data = _read_chain(Path(path), ())
    for override in overrides:
        _apply_override(data, override)
    return config_from(data, source=path).with_absolute_paths()


def config_from(data: Mapping[str, Any], *, source: object = "settings") -> Config:
    try:
        return Config.model_validate(dict(data))
    except ValidationError as error:
        lines = [_describe(fault) for fault in error.errors()]
        raise UserError(
            f"{len(lines)} fault{'s' if len(lines) > 1 else ''} in the settings: " + "; ".join(lines),
            where=source,
            hint="mend these keys; `configs/` holds complete examples",
        ) from None


def _read_chain(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise UserError("settings files extend each other in a circle", where=path, got=" -> ".join(map(str, seen)))
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        known = [str(item) for item in sorted(path.parent.glob("*.yaml"))] if path.parent.is_dir() else []
        raise UserError("there is no such settings file", where=path, hint=f"nearest: {nearest(str(path), known)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the settings file cannot be read: {error}", where=path) from None
    except yaml.YAMLError as error:
        raise UserError("the settings file is not valid YAML", where=path, got=" ".join(str(error).split())) from None
    if not isinstance(data, dict):
        raise UserError("a settings file holds a mapping of sections", where=path, got=type(data).__name__)
    base = data.pop("extends", None)
    if base is None:
        return data
    merged = _read_chain(path.parent / base, (*seen, path.resolve()))
    _merge(merged, data)
    return merged


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError("an override is written key.sub=value", got=override, hint="for example pretrain.budget_bases=1000000")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if isinstance(value, str):  # YAML 1.1 reads 4e-4 as text; a number was meant
        with contextlib.suppress(ValueError):
            value = float(value)
    *parents, leaf = key.split(".")
    for parent in parents:
        child = data.get(parent)
        if not isinstance(child, dict):
            child = data[parent] = {}
        data = child
    data[leaf] = value


def _describe(fault: Mapping[str, Any]) -> str:
    dotted = ".".join(str(part) for part in fault["loc"]) or "settings"
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{dotted}' (nearest: {nearest(str(fault['loc'][-1]), _siblings(fault['loc'][:-1]))})"
    message = fault["msg"].removeprefix("Value error, ")
    value = fault.get("input")
    shown = f" (got {value!r})" if isinstance(value, (str, int, float, bool)) else ""
    return f"'{dotted}': {message}{shown}"


def _siblings(parents: Sequence[Any]) -> list[str]:
    """Names of the fields beside an unknown one, found by walking the annotations of the tree."""
    section: Any = Config
    for part in parents:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        section = next(
            (item for item in (annotation, *_arguments(annotation)) if isinstance(item, type) and issubclass(item, Section)),
            None,
        )
        if section is None:
            return []
    return list(section.model_fields)


def _arguments(annotation: Any) -> list[Any]:
    found: list[Any] = []
    for item in getattr(annotation, "__args__", ()):
        found += [item, *_arguments(item)]
    return found
