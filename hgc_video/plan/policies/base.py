"""What every policy is: a validated set of fields, called with a graph and a number of steps.

A policy fills in a schedule and holds no state; one published method is one file of this folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import PresetError, one_line
from ..graph import BlockGraph
from ..schedule import Plan, Schedule

MOST = 1_000_000  # steps, terms, iterations: more would fill the memory or never end


class Policy(BaseModel, ABC):
    """The base of all policies; the fields of a subclass are its options.

    spelling: the name in a policy string, as "deepcache" in "deepcache:interval=3".
    source: the arXiv number of the paper, or where else the method comes from.
    old_names: what fields were called before, which policy strings may still say.

    Raises:
        PresetError: a field that is not known, or a value outside of its range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spelling: ClassVar[str]
    source: ClassVar[str]
    old_names: ClassVar[dict[str, str]] = {}

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**{self.old_names.get(name, name): v for name, v in fields.items()})
        except ValidationError as error:
            raise PresetError(one_line(error, self.spelling, type(self).model_fields)) from None
        for name, value in self:
            if isinstance(value, int) and value > MOST:
                raise PresetError(
                    f"{self.spelling}: {name}={value} is not possible; give at most {MOST}"
                )

    @abstractmethod
    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Plan:
        """The plan of a run of `num_inference_steps` evaluations of the models."""

    def num_steps(self, asked: int) -> int:
        """How many steps are run where `asked` are asked for; a policy may choose its own number."""
        return asked

    @property
    def text(self) -> str:
        """The policy string that makes this policy: its name and every field that is not the default."""
        given = self.model_dump(exclude_defaults=True)
        fields = ",".join(f"{name}={value}" for name, value in given.items())
        return f"{self.spelling}:{fields}" if fields else self.spelling


class SchedulePolicy(Policy):
    """A policy whose plan is fixed before the run."""

    @abstractmethod
    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
