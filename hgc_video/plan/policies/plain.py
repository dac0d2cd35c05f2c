"""The policies without a method: what the host computes, the same without repetitions, and a gate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...errors import PresetError
from ..exact import add_exact
from ..graph import BlockGraph
from ..keys import KeyPlan, load_key_plan
from ..schedule import Schedule, StepPlan


@dataclass(frozen=True)
class Full:
    """Everything at every step, through the engine: what the host itself computes, bit for bit."""

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        step = StepPlan(branches=graph.branches)
        return Schedule("full", (step,) * num_inference_steps, lossless=False)


@dataclass(frozen=True)
class Lossless:
    """Only the exact savings; `other+lossless` adds them to a published method."""

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        step = StepPlan(branches=graph.branches)
        plain = Schedule("lossless", (step,) * num_inference_steps)
        return add_exact(plain, graph)


@dataclass(frozen=True)
class Gate:
    """The prompt-free branch is dropped for good after the share `at` of the run, and nothing else
    (guidance intervals: Kynkäänniemi et al. 2404.07724)."""

    at: float = 0.4

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        if not 0 <= self.at <= 1:
            raise PresetError(f"gate: at must be in 0..1, got {self.at}")
        share = self.at if graph.branches == 2 else 1.0  # PAG's third branch cannot be spared
        gate = round(share * num_inference_steps)
        both, one = StepPlan(branches=graph.branches), StepPlan(branches=1, label="gated")
        steps = tuple(both if i < gate else one for i in range(num_inference_steps))
        return Schedule("gate", steps, lossless=False)


@dataclass(frozen=True)
class Learned:
    """The schedule of gates that `hgc-video learn` wrote to `file`, after Learning-to-Cache."""

    file: str = ""

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run; PresetError where it was learned for another number of steps."""
        if not self.file:
            raise PresetError("learned needs file=FILE, a schedule that hgc-video learn wrote")
        try:
            schedule = Schedule.from_yaml(Path(self.file).expanduser().read_text())
        except OSError as error:
            raise PresetError(f'schedule "{self.file}" cannot be read: {error.strerror}') from error
        if len(schedule) != num_inference_steps:
            raise PresetError(
                f"the gates were learned for {len(schedule)} steps and this run has {num_inference_steps}; "
                "learn them for that many"
            )
        return schedule


@dataclass(frozen=True)
class Searched:
    """A schedule that `hgc-video search` wrote to `file`."""

    file: str = ""

    def __call__(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The schedule of a run."""
        return self.plan(graph, num_inference_steps)

    @cached_property
    def plan(self) -> KeyPlan:
        """What the file says, read when it is first needed."""
        if not self.file:
            raise PresetError("searched needs file=FILE, a schedule that hgc-video search wrote")
        return load_key_plan(Path(self.file))
