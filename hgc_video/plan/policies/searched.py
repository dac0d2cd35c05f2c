"""A schedule as step codes: one letter a step, a gate, and how far what is reused is extrapolated.

What a search varies and writes down. `CodedSchedule` fills in a schedule for a graph as every policy does;
which codes are good is the search's business (plan/search).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from ...errors import InputError, PlanError, one_line
from ...files import write_text
from ..coefficients import Coefficients, linear
from ..graph import BlockGraph
from ..plain_yaml import read_plain
from ..resample import history, nearest_steps, resampled_actions, resampled_coefficients
from ..schedule import Schedule, StepPlan
from ..step_codes import FULL, NO_CONTROLNET, SKIP, WHOLE_DEPTH, depth, is_key, label, meaning
from .base import SchedulePolicy
from .lossless import add_lossless


class Searched(SchedulePolicy):
    """A schedule that `hgc-video search` found and wrote to a file; the presets are such files."""

    spelling: ClassVar[str] = "searched"
    source: ClassVar[str] = "this package"

    file: str = Field(min_length=1, description="what hgc-video search wrote")

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        return self.plan(graph, num_inference_steps)

    def num_steps(self, asked: int) -> int:
        """The steps to run; see CodedSchedule.num_steps."""
        return self.plan.num_steps(asked)

    @cached_property
    def plan(self) -> CodedSchedule:
        """What the file says, read when it is first needed."""
        return load_coded_schedule(Path(self.file))


@dataclass(frozen=True)
class CodedSchedule:
    """The step codes of a run.

    actions: a letter a step. F computes everything; T the UNet, with the ControlNet's stored residuals;
        1 to 9 the last so many layers of the up path, the rest from the store; H nothing, the whole
        prediction comes from the store.
    gate: the first step of one branch; the number of steps, or more, keeps both branches to the end.
        Cross-attention is computed all the same: fusing it saves 1 % and keeps a gigabyte at full size.
    extrapolation: per step the extrapolation weight, the share of the last change that is added to what is
        reused: 0 holds, 1 is linear extrapolation (TaylorSeer order 1, 2503.06923), 0.5 is HiCache's
        (2508.16984).
    step_ratio: steps to run for every step asked for; more, cheaper steps can lie closer to the
        converged result than fewer full ones.
    online: how far what is reused is extrapolated is measured at run time, by how far the latents have
        come, instead of counted in steps; steps of a noisy or another scheduler are not alike.
    metadata: where the codes come from, for the reader of the file.
    coefficients: per step those of the last kept values, the newest first, in place of its extrapolation;
        none for a step that has none of its own.
    """

    actions: str
    gate: int
    extrapolation: tuple[float, ...]
    step_ratio: float = 1.0
    name: str = "searched"
    online: bool = False
    metadata: dict[str, Any] = field(default_factory=dict, compare=False)
    coefficients: tuple[Coefficients, ...] = ()

    def __post_init__(self) -> None:
        wrong = set(self.actions) - set("FTH123456789")
        if wrong or not self.actions.startswith(FULL):
            raise PlanError(
                f'"{self.actions}" is no plan: it begins with F and has only F, T, H and 1 to 9'
            )
        if len(self.extrapolation) != len(self.actions):
            raise PlanError(
                f"{len(self.extrapolation)} weights for {len(self.actions)} steps; give one a step"
            )
        self._check_coefficients()
        if self.gate < 1:
            raise PlanError(f"gate={self.gate} is not possible; the first step has both branches")

    def _check_coefficients(self) -> None:
        if self.coefficients and len(self.coefficients) != len(self.actions):
            raise PlanError(
                f"coefficients for {len(self.coefficients)} of {len(self.actions)} steps; give a list a step"
            )
        for index, values in enumerate(self.coefficients):
            if values and is_key(self.actions[index]):
                raise PlanError(
                    f"step {index} has coefficients and its code is {self.actions[index]}; only steps of "
                    "the codes H and 1 to 9 can have them"
                )
        if self.online and any(self.coefficients):
            raise PlanError("an online plan has no coefficients; give it extrapolation")

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run of any length; of another length than its own, by rule."""
        plan = self.resampled(num_inference_steps)
        deepest = max((depth(a) for a in plan.actions if depth(a) < WHOLE_DEPTH), default=0)
        if deepest > len(graph.depths):
            raise PlanError(
                f"the plan computes {deepest} layers of the up path; this model has {len(graph.depths)}"
            )
        steps = [plan._step(graph, i) for i in range(num_inference_steps)]
        return add_lossless(Schedule(self.name, tuple(steps)), graph)

    def resampled(self, num_inference_steps: int) -> CodedSchedule:
        """The same codes for a run of another length, by the rules of `resample`."""
        count, steps = len(self.actions), num_inference_steps
        if steps == count:
            return self
        actions = resampled_actions(self.actions, steps)
        return replace(
            self,
            actions=actions,
            gate=steps + 1 if self.gate >= count else max(1, round(self.gate * steps / count)),
            extrapolation=tuple(self.extrapolation[n] for n in nearest_steps(count, steps)),
            coefficients=resampled_coefficients(self.coefficients, self.actions, actions),
        )

    def num_steps(self, asked: int) -> int:
        """The steps to run where so many are asked for: a plan may run more, cheaper ones of a run that is
        not short already."""
        return asked if asked < _FEW_STEPS else max(1, round(asked * self.step_ratio))

    def history(self, index: int) -> list[int]:
        """The steps before `index` that made what the step reuses, oldest first."""
        return history(self.actions, index)

    def slope(self, index: int) -> float:
        """What the last change of a reused value is multiplied with at a step."""
        past = self.history(index)
        if is_key(self.actions[index]) or len(past) < 2:
            return 0.0
        ahead = 1.0 if self.online else (index - past[-1]) / (past[-1] - past[-2])
        return round(self.extrapolation[index] * ahead, 6)

    def _step(self, graph: BlockGraph, index: int) -> StepPlan:
        action = self.actions[index]
        gated = graph.branches == 2 and index >= self.gate  # PAG's third branch cannot be spared
        reuse = self._reused(graph, action)
        own = self.coefficients[index] if self.coefficients else ()
        slope = 0.0 if own else self.slope(index)
        older, newer = self.history(index)[-2:] if slope else (0, 0)
        return StepPlan(
            reuse,
            branches=1 if gated else graph.branches,
            extrapolate=reuse if own or slope else frozenset(),
            coefficients=own or linear(slope),
            latent_progress=(older, newer) if slope and self.online else None,
            label=label(action) + (" gated" if gated else ""),
            reason=self._reason(index, own, slope, gated),
        )

    def _reason(self, index: int, own: Coefficients, slope: float, gated: bool) -> str:
        action = self.actions[index]
        clauses = [f"{self.name}: code {action}, {meaning(action)}"]
        if own:
            past = zip(own, self.history(index)[::-1], strict=False)
            clauses.append("from " + ", ".join(f"{a:+.3g} of step {j}" for a, j in past))
        if slope:
            older, newer = self.history(index)[-2:]
            clauses.append(f"extrapolated from steps {older} and {newer} with weight {slope:g}")
        if gated:
            clauses.append(f"one branch after the gate at step {self.gate}")
        return ", ".join(clauses)

    @staticmethod
    def _reused(graph: BlockGraph, action: str) -> frozenset[str]:
        if action == FULL:
            return frozenset()
        if action == NO_CONTROLNET:
            return frozenset(graph.residuals())
        return frozenset({graph.output if action == SKIP else graph.depths[depth(action) - 1]})

    def save(self, path: Path) -> None:
        """Writes the YAML file that `load_coded_schedule` reads."""
        data = {
            "name": self.name, "actions": self.actions, "gate": self.gate, "step_ratio": self.step_ratio,
            "extrapolation": [round(d, 3) for d in self.extrapolation], "online": self.online,
        }  # fmt: skip
        if self.coefficients:
            data["coefficients"] = [list(values) for values in self.coefficients]
        data |= self.metadata
        write_text(path, yaml.safe_dump(data, sort_keys=False, width=100, default_flow_style=None))


_FEW_STEPS = 20  # of fewer, no plan makes more: there is nothing to save that would pay for them


_OLD_NAMES = {"damping": "extrapolation", "stretch": "step_ratio"}  # of files written before 0.2


def load_coded_schedule(path: Path) -> CodedSchedule:
    """The schedule in a file; PlanError says why it cannot be used."""
    try:
        data = read_plain(path)
        if not isinstance(data, dict):
            raise PlanError("it holds no fields")
        data = {_OLD_NAMES.get(str(name), str(name)): value for name, value in data.items()}
        own = {name: data.pop(name) for name in CodedSchedule.__dataclass_fields__ if name in data}
        return _adapter().validate_python({**own, "metadata": data})
    except ValidationError as error:
        said = one_line(error, "a schedule", CodedSchedule.__dataclass_fields__)
    except (InputError, PlanError) as error:
        said = str(error)
    raise PlanError(
        f'schedule "{path}" cannot be used: {said}; write one with hgc-video search'
    ) from None


@cache
def _adapter() -> TypeAdapter[CodedSchedule]:
    return TypeAdapter(CodedSchedule)
