"""The names of results, from a pattern: "{name}-{preset}-seed{seed}"."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from string import Formatter
from typing import Any

from ..errors import InputError, nearest
from ..options import GenerateOptions

SUFFIXES = (".mp4", ".webm", ".gif", ".webp")
_FIELDS = ("name", "number", *GenerateOptions.model_fields)


def default_pattern(varied: Collection[str]) -> str:
    """The pattern where none is given: the shot's name and what its variants differ in."""
    return "".join(["{name}", *(f"-{_label(option)}{{{option}}}" for option in varied)])


def check_pattern(pattern: str) -> str:
    """The pattern, with .mp4 where it has no suffix.

    Raises:
        InputError: it names an unknown field, leads out of the batch folder, or has another suffix.
    """
    if not isinstance(pattern, str):
        raise InputError(
            f"name={pattern!r} is not possible; give a pattern, as {{name}}-{{number}}"
        )
    try:
        parsed = list(Formatter().parse(pattern))
    except ValueError as error:
        raise InputError(f'--name "{pattern}" is not possible: {error}') from error
    if not pattern.isprintable():
        raise InputError(f'--name "{pattern}" is not possible: not every letter of it is printable')
    for _, field, spec, conversion in parsed:
        if field is not None and (field not in _FIELDS or conversion):
            raise InputError(f'--name "{pattern}": no field "{field}": {nearest(field, _FIELDS)}')
        if spec and not re.fullmatch(r"0?[0-9]{1,2}d?", spec):
            raise InputError(f'--name "{pattern}": ":{spec}" is not possible; write {{number:03}}')
    path = PurePosixPath(pattern or "/")
    if path.is_absolute() or ".." in path.parts or pattern.startswith("~") or pattern.endswith("/"):
        raise InputError(
            f'--name "{pattern}" names no file in the batch folder; write {{name}}, or a/{{name}}'
        )
    last, field, *_ = parsed[-1]
    suffix = PurePosixPath(f"x{last if field is None else ''}").suffix.lower()
    if suffix and suffix not in SUFFIXES and not re.search(r"\d", suffix):
        raise InputError(
            f'--name "{pattern}": unknown suffix "{suffix}"; take {", ".join(SUFFIXES)}'
        )
    return pattern if suffix in SUFFIXES else f"{pattern}.mp4"


def result_name(pattern: str, name: str, number: int, options: Mapping[str, Any]) -> str:
    """The name of a job's result: the pattern with the job's name, its number and its options."""
    fields = {key: field.default for key, field in GenerateOptions.model_fields.items()}
    told = {**fields, **options, "name": name, "number": number}
    filled = []
    for text, field, spec, _ in Formatter().parse(pattern):
        filled.append(text)
        if field is not None:
            value = told[field]
            filled.append(_clean(format(value, spec) if isinstance(value, int) and spec else value))
    return "".join(filled)


def _clean(value: Any) -> str:
    """A value as part of a file's name."""
    return re.sub(r"[^\w.=+-]+", "_", str(value)).strip("_.") or "none"


def _label(option: str) -> str:
    """What stands before an option's value: nothing before words that speak for themselves."""
    return "" if option in ("preset", "model", "control") else option.replace("_", "")
