"""The presets off, lossless, quality, balanced, fast, turbo; and policies by name with fields.

`resolve("balanced")`, `resolve("hgc:interval=3,depth=1")`, `resolve("deepcache:interval=3+gate:at=0.4")`,
`resolve("fewer-steps:steps=13")`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ..errors import PresetError, nearest
from ..files import shipped_schedule
from .compose import compose
from .graph import BlockGraph
from .policies.base import Policy
from .policies.fewer_steps import FewerSteps
from .policies.full import Off
from .policies.lossless import add_lossless
from .policies.registry import POLICIES, make_policy
from .policies.searched import Searched
from .schedule import Plan, Schedule
from .validate import check

SEARCHED = ("quality", "balanced", "fast", "turbo")  # whose schedules are data in configs/
# Each searched preset is the result of a search on the embedded model; on other models and for other
# numbers of steps the same step codes are carried over by rule. Figures are in configs/results.
PRESETS = ("off", "lossless", *SEARCHED)


# A policy, or any function of a user's own that makes a plan for a graph and a number of steps.
MakesPlan = Callable[[BlockGraph, int], Plan]


@dataclass(frozen=True)
class Preset:
    """A chosen preset, or one or several policies."""

    name: str
    policies: tuple[MakesPlan, ...]

    def __post_init__(self) -> None:
        for policy in self.policies:
            if isinstance(policy, type):
                name = policy.__name__
                raise PresetError(f"{name} is a class; give a policy object, {name}(...)")
        if len(self.policies) > 1 and any(isinstance(p, Off) for p in self.policies):
            raise PresetError(f'"off" stands alone, got "{self.name}"')

    @property
    def caches(self) -> bool:
        """Whether anything is reused at all; without, the stock models run, maybe for fewer steps."""
        return not all(isinstance(policy, Off | FewerSteps) for policy in self.policies)

    def num_steps(self, asked: int) -> int:
        """The steps to run where `asked` are asked for: fewer-steps has its own number, and a searched
        schedule may run more, cheaper ones of a run that is not short already."""
        own = [policy for policy in self.policies if isinstance(policy, Policy)]
        chosen = (policy.num_steps(asked) for policy in reversed(own))
        return next((steps for steps in chosen if steps != asked), asked)

    def schedule(
        self,
        graph: BlockGraph,
        num_inference_steps: int,
        inactive: Mapping[int, Collection[str]] | None = None,
    ) -> Plan:
        """The checked plan for this graph and length.

        `inactive` names the ControlNets that add nothing, by step.
        """
        plans = [policy(graph, num_inference_steps) for policy in self.policies]
        for policy, plan in zip(self.policies, plans, strict=True):
            _check_kind(policy, plan)
        caching = [plan for plan in plans if not plan.is_stock]
        if not caching:
            return plans[0]
        if len(caching) == 1 and caching[0].is_adaptive:
            return check(caching[0].with_inactive(inactive or {}), graph)
        fixed = [plan for plan in caching if isinstance(plan, Schedule)]
        if len(fixed) != len(caching):
            raise PresetError(f"{self.name}: a policy that decides at run time stands alone")
        made = compose(fixed).with_inactive(inactive or {})
        return check(add_lossless(made, graph) if made.lossless else made, graph)


def _check_kind(policy: MakesPlan, plan: object) -> None:
    if not isinstance(plan, Plan):
        name = getattr(policy, "__name__", type(policy).__name__)
        raise PresetError(
            f"the policy {name} gave {type(plan).__name__} for a graph and a number of steps; a policy "
            "gives a Schedule or an AdaptivePlan"
        )


def resolve(text: str, model: str = "") -> Preset:
    """The preset or policies that `text` names, with the schedules of a model that is known by name;
    PresetError names the nearest one."""
    parts = [part.strip() for part in text.split("+")]
    return Preset(text.strip(), tuple(_one(part, model) for part in parts))


def _one(text: str, model: str) -> Policy:
    name, _, options = text.partition(":")
    if name == "hgc" and options in PRESETS:  # "hgc:balanced", an older spelling of "balanced"
        name, options = options, ""
    if name in SEARCHED:
        if options:
            raise PresetError(
                f'"{name}" takes no fields, got "{options}"; fields belong to policies'
            )
        return Searched(file=str(shipped_schedule(name, model)))
    if name not in POLICIES:
        raise PresetError(f'unknown preset "{text}": {nearest(name, [*SEARCHED, *POLICIES])}')
    return make_policy(f"{name}:{options}")
