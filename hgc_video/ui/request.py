"""What the form holds becomes options of `generate`; an error names the field that it is of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import InputError, nearest
from ..options import GenerateOptions
from .form import FILES, field_names
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
    options = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(f'the form has no field "{name}": {nearest(name, known)}')
        if name == "seed" and value == "":
            value = None  # one is drawn
        elif value is None or value == "":
            continue
        if name in FILES:
            value = str(uploads[str(value)].path)
        elif shared and name not in _WORDS and _may_be_a_file(value):
            raise InputError(
                f"{name}={value!r} may name a file; over the network the page takes plain names alone"
            )
        options[name] = value
    return options


def checked(options: Mapping[str, Any]) -> GenerateOptions:
    """The options, checked; InputError where a clip or a prompt is missing or a value is not possible."""
    if not options.get("control_video") and not options.get("video"):
        raise InputError("control_video: no clip is given yet; choose one")
    return GenerateOptions(**options)


def field_of(message: str) -> str:
    """The field that a message is about; "" where it names none."""
    for pattern in (r"\b(\w+)=", r"^(?:unknown |an? |no |the )*(\w+)\b", r'names? "(\w+)"'):
        for found in re.findall(pattern, message):
            if found in field_names():
                return str(found)
    return "preset" if re.match(r"unknown (preset|policy)|\S+ has no field", message) else ""


def _may_be_a_file(value: Any) -> bool:
    return isinstance(value, str) and bool(re.search(r"[/\\~]|\bfile=|\.\w{3,}$", value))
