"""The whole of a planned run: schedule, windows and memory together, printable and as data."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from ..errors import MissingExtraError
from .adaptive import AdaptivePlan
from .checkpoints import CheckpointPlan
from .cost import Cost, cost, full_cost
from .devices import DevicePlan
from .explain import StepExplanation, StepSummary, explain, summaries, tera
from .graph import BlockGraph
from .memory.budget import MemoryPlan
from .memory.placement import DEVICE, carried_out, macs_of, moves_of
from .memory.windows import Windows, padded, windowed
from .presets import Preset
from .schedule import Plan


def plan_run(
    preset: Preset, graph: BlockGraph, windows: Windows, *, evaluations: int, asked: int,
    memory_plan: MemoryPlan | None = None, inactive: Mapping[int, Collection[str]] | None = None,
) -> RunPlan:  # fmt: skip
    """The plan of a run of `evaluations` evaluations of the models, of which `asked` were asked for.

    `graph` is that of one window; `inactive` names the ControlNets that add nothing, by step.
    """
    place = DEVICE if memory_plan is None else memory_plan.chunks.idle
    plan = carried_out(preset.schedule(graph, evaluations, inactive), place)
    moves = moves_of(plan, graph, windows)
    return RunPlan(
        preset.name, plan, graph, full_cost(graph, asked), windows.under(plan), memory_plan, moves
    )


@dataclass(frozen=True)
class RunPlan:
    """A planned run, before it is carried out: `hgc_video.forecast.forecast` makes one from configuration
    files alone, `generate` one from the loaded models and carries it out.

    `spent` and `baseline` are the cost of one window of the clip with and without the cache, the MACs are
    those of all windows; `memory_plan` is how the clip fits a memory budget; `moves` says at which steps
    the windows are shifted; `checkpoints` after which of them the run would be kept, and `devices` what it
    takes over several devices, where that was asked.
    """

    preset: str
    plan: Plan
    graph: BlockGraph
    baseline: Cost
    windows: Windows
    memory_plan: MemoryPlan | None = None
    moves: tuple[bool, ...] = ()
    checkpoints: CheckpointPlan | None = None
    devices: DevicePlan | None = None

    @cached_property
    def spent(self) -> Cost:
        """What one window costs; of an adaptive plan, the most that it can."""
        return cost(self.graph, self.plan)

    @property
    def steps(self) -> tuple[StepSummary, ...]:
        """A row of figures for every step of one window."""
        return summaries(self.graph, self.plan)

    def explain(self, step: int) -> StepExplanation:
        """What is computed, reused, skipped and stored at a step, and why; PlanError where there is none."""
        return explain(self.graph, self.plan, step)

    @property
    def macs_by_part(self) -> dict[str, int]:
        """MACs of UNet and ControlNet over all windows, on all devices."""
        macs = macs_of(self.plan, self.spent, self.graph, self.windows, self.moves)
        if self.devices is not None:
            macs["controlnet"] += self.devices.again_macs
        return macs

    @property
    def macs_baseline_by_part(self) -> dict[str, int]:
        """The same without the cache."""
        windows = replace(self.windows, apart=False)
        return windowed(self.baseline, windows, padded(self.moves, len(self.baseline.macs)))

    @property
    def macs_least(self) -> int:
        """MACs over all windows of the run that costs least; of a fixed plan, of the only one there is."""
        if not isinstance(self.plan, AdaptivePlan):
            return sum(self.macs_by_part.values())
        bound = self.plan.lower_bound()
        least = cost(self.graph, bound)
        return sum(macs_of(bound, least, self.graph, self.windows, self.moves).values())

    @property
    def computed_steps(self) -> tuple[int, int] | None:
        """The fewest and the most steps that may be computed; None where the plan is fixed."""
        return self.plan.num_computed() if isinstance(self.plan, AdaptivePlan) else None

    @property
    def macs_saved(self) -> float:
        """The share of the baseline that would not be executed, 0..1."""
        return 1 - sum(self.macs_by_part.values()) / sum(self.macs_baseline_by_part.values())

    def to_json(self) -> str:
        """The figures under the names that a report uses."""
        fields = {
            "preset": self.preset,
            "macs": sum(self.macs_by_part.values()),
            "macs_baseline": sum(self.macs_baseline_by_part.values()),
            "macs_saved": self.macs_saved,
            "macs_least": self.macs_least,
            "computed_steps": self.computed_steps,
            "macs_by_part": self.macs_by_part,
            "macs_baseline_by_part": self.macs_baseline_by_part,
            "cache_peak_nbytes": self.spent.peak_nbytes,
            "schedule": self.plan.upper_bound().to_dict(),
            "steps": [asdict(step) for step in self.steps],
        }
        if self.memory_plan is not None:
            fields |= {
                "memory": str(self.memory_plan),
                "predicted_peak_nbytes": self.memory_plan.peak.nbytes,
            }
            fields |= self.memory_plan.to_dict()
        if self.checkpoints is not None:
            fields["checkpoints"] = self.checkpoints.to_dict()
        if self.devices is not None:
            fields["devices"] = self.devices.to_dict()
        return json.dumps(fields, indent=2)

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Writes the chart of steps by layers as .png or .svg, whose steps give their reason on hover, and
        gives back its path. InputError for another file, MissingExtraError without matplotlib."""
        from .chart import save_chart  # loads matplotlib

        return save_chart(self, path)

    def _repr_svg_(self) -> str | None:
        """The chart, in a notebook where matplotlib is installed."""
        from .chart import chart

        try:
            return chart(self).decode()
        except MissingExtraError:
            return None

    def _memory_lines(self) -> list[str]:
        if self.memory_plan is None:
            return []
        rest = (f"       {line}" for line in self.memory_plan.explain())
        return [f"memory {self.memory_plan}", *rest]

    def _range_lines(self) -> list[str]:
        if self.computed_steps is None:
            return []
        least, most = self.computed_steps
        saved = 1 - self.macs_least / sum(self.macs_baseline_by_part.values())
        return [
            f"range  {least} to {most} of {len(self.plan)} steps are computed, as measured in the run; the "
            f"above is the most, the least is {tera(self.macs_least)} T: {100 * saved:.1f} % saved"
        ]

    def __str__(self) -> str:
        spent, baseline = self.macs_by_part, self.macs_baseline_by_part
        parts = ", ".join(
            f"{part} {tera(macs)} of {tera(baseline[part])}" for part, macs in spent.items()
        )
        return "\n".join([
            *map(str, self.steps),
            f"MACs   {tera(sum(spent.values()))} of {tera(sum(baseline.values()))} T: "
            f"{100 * self.macs_saved:.1f} % saved ({parts})",
            *self._range_lines(),
            f"cache  {self.spent.peak_nbytes / 2**20:.1f} MiB at most for a window",
            *self._memory_lines(),
            *([] if self.checkpoints is None else [f"kept   {self.checkpoints}"]),
            *([] if self.devices is None else [f"devices {self.devices}"]),
        ])  # fmt: skip
