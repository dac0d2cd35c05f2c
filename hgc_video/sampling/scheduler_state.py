"""What a scheduler keeps from step to step: the history of multistep solvers, and counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import StateError

_PLAIN = (bool, int, float, str, type(None))
_WRITTEN = (Tensor, *_PLAIN)


class SchedulerHistory:
    """The attributes of a scheduler that its steps change, whatever they are called; made when timesteps
    are set and no step was made yet."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._before = {name: _shallow(value) for name, value in vars(scheduler).items()}

    def state(self) -> dict[str, Any]:
        """What is another than before the first step: plain data and tensors, which are not copied.

        StateError where the scheduler keeps something else, such as another scheduler.
        """
        return {
            name: self._told(name, value)
            for name, value in vars(self._scheduler).items()
            if _nested(value) or not _same(value, self._before.get(name, self))
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Gives the scheduler the attributes that `state` told."""
        # Data only, by whatever names the scheduler's class has for it.
        vars(self._scheduler).update(state)

    def _told(self, name: str, value: Any) -> Any:
        if isinstance(value, _WRITTEN):
            return value
        if isinstance(value, list | tuple) and all(isinstance(v, _WRITTEN) for v in value):
            return list(value)
        kind = type(self._scheduler).__name__
        raise StateError(
            f"{kind} keeps a {type(value).__name__} from step to step ({name}), which cannot be written "
            "to a checkpoint; take another scheduler, or leave work out"
        )


def _nested(value: Any) -> bool:
    """Whether a value is a scheduler of its own, whose state would be left out."""
    return hasattr(value, "set_timesteps")


def _shallow(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value


def _same(value: Any, before: Any) -> bool:
    """Whether an attribute, or every item of a list, is what it was."""
    if isinstance(value, list) and isinstance(before, list):
        return len(value) == len(before) and all(map(_same, value, before))
    if isinstance(value, _PLAIN):
        return type(value) is type(before) and value == before
    return value is before
