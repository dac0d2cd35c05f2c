"""Every error this package raises on purpose.

HGCVideoError
├── InputError            what the user gave cannot be used (also a ValueError)
│   ├── VideoError        a clip that cannot be read or written
│   ├── PromptError       an empty or too long prompt
│   └── PresetError       an unknown preset, policy or policy field
├── PlanError             a schedule or chunk plan that is not valid
├── AdapterError          a model whose layout is not known
├── CacheStateError       a cached tensor that does not belong here
├── ModelError            a model that cannot be found, downloaded or loaded
├── MissingExtraError     an optional package that is not installed
└── Cancelled             the user stopped the run

InputWarning (a UserWarning) is for what the user gave and can be used, but probably not as it was meant.

Messages are one line: what was given, what is allowed, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


class InputWarning(UserWarning):
    """What the user gave is used, but looks as if something else was meant, or not all of it is used."""


class PlanError(HGCVideoError, ValueError):
    """A schedule or chunk plan that is not valid."""


class AdapterError(HGCVideoError, TypeError):
    """A model whose layout is not known."""


class CacheStateError(HGCVideoError, RuntimeError):
    """A cached tensor that does not belong here."""


class ModelError(HGCVideoError):
    """A model that cannot be found, downloaded or loaded."""


class MissingExtraError(HGCVideoError, ImportError):
    """An optional package that is not installed."""


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
