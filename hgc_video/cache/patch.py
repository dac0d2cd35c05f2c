"""The only place where a forward is replaced: on the instance, with exact undo.

Knows torch modules only. Our wrapper is outermost, so hooks of a module that is bypassed do not run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn

from ..errors import CacheStateError

Around = Callable[..., Any]


class Patch:
    """One replaced forward: `around(forward, *args, **kwargs)` is called in its place."""

    def __init__(self, module: nn.Module, around: Around) -> None:
        self.module = module
        self._before = module.__dict__.get("forward")
        original = module.forward

        @wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            return around(original, *args, **kwargs)

        self._ours = forward
        module.forward = forward

    def undo(self) -> None:
        """Puts the module back as it was, to the attribute; CacheStateError if another changed it since."""
        if self.module.__dict__.get("forward") is not self._ours:
            raise CacheStateError(
                f"the forward of {type(self.module).__name__} was replaced after ours; "
                "undo that first, wrappers come off in reverse order"
            )
        if self._before is None:
            del self.module.__dict__["forward"]
        else:
            self.module.forward = self._before


def undo_all(patches: list[Patch]) -> None:
    """Undoes patches in reverse order; all of them, also when one fails, then raises its error."""
    first: Exception | None = None
    while patches:
        try:
            patches.pop().undo()
        except CacheStateError as error:
            first = first or error
    if first is not None:
        raise first
