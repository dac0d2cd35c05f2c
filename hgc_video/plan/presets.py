"""The presets off, lossless, quality, balanced, fast, turbo; and policies by name with fields.

`resolve("balanced")`, `resolve("hgc:interval=3,depth=1")`, `resolve("deepcache:interval=3+gate:at=0.4")`,
`resolve("fewer-steps:steps=13")`, `resolve("quality=45dB")`, `resolve("balanced+net")`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import PresetError, nearest
from ..files import shipped_schedule, user_path
from .adaptive import AdaptivePlan
from .compose import compose, compose_choices
from .graph import BlockGraph
from .policies.base import Policy
from .policies.fewer_steps import FewerSteps
from .policies.full import Off
from .policies.guard import Guard
from .policies.lossless import add_lossless, add_lossless_to_choices
from .policies.net import Net
from .policies.registry import POLICIES, make_policy
from .policies.searched import Searched
from .quality_map import shipped_map
from .schedule import Plan, Schedule
from .validate import check

SEARCHED = ("quality", "balanced", "fast", "turbo")  # whose schedules are data in configs/
# Each searched preset is the result of a search on the embedded model; on other models and for other
# numbers of steps the same step codes are carried over by rule. Figures are in configs/results.
PRESETS = ("off", "lossless", *SEARCHED)
# Files that policies read, in a text: searched:file=schedule.yaml, fitted:calibration=puppet.yaml.
POLICY_FILE = re.compile(r"(?:(?<=\bfile=)|(?<=\bcalibration=))[^,+]+")


def policy_files(preset: Any) -> dict[str, str]:
    """The files that a policy string names, as "preset.0", "preset.1" ...; of another preset none."""
    found = POLICY_FILE.findall(preset) if isinstance(preset, str) else []
    return {f"preset.{number}": path for number, path in enumerate(found)}


def policy_files_here(preset: Any) -> dict[str, Path]:
    """Those of `policy_files` that are there."""
    found = {name: user_path(path) for name, path in policy_files(preset).items()}
    return {name: path for name, path in found.items() if path.is_file()}


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

    def for_sampler(self, net: bool | None = None, *, adds_noise: bool) -> Preset:
        """The preset for samplers of a kind: `guard` knows whether they add noise at their steps, and there
        is a net (`policies.net`) under it where one is asked for; None puts one under the presets that were
        searched where the sampler adds noise.

        Where it does, everything is computed until forecasts are seen to be good.
        """
        policies = tuple(
            policy.model_copy(update={"noisy": adds_noise}) if isinstance(policy, Guard) else policy
            for policy in self.policies
        )
        preset = self if policies == self.policies else replace(self, policies=policies)
        if net is False or not self.caches or any(isinstance(p, Net) for p in self.policies):
            return preset
        searched = all(isinstance(policy, Searched) for policy in self.policies)
        if net is None and not (searched and adds_noise):
            return preset
        return Preset(f"{self.name}+net", (*policies, Net(closed=adds_noise)))

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
        nets = [policy for policy in self.policies if isinstance(policy, Net)]
        others = [policy for policy in self.policies if not isinstance(policy, Net)]
        if not others:  # a net under nothing
            return check(nets[0](graph, num_inference_steps).with_inactive(inactive or {}), graph)
        plans = [policy(graph, num_inference_steps) for policy in others]
        for policy, plan in zip(others, plans, strict=True):
            _check_kind(policy, plan)
        caching = [plan for plan in plans if not plan.is_stock]
        if not caching:
            return plans[0]
        adaptive = [plan for plan in caching if isinstance(plan, AdaptivePlan)]
        fixed = [plan for plan in caching if isinstance(plan, Schedule)]
        if adaptive and nets:
            raise PresetError(
                f"{self.name}: {adaptive[0].name} decides at run time already; leave the net out"
            )
        if adaptive:
            return check(
                self._adaptive(adaptive, fixed, graph).with_inactive(inactive or {}), graph
            )
        made = compose(fixed).with_inactive(inactive or {})
        made = add_lossless(made, graph) if made.lossless else made
        return check(nets[0].under(made, graph) if nets else made, graph)

    def _adaptive(
        self, adaptive: list[AdaptivePlan], fixed: list[Schedule], graph: BlockGraph
    ) -> AdaptivePlan:
        """A policy that decides at run time, with what fixed ones do at every step."""
        if len(adaptive) > 1:
            names = " and ".join(plan.name for plan in adaptive)
            raise PresetError(f"{self.name}: {names} both decide at run time; give one of them")
        plan = compose_choices(adaptive[0], fixed) if fixed else adaptive[0]
        if fixed and plan.lossless:
            return replace(plan, alternatives=add_lossless_to_choices(plan.alternatives, graph))
        return plan


def _check_kind(policy: MakesPlan, plan: object) -> None:
    if not isinstance(plan, Schedule | AdaptivePlan):
        name = getattr(policy, "__name__", type(policy).__name__)
        raise PresetError(
            f"the policy {name} gave {type(plan).__name__} for a graph and a number of steps; a policy "
            "gives a Schedule or an AdaptivePlan"
        )


_QUALITY = re.compile(r"quality=([0-9]+\.?[0-9]*|\.[0-9]+) ?dB", re.IGNORECASE)


def asks_quality(text: str) -> bool:
    """Whether a word asks for a PSNR to the uncached clip, as "quality=45dB"."""
    return text.replace(" ", "").lower().startswith("quality=")


def _of_quality(text: str) -> Guard:
    asked = _QUALITY.fullmatch(text)
    if asked is None:
        raise PresetError(
            f'"{text}" is no quality; write quality=45dB, the PSNR to the uncached clip'
        )
    psnr_db = float(asked[1])
    shipped_map().tolerance_of(psnr_db)  # refuses what is beyond it
    return Guard(psnr_db=psnr_db)


def resolve(text: str, model: str = "") -> Preset:
    """The preset or policies that `text` names, with the schedules of a model that is known by name;
    PresetError names the nearest one."""
    parts = [part.strip() for part in text.split("+")]
    return Preset(text.strip(), tuple(_one(part, model) for part in parts))


def _one(text: str, model: str) -> Policy:
    if asks_quality(text):
        return _of_quality(text)
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
