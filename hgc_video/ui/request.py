"""What the form holds becomes options of `generate`; an error names the field that it is of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import InputError, nearest
from ..options import GenerateOptions
from .form import FILES, field_names
from .rows import ROWS, with_rows
from .uploads import Uploads

_WORDS = ("prompt", "negative_prompt")


def options_from(values: Mapping[str, Any], uploads: Uploads, *, shared: bool) -> dict[str, Any]:
    """Options of the values of a form; what is empty has its default, and uploaded files their paths.

    Args:
        shared: others in the network fill the form; what could name a file of this machine is refused.

    Raises:
        InputError: a name that is no field of the form, or a value that is refused.
    """
    known = field_names()
    options: dict[str, Any] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(f'the form has no field "{name}": {nearest(name, known)}')
        if name == "seed" and value == "":
            value = None  # one is drawn
        elif value is None or value == "":
            continue
        if shared and name not in _WORDS:
            _refuse_files(name, value)
        if name in ROWS:
            rows[name] = _rows(name, value, uploads)
        else:
            options[name] = _path(name, value, uploads) if name in FILES else value
    return with_rows(options, rows)


def _path(name: str, upload: Any, uploads: Uploads) -> str:
    """Where an upload lies that a field holds."""
    try:
        return str(uploads[str(upload)].path)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _rows(name: str, given: Any, uploads: Uploads) -> list[dict[str, Any]]:
    """The rows of a field, with the paths of the files that were uploaded."""
    if not isinstance(given, list) or not all(isinstance(row, Mapping) for row in given):
        raise InputError(f"{name}: the rows cannot be read; load the page again")
    known = {column.name: column.kind for column in ROWS[name]}
    rows = []
    for row in given:
        told = {}
        for key, value in row.items():
            if key not in known:
                raise InputError(f'{name}: a row has no "{key}": {nearest(str(key), known)}')
            if isinstance(value, Mapping):
                value = _path(name, value.get("upload"), uploads)
            elif known[key] == "video":
                raise InputError(f"{name}: the clip is no uploaded file; choose it again")
            if isinstance(value, list):
                raise InputError(f"{name}: the rows cannot be read; load the page again")
            if value is not None and value != "":
                told[key] = value
        rows.append(told)
    return rows


def checked(options: Mapping[str, Any]) -> GenerateOptions:
    """The options, checked; InputError where a clip or a prompt is missing or a value is not possible."""
    several = isinstance(options.get("control"), Mapping)
    if not options.get("control_video") and not options.get("video") and not several:
        raise InputError("control_video: no clip is given yet; choose one")
    return GenerateOptions(**options)


# Messages that name their field by other words.
_ABOUT = (
    (r"a prompt is given from frame|prompts by frame", "prompt_at"),
    (r"the scale .* of .* is not possible|a LoRA|.* changes nothing of this model", "lora"),
    (r".* follows one control", "more_controls"),
    (r"unknown (preset|policy)|\S+ has no field", "preset"),
)


def field_of(message: str) -> str:
    """The field that a message is about; "" where it names none."""
    for pattern, field in _ABOUT:
        if re.match(pattern, message):
            return field
    for pattern in (r"\b(\w+)=", r"^(?:unknown |an? |no |the )*(\w+)\b", r'names? "(\w+)"'):
        for found in re.findall(pattern, message):
            if found in field_names():
                return str(found)
    return ""


def _refuse_files(name: str, value: Any) -> None:
    """InputError where a value, or one of its rows, may name a file of this machine."""
    if isinstance(value, Mapping):
        value = [one for key, one in value.items() if key not in ("text", "upload")]
    if isinstance(value, list):
        for one in value:
            _refuse_files(name, one)
    elif isinstance(value, str) and re.search(r"[/\\~]|\bfile=|\.\w{3,}$", value):
        raise InputError(
            f"{name}={value!r} may name a file; over the network the page takes plain names alone"
        )
