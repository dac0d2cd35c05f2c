"""The only place where a forward is replaced: on the instance, with exact undo.

Knows torch modules, and methods of a scheduler. Our wrapper is outermost, so hooks of a module that is
bypassed do not run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn

from ..errors import CacheStateError

Around = Callable[..., Any]
_MARK = "_hgc_video_wrapper"


class Patch:
    """One replaced method: `around(forward, *args, **kwargs)` is called in its place.

    Where a module was compiled in place it is the compiled call that is replaced, so that what
    decides about a step stays outside of the compiled code. Of anything else `method` is replaced.
    A module suffers only one wrapper that wants to be `alone` (`is_wrapped` tells).
    """

    def __init__(
        self, module: Any, around: Around, method: str = "forward", *, alone: bool = True
    ) -> None:
        compiled = getattr(module, "_compiled_call_impl", None)
        self.module, self._attribute = module, "_compiled_call_impl" if compiled else method
        self._before = module.__dict__.get(self._attribute)
        original = compiled or getattr(module, method)

        @wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return around(original, *args, **kwargs)

        if alone:
            setattr(wrapper, _MARK, True)
        self._ours = wrapper
        setattr(module, self._attribute, wrapper)

    def undo(self) -> None:
        """Puts the module back as it was, to the attribute; CacheStateError if another changed it since."""
        if self.module.__dict__.get(self._attribute) is not self._ours:
            raise CacheStateError(
                f"{self._attribute} of {type(self.module).__name__} was replaced after ours; "
                "undo that first, wrappers come off in reverse order"
            )
        if self._before is None:
            del self.module.__dict__[self._attribute]
        else:
            setattr(self.module, self._attribute, self._before)

    def redo(self) -> bool:
        """Puts the same wrapper on again, which compiled code knows; False, and nothing is done, where
        the module has been compiled or got another forward since."""
        compiled = getattr(self.module, "_compiled_call_impl", None) is not None
        same = self.module.__dict__.get(self._attribute) is self._before
        if not same or compiled != (self._attribute == "_compiled_call_impl"):
            return False
        setattr(self.module, self._attribute, self._ours)
        return True


def is_wrapped(module: nn.Module) -> bool:
    """Whether a module carries a wrapper of ours that wants to be alone."""
    for attribute in ("forward", "_compiled_call_impl"):
        if getattr(module.__dict__.get(attribute), _MARK, False):
            return True
    return False


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
