"""The one dial: off, lossless, quality, balanced, fast, turbo; and policies by name with fields.

`resolve("balanced")`, `resolve("hgc:balanced")`, `resolve("hgc:interval=3,cut=1")`,
`resolve("deepcache:interval=3+gate:at=0.4+lossless")`, `resolve("fewer-steps:steps=13")`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..errors import PresetError, nearest
from .adaptive import AdaptivePlan
from .check import check
from .compose import compose
from .exact import add_exact, silence
from .graph import BlockGraph
from .policies.plain import Lossless, Searched
from .registry import POLICIES, Fill, make_policy, parse_fields
from .schedule import Schedule
from .shipped import shipped_schedule

SEARCHED = ("quality", "balanced", "fast", "turbo")  # whose schedules are data in configs/
# The dial's positions, each the result of a search on the embedded model kept as data; on other models
# and for other numbers of steps the same word is carried over by rule. Figures are in the README.
PRESETS: dict[str, Fill | None] = {
    "off": None,
    "lossless": Lossless(),
    **{name: Searched(str(shipped_schedule(name))) for name in SEARCHED},
}
_FEWER = "fewer-steps"


@dataclass(frozen=True)
class Preset:
    """A chosen position of the dial or one or several policies; without any, nothing is wrapped."""

    name: str
    fills: tuple[Fill, ...] = ()
    steps: int | None = None

    def num_steps(self, asked: int) -> int:
        """The steps to run where `asked` are asked for: fewer-steps has its own number, and a searched
        schedule may run more, cheaper ones of a run that is not short already."""
        if self.steps is not None:
            return self.steps
        searched = next((fill for fill in self.fills if isinstance(fill, Searched)), None)
        return asked if searched is None else searched.plan.num_steps(asked)

    def schedule(
        self,
        graph: BlockGraph,
        num_inference_steps: int,
        silent: Mapping[int, Collection[str]] | None = None,
    ) -> Schedule | AdaptivePlan | None:
        """The checked plan for this graph and length; None where nothing is wrapped at all.

        `silent` names the ControlNets that add nothing, by step.
        """
        plans = [fill(graph, num_inference_steps) for fill in self.fills]
        if not plans:
            return None
        for fill, plan in zip(self.fills, plans, strict=True):
            _check_kind(fill, plan)
        if any(isinstance(plan, AdaptivePlan) for plan in plans):
            if len(plans) > 1:
                raise PresetError(f"{self.name}: a policy that decides at run time stands alone")
            plan = plans[0]
            assert isinstance(plan, AdaptivePlan)
            return plan.silence(silent or {}).check(graph)
        made = compose(plans)  # type: ignore[arg-type]
        made = silence(made, silent or {})
        return check(add_exact(made, graph) if made.lossless else made, graph)


def _check_kind(fill: Fill, plan: object) -> None:
    if not isinstance(plan, Schedule | AdaptivePlan):
        name = getattr(fill, "__name__", type(fill).__name__)
        raise PresetError(
            f"the policy {name} gave {type(plan).__name__} for a graph and a number of steps; a policy "
            "gives a Schedule or an AdaptivePlan"
        )


def resolve(text: str, model: str = "") -> Preset:
    """The preset or policies that `text` names, with the schedules of a model that is known by name;
    PresetError names the nearest one."""
    parts = [part.strip() for part in text.split("+")]
    steps = [_fewer(part) for part in parts if part.partition(":")[0] == _FEWER]
    found = [_one(part, model) for part in parts if part.partition(":")[0] != _FEWER]
    return Preset(
        text.strip(), tuple(f for f in found if f is not None), steps=steps[-1] if steps else None
    )


def _one(text: str, model: str) -> Fill | None:
    name, _, options = text.partition(":")
    if name == "hgc" and options in PRESETS:
        name, options = options, ""
    if name in PRESETS:
        if options:
            raise PresetError(
                f'"{name}" takes no fields, got "{options}"; fields belong to policies'
            )
        return Searched(str(shipped_schedule(name, model))) if name in SEARCHED else PRESETS[name]
    if name not in POLICIES:
        raise PresetError(
            f'unknown preset "{text}": {nearest(name, [*PRESETS, *POLICIES, _FEWER])}'
        )
    return make_policy(text)


def _fewer(text: str) -> int:
    values = parse_fields(_FEWER, text.partition(":")[2], {"steps": 0})
    if values.get("steps", 0) < 1:
        raise PresetError("fewer-steps needs steps=N, at least 1, as in fewer-steps:steps=13")
    return int(values["steps"])
