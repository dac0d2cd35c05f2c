"""What is compared: presets, policies and solvers, by the text they are called with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ..errors import PresetError, one_line
from ..files import kept_sha256_of, user_path
from ..plan.cost import cost, full_cost
from ..plan.graph import BlockGraph
from ..plan.policies.registry import split_fields
from ..plan.policies.searched import load_coded_schedule
from ..plan.presets import Preset, asks_quality, resolve
from ..plan.step_codes import FULL
from .gradient_estimation import GradientEstimation

_SOLVER, _ESTIMATION = "dpm++", "gradient-estimation"


@dataclass(frozen=True)
class Solver:
    """DPM++ (2211.01095) of an order; order 1 is DDIM. At evenly spread timesteps, or at those of the
    uncached run that are key steps of the schedule in a file."""

    order: int = 2
    at: Path | None = None

    def __call__(self, own: Any, num_inference_steps: int) -> Any:
        """The scheduler, made from a pipeline's own, which is asked for so many steps."""
        from diffusers import DPMSolverMultistepScheduler

        kind: Any = DPMSolverMultistepScheduler
        if self.at is not None:
            given = type(own).from_config(own.config)  # the pipeline's own keeps its timesteps
            given.set_timesteps(num_inference_steps)
            word = load_coded_schedule(self.at).resampled(num_inference_steps).actions
            keys = [int(given.timesteps[i]) for i, action in enumerate(word) if action == FULL]
            kind = _at_timesteps(kind, keys)
        return kind.from_config(
            own.config, algorithm_type="dpmsolver++", solver_order=self.order,
            timestep_spacing="linspace",
        )  # fmt: skip


def _at_timesteps(kind: Any, timesteps: list[int]) -> Any:
    """A scheduler's class, of which every instance takes these timesteps whatever number it is asked for."""

    class AtTimesteps(kind):  # type: ignore[misc]  # a class that is known at run time
        def set_timesteps(self, num_inference_steps: int | None = None, device: Any = None) -> None:
            super().set_timesteps(device=device, timesteps=timesteps)

    return AtTimesteps


@dataclass(frozen=True)
class Method:
    """A preset or policy, or (`solver`) the uncached model under another solver with fewer steps."""

    name: str
    preset: Preset
    solver: Solver | GradientEstimation | None = None

    def files_sha256(self) -> str:
        """A checksum of the schedules and calibrations that it reads, which may change under its name; ""
        where it reads none."""
        named = [
            getattr(policy, field, "")
            for policy in self.preset.policies
            for field in ("file", "calibration")
        ]
        files = [*filter(None, named), *filter(None, [getattr(self.solver, "at", None)])]
        return " ".join(kept_sha256_of(user_path(file))[:16] for file in files)

    def scheduler(self, own: Any, num_inference_steps: int) -> Any:
        """The scheduler to run with, made from the pipeline's own, which is asked for so many steps."""
        return own if self.solver is None else self.solver(own, num_inference_steps)


def split_methods(text: str) -> list[str]:
    """`off,hgc:interval=3,cut=1,deepcache` as three: a field belongs to the policy before it."""
    found: list[str] = []
    for part in text.replace(";", ",").split(","):
        word = part.strip()
        field = "=" in word and ":" not in word and not asks_quality(word) and found
        if field:
            found[-1] += f",{word}"
        elif word:
            found.append(word)
    if not found:
        raise PresetError("no methods are given; write off,balanced,deepcache:interval=3")
    return found


def make_method(text: str) -> Method:
    """The method of a word; PresetError names the nearest."""
    name, _, options = text.partition(":")
    if name not in (_SOLVER, _ESTIMATION):
        return Method(text, resolve(text))
    kind = _SolverFields if name == _SOLVER else _EstimationFields
    try:
        fields = kind(**split_fields(name, options))
    except ValidationError as error:
        raise PresetError(one_line(error, name, kind.model_fields)) from None
    if isinstance(fields, _EstimationFields):
        solver = GradientEstimation(fields.gamma)
        return Method(text, resolve(f"fewer-steps:steps={fields.steps}"), solver)
    at = fields.at
    steps = load_coded_schedule(at).actions.count(FULL) if at else fields.steps
    return Method(text, resolve(f"fewer-steps:steps={steps}"), Solver(fields.order, at))


class _SolverFields(BaseModel):
    """The options of dpm++ in a method string."""

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(0, ge=0)
    order: Literal[1, 2, 3] = 2
    at: Path | None = None

    @field_validator("order", mode="before")
    @classmethod
    def _number(cls, order: Any) -> int:
        return int(order)

    @model_validator(mode="after")
    def _one_of_two(self) -> _SolverFields:
        if (self.steps >= 1) == (self.at is not None):
            raise ValueError(
                "give steps=N, at least 1, or at=FILE, a schedule whose key steps it takes; as in "
                "dpm++:steps=8"
            )
        return self


class _EstimationFields(BaseModel):
    """The options of gradient-estimation in a method string."""

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(ge=1)
    gamma: float = 2.0


def controls(methods: list[Method], graph: BlockGraph, num_inference_steps: int) -> list[Method]:
    """Beside every method that saves a tenth or more: as many plain steps as cost no less, of the model's
    own scheduler and of DPM++ 2M. Holding or extrapolating a whole prediction is what such solvers do,
    so that only these rows show what caching itself adds."""
    steps = set()
    for method in methods:
        share = _share(method, graph, num_inference_steps)
        if share <= 0.9 and method.preset.caches:
            steps.add(max(1, round(share * num_inference_steps)))
    given = {method.name for method in methods}
    words = [
        f"{kind}:steps={k}"
        for k in sorted(steps, reverse=True)
        for kind in ("fewer-steps", _SOLVER)
    ]
    return [make_method(word) for word in words if word not in given]


def _share(method: Method, graph: BlockGraph, num_inference_steps: int) -> float:
    """MACs as a share of the uncached run; the most where it decides at run time."""
    steps = method.preset.num_steps(num_inference_steps)
    plan = method.preset.schedule(graph, steps)
    return cost(graph, plan).total / full_cost(graph, num_inference_steps).total
