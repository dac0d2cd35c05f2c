"""Every error this package raises on purpose.

HGCVideoError
├── InputError            what the user gave cannot be used (also a ValueError)
│   ├── VideoError        a clip that cannot be read or written
│   ├── PromptError       an empty or too long prompt
│   ├── PresetError       an unknown preset, policy or policy field
│   └── StateError        a run's state that cannot be kept, or is of another run
├── PlanError             a schedule or chunk plan that is not valid
├── AdapterError          a model whose layout is not known
├── CacheStateError       a cached tensor that does not belong here
├── NumericalError        numbers of a run that are not finite (also an ArithmeticError)
├── ModelError            a model that cannot be found, downloaded or loaded
├── MissingExtraError     an optional package that is not installed
└── Cancelled             the user stopped the run

HGCVideoWarning (a UserWarning) is for what a user must know of a run that goes on: input that is left out,
used another way than asked for, or probably not meant.

Messages are one line: what was given, what is allowed, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class HGCVideoError(Exception):
    """Base of all errors of hgc_video."""


class InputError(HGCVideoError, ValueError):
    """What the user gave cannot be used."""


class VideoError(InputError):
    """A clip that cannot be read or written."""


class PromptError(InputError):
    """An empty or too long prompt."""


class PresetError(InputError):
    """An unknown preset, policy or policy field."""


class StateError(InputError):
    """A run's state that cannot be written, or a kept one that is of another run."""


class PlanError(HGCVideoError, ValueError):
    """A schedule or chunk plan that is not valid."""


class AdapterError(HGCVideoError, TypeError):
    """A model whose layout is not known."""


class CacheStateError(HGCVideoError, RuntimeError):
    """A cached tensor that does not belong here."""


class NumericalError(HGCVideoError, ArithmeticError):
    """Numbers of a run that are not finite: NaN, or infinite."""


class ModelError(HGCVideoError):
    """A model that cannot be found, downloaded or loaded."""


class MissingExtraError(HGCVideoError, ImportError):
    """An optional package that is not installed."""


class HGCVideoWarning(UserWarning):
    """What a user must know of a run that goes on: input that is left out, used another way than asked
    for, or probably not meant."""


class Cancelled(HGCVideoError):
    """The user stopped the run; nothing was left half-written."""


def nearest(given: str, allowed: Iterable[str]) -> str:
    """A half-sentence for messages: the nearest allowed name, where one is near, then all.

    >>> nearest("balnced", ["off", "balanced"])
    'did you mean "balanced"? (allowed: off, balanced)'
    """
    names = list(allowed)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f'did you mean "{close[0]}"? ' if close else ""
    return f"{hint}(allowed: {', '.join(names)})"


def one_line(error: ValidationError, owner: str, allowed: Iterable[str]) -> str:
    """A validation error as one line of ours: what was given, what is allowed, the nearest valid name.

    Args:
        error: what pydantic raised; its first fault is named.
        owner: whose fields were given, as "deepcache" or "generate".
        allowed: the names of the valid fields.
    """
    fault = error.errors(include_url=False)[0]
    name = str(fault["loc"][0]) if fault["loc"] else ""
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f'{owner} has no field "{name}": {nearest(name, allowed)}'
    if fault["type"] in ("missing", "missing_argument"):
        return f"{owner} needs {name}=VALUE"
    if not name or fault["type"] == "value_error":
        return f"{owner}: {fault['msg'].removeprefix('Value error, ')}"
    own = fault["type"] in (
        "whole_number",
        "number",
    )  # raised by options, which take no text for a number
    given = repr(fault["input"]) if own else fault["input"]
    return f"{owner}: {name}={given} is not possible; give {_wanted(fault)}"


_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "text"}
_BOUNDS = {
    "greater_than_equal": ("ge", "{} or more"), "greater_than": ("gt", "more than {}"),
    "less_than_equal": ("le", "at most {}"), "less_than": ("lt", "less than {}"),
}  # fmt: skip


def _wanted(fault: ErrorDetails) -> str:
    """What a validation error says is allowed, as half a sentence."""
    kind = fault["type"]
    if kind in _BOUNDS:
        bound, message = _BOUNDS[kind]
        return message.format(fault["ctx"][bound])
    if kind == "string_too_short":
        return "a text that is not empty"
    if kind.partition("_")[0] in _KINDS:
        return _KINDS[kind.partition("_")[0]]
    return fault["msg"].removeprefix("Input should be ").partition(", unable to parse")[0]
