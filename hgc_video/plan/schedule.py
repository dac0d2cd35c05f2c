"""A schedule: per step, what comes from the store and how guidance is computed.

Pure data with a YAML and JSON round trip. Which schedule is good is the policies' business, what it
makes alive and dead is liveness's, what it costs is cost's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import yaml

from ..errors import PlanError


@dataclass(frozen=True)
class StepPlan:
    """One denoising step; the default computes everything.

    reuse: names of layers and attentions whose stored outputs are used.
    contributions: names of layers whose stored contribution (out - in) is added to their fresh input
        (Block Caching eq. 5, 2312.03209), or "unet" for the whole prediction (EasyCache 2507.02860).
    merge: attentions computed here of which the mean over both branches is kept, T-GATE eq. 6
        (2404.02747): what the steps after the gate use.
    branches: 2 computes the prompt-free branch too, 1 does not (or there is no guidance).
    difference: on a step of one branch, weights of the low and high frequencies of the last guidance
        difference (uncond - cond) that is added again (FasterCache 2410.19355); None drops guidance.
    extrapolate, slope: of these names F1 + slope * (F1 - F2) is used, from the last two stored
        values; of all others the last one, F1.
    follow: the older and the newer step whose values are extrapolated. The slope is then told per unit
        of the way that the latents go from the one to the other, and how far they have come since is
        measured at run time (WorldCache's dot product, 2603.22286). None tells the slope itself.
    silent: ControlNets ("controlnet", "controlnet.nets.1") that add nothing at this step.
    also: layers that are computed although nobody reads them, where a method's release does so.
    label: a word for the chart.
    """

    reuse: frozenset[str] = frozenset()
    contributions: frozenset[str] = frozenset()
    merge: frozenset[str] = frozenset()
    branches: int = 2
    difference: tuple[float, float] | None = None
    extrapolate: frozenset[str] = frozenset()
    slope: float = 0.0
    follow: tuple[int, int] | None = None
    silent: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()
    label: str = "full"

    def with_reuse(self, names: frozenset[str]) -> StepPlan:
        """The same step with more outputs reused."""
        return replace(self, reuse=self.reuse | names)


@dataclass(frozen=True)
class Anchors:
    """Cross-attention is computed for every `stride`-th frame and shared with the frames around it:
    the nearest anchor's, or (`linear`) a mixture of the two beside it."""

    stride: int
    linear: bool = True

    def frames(self, num_frames: int) -> tuple[int, ...]:
        """The anchor frames; the last frame is one of them, so that nothing is extrapolated."""
        chosen = {*range(0, num_frames, self.stride), num_frames - 1}
        return tuple(sorted(chosen))


@dataclass(frozen=True)
class Schedule:
    """The plan of a whole run.

    lossless: the exact savings are made: hint and text are encoded once, what nobody reads is not
    run (the ControlNet's deeper part, a silent ControlNet, `also`). Without it the run is the one
    that a method's release would make.
    """

    name: str
    steps: tuple[StepPlan, ...]
    lossless: bool = True
    anchors: Anchors | None = None
    adjust: str = ""

    def __len__(self) -> int:
        return len(self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and words; `from_dict` reads them back. Defaults are left out."""
        steps = [_told(step) for step in self.steps]
        data: dict[str, Any] = {"name": self.name, "lossless": self.lossless}
        if self.anchors is not None:
            data["anchors"] = {"stride": self.anchors.stride, "linear": self.anchors.linear}
        if self.adjust:
            data["adjust"] = self.adjust
        return {**data, "steps": steps}

    def to_yaml(self) -> str:
        """The schedule as YAML."""
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False))

    def to_json(self) -> str:
        """The schedule as JSON."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_dict(cls, data: Any) -> Schedule:
        """The schedule that `to_dict` told; PlanError says what is wrong with another."""
        try:
            anchors = Anchors(**data["anchors"]) if "anchors" in data else None
            steps = tuple(_read(step) for step in data["steps"])
            return cls(
                str(data["name"]),
                steps,
                bool(data["lossless"]),
                anchors,
                str(data.get("adjust", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(
                f"this is no schedule: {error!r}; give what to_yaml or to_json wrote"
            ) from error

    @classmethod
    def from_yaml(cls, text: str) -> Schedule:
        """The schedule that `to_yaml` or `to_json` wrote (JSON is YAML)."""
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise PlanError(f"this is no schedule: {error!r}; give what to_yaml wrote") from error
        return cls.from_dict(data)


_DEFAULT = StepPlan()
_PAIRS: dict[str, Callable[[Any], Any]] = {"difference": float, "follow": int}


def _told(step: StepPlan) -> dict[str, Any]:
    told: dict[str, Any] = {"label": step.label}
    for field in fields(step):
        value = getattr(step, field.name)
        if value != getattr(_DEFAULT, field.name):
            told[field.name] = (
                sorted(value) if isinstance(value, frozenset)
                else list(value) if isinstance(value, tuple) else value
            )  # fmt: skip
    return told


def _read(told: dict[str, Any]) -> StepPlan:
    values: dict[str, Any] = {}
    for key, value in told.items():
        default = getattr(_DEFAULT, key, ...)
        if default is ...:
            raise ValueError(f"a step has no {key}")
        if isinstance(default, frozenset):
            value = frozenset(value)
        elif key in _PAIRS and value is not None:
            first, second = value
            value = (_PAIRS[key](first), _PAIRS[key](second))
        values[key] = value
    return StepPlan(**values)
