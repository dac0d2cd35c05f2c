"""The only place where a forward is replaced: on the instance, with exact undo.

Knows torch modules, and methods of a scheduler or a pipeline. Our wrapper is outermost, so hooks of a
module that is bypassed do not run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn

Around = Callable[..., Any]
_PATCH = "_hgc_video_patch"


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
        self.alone, self.acts, self._aside = alone, True, False
        self._before = module.__dict__.get(self._attribute)
        original = compiled or getattr(module, method)

        @wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return around(original, *args, **kwargs)

        def step_aside() -> None:
            nonlocal around
            around, self._aside = _straight, True

        self._ours, self._step_aside = wrapper, step_aside
        setattr(wrapper, _PATCH, self)
        module.__dict__[self._attribute] = wrapper

    def undo(self) -> None:
        """Puts the module back as it was, to the attribute. Where somebody else put a wrapper over ours
        since, theirs stays and ours calls the original from now on."""
        if not self.acts:
            return
        self.acts = False
        if not self.in_place:
            self._step_aside()
            return
        before = self._before
        while (patch := _patch_of(before)) is not None and not patch.acts:
            before = patch._before  # ours too, and undone before this one
        if before is None:
            del self.module.__dict__[self._attribute]
        else:
            self.module.__dict__[self._attribute] = before

    def redo(self) -> bool:
        """Puts the same wrapper on again, which compiled code knows; False, and nothing is done, where
        the module has been compiled or got another forward since."""
        compiled = getattr(self.module, "_compiled_call_impl", None) is not None
        same = self.module.__dict__.get(self._attribute) is self._before and not self._aside
        if not same or compiled != (self._attribute == "_compiled_call_impl"):
            return False
        self.module.__dict__[self._attribute], self.acts = self._ours, True
        return True

    @property
    def in_place(self) -> bool:
        """Whether it is our wrapper that the module calls first."""
        return self.module.__dict__.get(self._attribute) is self._ours


def _straight(original: Any, *args: Any, **kwargs: Any) -> Any:
    return original(*args, **kwargs)


def _patch_of(method: Any) -> Patch | None:
    """The patch whose wrapper this is; a wrapper that somebody put over ours may carry its attributes."""
    patch = getattr(method, _PATCH, None)
    return patch if patch is not None and patch._ours is method else None


def is_wrapped(module: nn.Module) -> bool:
    """Whether a module carries a wrapper of ours that wants to be alone, also below somebody else's."""
    for attribute in ("forward", "_compiled_call_impl"):
        patch = getattr(module.__dict__.get(attribute), _PATCH, None)
        if patch is not None and patch.acts and patch.alone:
            return True
    return False


def undo_all(patches: list[Patch]) -> None:
    """Undoes patches in reverse order, and forgets them."""
    while patches:
        patches.pop().undo()
