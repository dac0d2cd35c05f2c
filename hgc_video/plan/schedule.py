"""A schedule: per step, what is reused from the store, how guidance is computed, and why.

Pure data with a YAML and JSON round trip. Which schedule is good is the policies' business, which layers
it skips is in liveness.py, what it costs in cost.py.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..errors import InputError, PlanError, one_line
from .coefficients import linear
from .plain_yaml import parse_plain


@dataclass(frozen=True)
class StepPlan:
    """One denoising step; the default computes everything.

    reuse: names of layers and attentions whose stored outputs are used.
    deltas: names of layers whose stored delta (out - in) is added to their fresh input
        (Block Caching eq. 5, 2312.03209), or "unet" for the whole prediction (EasyCache 2507.02860).
    average_branches: attentions computed here of which the mean over both branches is kept, T-GATE eq. 6
        (2404.02747): what the steps after the gate use.
    branches: 2 computes the unconditional branch too, 1 does not (or there is no guidance).
    cfg_delta: on a step of one branch, weights of the low and high frequencies of the last guidance
        difference (uncond - cond) that is added again (FasterCache 2410.19355); None drops guidance.
    extrapolate, coefficients: of these names a1 F1 + a2 F2 + ... is used, from as many of the last stored
        values as there are coefficients, the newest first; of all others the last one, F1. `coefficients.
        linear` gives the two of a slope.
    latent_progress: the older and the newer step whose values are extrapolated. What the coefficients add
        to F1 is then per unit of the distance that the latents go from the one to the other, and how far
        they have come since is measured at run time (WorldCache's dot product, 2603.22286). None uses the
        coefficients as they are.
    clean: earlier steps and their weights: the models do not run, and the prediction is made of the clean
        latents that those steps' predictions stand for, in the noise that is left (SADA 2507.17135).
    inactive_controlnets: ControlNets ("controlnet", "controlnet.nets.1") that add nothing at this step.
    always_compute: layers that are computed although nobody reads them, where a method's release does so.
    label: a word for the chart.
    forecast_error: of a step that was decided on at run time, the error that the forecast of the step before
        it was measured to have, relative to that step's prediction; no part of what is executed.
    reason: why the step is as it is, one clause of each policy that had a say; no part of what is
        executed, so that two steps that do the same are equal.
    """

    reuse: frozenset[str] = frozenset()
    deltas: frozenset[str] = frozenset()
    average_branches: frozenset[str] = frozenset()
    branches: int = 2
    cfg_delta: tuple[float, float] | None = None
    extrapolate: frozenset[str] = frozenset()
    coefficients: tuple[float, ...] = ()
    latent_progress: tuple[int, int] | None = None
    clean: tuple[tuple[int, float], ...] = ()
    inactive_controlnets: frozenset[str] = frozenset()
    always_compute: frozenset[str] = frozenset()
    label: str = "full"
    forecast_error: float | None = field(default=None, compare=False)
    reason: str = field(default="", compare=False)

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    @property
    def depth(self) -> int:
        """How many of the last values of the names in `extrapolate` are read."""
        return max(1, len(self.coefficients))

    def with_reuse(self, names: frozenset[str], reason: str = "") -> StepPlan:
        """The same step with more outputs reused."""
        return replace(self, reuse=self.reuse | names).because(reason)

    def with_inactive(self, controlnets: Collection[str]) -> StepPlan:
        """The same step with ControlNets that add nothing to it."""
        return replace(
            self, inactive_controlnets=self.inactive_controlnets | frozenset(controlnets)
        )

    def because(self, reason: str) -> StepPlan:
        """The same step with one more clause of its reason, once."""
        if not reason or reason in self.reason.split("; "):
            return self
        return replace(self, reason=f"{self.reason}; {reason}" if self.reason else reason)


@dataclass(frozen=True)
class Anchors:
    """Cross-attention is computed for every `stride`-th frame and shared with the frames around it, which
    get a mixture of the two anchors beside them."""

    stride: int

    def frames(self, num_frames: int) -> tuple[int, ...]:
        """The anchor frames; the last frame is one of them, so that nothing is extrapolated."""
        chosen = {*range(0, num_frames, self.stride), num_frames - 1}
        return tuple(sorted(chosen))


class Plan(ABC):
    """What can be carried out: a schedule, or an adaptive plan that chooses among steps at run time."""

    name: str
    lossless: bool
    is_adaptive: ClassVar[bool]

    @abstractmethod
    def __len__(self) -> int:
        """The number of steps."""

    @property
    @abstractmethod
    def choices(self) -> tuple[tuple[StepPlan, ...], ...]:
        """Per step the steps to choose from, the one that computes most first."""

    @property
    def is_stock(self) -> bool:
        """Whether nothing is wrapped at all: the stock models run."""
        return False

    @property
    def decides_apart(self) -> bool:
        """Whether windows of frames may do different things at a step."""
        return False

    def upper_bound(self) -> Schedule:
        """The schedule of the run that costs most: always the first choice."""
        return self.executed([choices[0] for choices in self.choices])

    def lower_bound(self) -> Schedule:
        """The schedule of the run that costs least."""
        return self.upper_bound()

    @abstractmethod
    def executed(self, steps: Collection[StepPlan]) -> Schedule:
        """The schedule of a run of this plan in which these steps were carried out."""

    @abstractmethod
    def with_inactive(self, steps: Mapping[int, Collection[str]]) -> Plan:
        """The plan with ControlNets that add nothing, by step: scale 0, or outside of their share of the
        run."""


@dataclass(frozen=True)
class Schedule(Plan):
    """The plan of a whole run.

    lossless: the lossless savings are made: hint and text are encoded once, what nobody reads is not
        run (the ControlNet's deeper part, a ControlNet that adds nothing, `also`). Without it the run is
        the one that a method's release would make.
    stock: nothing is wrapped at all; every step computes everything.
    """

    name: str
    steps: tuple[StepPlan, ...]
    lossless: bool = True
    anchors: Anchors | None = None
    adjust: str = ""
    stock: bool = False

    is_adaptive: ClassVar[bool] = False
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def choices(self) -> tuple[tuple[StepPlan, ...], ...]:
        """Per step the one that is carried out."""
        return tuple((step,) for step in self.steps)

    @property
    def is_stock(self) -> bool:
        """Whether nothing is wrapped at all."""
        return self.stock

    def executed(self, steps: Collection[StepPlan]) -> Schedule:
        """The schedule of a run in which these steps were carried out, maybe not all."""
        return replace(self, steps=tuple(steps))

    def with_inactive(self, steps: Mapping[int, Collection[str]]) -> Schedule:
        """The schedule with ControlNets that add nothing, by step."""
        made = (step.with_inactive(steps.get(i, ())) for i, step in enumerate(self.steps))
        return replace(self, steps=tuple(made))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and words; `from_dict` reads them back. Defaults are left out."""
        data: dict[str, Any] = {"name": self.name, "lossless": self.lossless}
        fields = _adapter().dump_python(self, mode="json", exclude_defaults=True)
        steps = [_sorted(step) for step in fields.pop("steps", [])]
        return {**data, **fields, "steps": steps}

    def to_yaml(self) -> str:
        """The schedule as YAML."""
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False))

    def to_json(self) -> str:
        """The schedule as JSON."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_dict(cls, data: Any) -> Schedule:
        """The schedule that `to_dict` wrote; PlanError says what is wrong with another."""
        try:
            return _adapter().validate_python(_renamed(data))
        except ValidationError as error:
            said = one_line(error, "a schedule", cls.__dataclass_fields__)
            raise PlanError(f"this is no schedule: {said}; give what to_yaml wrote") from error

    @classmethod
    def from_yaml(cls, text: str) -> Schedule:
        """The schedule that `to_yaml` or `to_json` wrote (JSON is YAML)."""
        try:
            data = parse_plain(text)
        except InputError as error:
            raise PlanError(f"this is no schedule: {error}; give what to_yaml wrote") from error
        return cls.from_dict(data)


@cache
def _adapter() -> TypeAdapter[Schedule]:
    return TypeAdapter(Schedule)


def _sorted(step: dict[str, Any]) -> dict[str, Any]:
    """A step with its label first and its sets of names in order."""
    fields = {"label": step.pop("label", "full"), **step}
    named = {k: sorted(v) for k, v in fields.items() if isinstance(v, list) and k not in _ORDERED}
    return fields | named


_ORDERED = ("cfg_delta", "clean", "coefficients", "latent_progress")
_OLD_NAMES = {  # of files written before 0.2
    "contributions": "deltas", "merge": "average_branches", "difference": "cfg_delta",
    "follow": "latent_progress", "silent": "inactive_controlnets", "also": "always_compute",
}  # fmt: skip


def _renamed(data: Any) -> Any:
    """The data of a schedule with the names of today."""
    if not isinstance(data, dict) or not isinstance(data.get("steps"), list):
        return data
    steps = [_renamed_step(step) if isinstance(step, dict) else step for step in data["steps"]]
    return {**data, "steps": steps}


def _renamed_step(step: dict[str, Any]) -> dict[str, Any]:
    """A step with the names of today; a slope is written as its coefficients."""
    fields = {_OLD_NAMES.get(name, name): value for name, value in step.items()}
    if isinstance(fields.get("slope"), int | float) and "coefficients" not in fields:
        fields["coefficients"] = linear(fields.pop("slope"))
    return fields
