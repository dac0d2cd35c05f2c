"""What is compared: presets, policies and solvers, by the words they are called with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import PresetError
from ..plan.adaptive import AdaptivePlan
from ..plan.cost import cost, full_cost
from ..plan.graph import BlockGraph
from ..plan.presets import Preset, resolve
from ..plan.registry import parse_fields

_SOLVER = "dpm++"


@dataclass(frozen=True)
class Method:
    """A preset or policy, or (`solver`) the uncached model under DPM++ 2M (2211.01095) with fewer steps."""

    name: str
    preset: Preset
    solver: bool = False

    def scheduler(self, own: Any) -> Any:
        """The scheduler to run with, made from the pipeline's own."""
        if not self.solver:
            return own
        from diffusers import DPMSolverMultistepScheduler

        return DPMSolverMultistepScheduler.from_config(
            own.config, algorithm_type="dpmsolver++", solver_order=2, timestep_spacing="linspace"
        )


def split_methods(text: str) -> list[str]:
    """`off,hgc:interval=3,cut=1,deepcache` as three: a field belongs to the policy before it."""
    found: list[str] = []
    for part in text.replace(";", ",").split(","):
        word = part.strip()
        field = "=" in word and ":" not in word and found
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
    if name != _SOLVER:
        return Method(text, resolve(text))
    values = parse_fields(_SOLVER, options, {"steps": 0})
    if values.get("steps", 0) < 1:
        raise PresetError("dpm++ needs steps=N, at least 1, as in dpm++:steps=8")
    return Method(text, resolve(f"fewer-steps:steps={values['steps']}"), solver=True)


def controls(methods: list[Method], graph: BlockGraph, num_inference_steps: int) -> list[Method]:
    """Beside every method that saves a tenth or more: as many plain steps as cost no less, of the model's
    own scheduler and of DPM++ 2M. Holding or extrapolating a whole prediction is what such solvers do,
    so that only these rows show what caching itself adds."""
    steps = set()
    for method in methods:
        share = _share(method, graph, num_inference_steps)
        if share <= 0.9 and method.preset.steps is None:
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
    if isinstance(plan, AdaptivePlan):
        plan = plan.extreme(fullest=True)
    spent = full_cost(graph, steps) if plan is None else cost(graph, plan)
    return spent.total / full_cost(graph, num_inference_steps).total
