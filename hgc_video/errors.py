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
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class HGCVideoError(Exception):
    """Base of all errors of hgc_video. Its text is one line of printable letters, whatever it quotes."""

    def __str__(self) -> str:
        return text_of(super().__str__())


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


# Of a thread, or of a task of asyncio: `warnings.catch_warnings` is the whole process's, and takes what
# other threads warn of as well.
_COLLECTED: ContextVar[list[str] | None] = ContextVar("collected warnings", default=None)


def warn(message: str, stacklevel: int = 1) -> None:
    """Warns of what a user must know, as a HGCVideoWarning or to those who collect in this context.

    Args:
        message: what it is, and what to do.
        stacklevel: whose line is shown, as `warnings.warn` counts: 1 is the caller's.
    """
    collected = _COLLECTED.get()
    if collected is None:
        warnings.warn(message, HGCVideoWarning, stacklevel + 1)
    elif text_of(message) not in collected:
        collected.append(text_of(message))


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Gathers what is warned of inside, each text once, in place of a warning; of this thread alone.

    A thread that is begun inside collects too where it runs in `contextvars.copy_context()`.
    """
    told: list[str] = []
    token = _COLLECTED.set(told)
    try:
        yield told
    finally:
        _COLLECTED.reset(token)


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


def at_least(name: str, value: object, least: int) -> None:
    """InputError where a value is no whole number of `least` or more.

    >>> at_least("seeds", 2, 1)
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name}={value!r:.80} is not possible; give {least} or more")


def text_of(said: object) -> str:
    """The text of an error or a warning as one line. Letters that are not printable are escaped: what a file
    holds is quoted, and could steer the terminal.

    >>> text_of("no field \x1b[2J\n")
    'no field \\x1b[2J'
    """
    return printable(" ".join(str(said).split()))


def printable(text: str) -> str:
    """A text whose letters that are not printable are escaped, line breaks left as they are."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text
    )


def internal_error(error: Exception) -> str:
    """An error that this package did not raise on purpose, as one line; at most 300 characters of its text.

    >>> internal_error(KeyError("a"))
    "internal error: KeyError: 'a'"
    """
    return f"internal error: {type(error).__name__}: {text_of(error)[:300]}"


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
