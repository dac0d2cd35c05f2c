"""The bytes of steps and decodings that were tried before: shipped, or kept in the user's folder.

Loads torch and diffusers only where something has to be tried.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..models.configurations import Configurations
from ..models.graph_store import described, graph_of, plain_configuration
from ..models.kept_data import keep, read_own, read_shipped
from ..plan.graph import BlockGraph
from ..plan.liveness import kept, live, reads
from ..plan.memory.budget import Chunks
from ..plan.memory.windows import Windows
from ..plan.schedule import Plan, Schedule, StepPlan
from .predict_peak import RunScale

if TYPE_CHECKING:
    from .trial_step import TrialRuns

# Of runs that are planned to fit a memory without their models.
DTYPE, DTYPE_NBYTES = "float16", 2


class KeptNumbers:
    """What models take (see `Trials`): as kept for their configurations, or tried and then kept.

    Args:
        dtype, dtype_nbytes: of weights and latents; half precision where no model is loaded.
        device: where the run is made, as "cuda:1"; the CPU takes scratch memory beside.
        trials: makes what tries; without it copies are built from the configurations.
    """

    def __init__(
        self, models: Configurations, scale: RunScale, *, dtype: str = DTYPE,
        dtype_nbytes: int = DTYPE_NBYTES, device: str = "cuda", trials: Callable[[], TrialRuns] | None = None,
    ) -> None:  # fmt: skip
        self._models, self._scale = models, scale
        self._dtype, self._dtype_nbytes = dtype, dtype_nbytes
        self._make_trials = trials or self._from_configurations
        self.request = {
            "kind": "memory", **described(models), "vae": plain_configuration(models.vae),
            "height": scale.clip.height, "width": scale.clip.width, "num_tokens": scale.clip.num_tokens,
            "branches": scale.clip.branches, "factor": scale.factor, "dtype": dtype,
            **({"device": "cpu"} if device == "cpu" else {}),
        }  # fmt: skip
        self._numbers = _read(self.request)
        self._graphs: dict[int, BlockGraph] = {}

    @property
    def weights_nbytes(self) -> int:
        """Bytes of the weights of UNet, ControlNets and VAE."""
        return self._number("weights", lambda: self._trials.weights_nbytes)

    @property
    def latent_nbytes(self) -> int:
        """Bytes of a frame's latents."""
        return self._number("latents of a frame", lambda: self._trials.latent_nbytes)

    def graph(self, num_frames: int) -> BlockGraph:
        """The graph of so many frames."""
        if num_frames not in self._graphs:
            shape = replace(self._scale.clip, num_frames=num_frames)
            self._graphs[num_frames] = graph_of(self._models, shape, self._dtype_nbytes)
        return self._graphs[num_frames]

    def step_nbytes(self, plan: Plan, graph: BlockGraph, windows: Windows, chunks: Chunks) -> int:
        """Bytes at the peak of a plan's first step; see `TrialRuns.step_nbytes`."""
        name = (
            f"step: {windows.num_frames} frames in windows of {windows.length} sharing {windows.overlap}, "
            f"{'apart, ' if windows.apart else ''}"
            f"in {chunks.frames} frames and {chunks.positions} positions, plan {first_step(plan, graph)}"
        )
        return self._number(name, lambda: self._trials.step_nbytes(plan, graph, windows, chunks))

    def decode_nbytes(self, frames: int) -> int:
        """Bytes at the peak of decoding so many frames at once."""
        return self._number(f"decode: {frames} frames", lambda: self._trials.decode_nbytes(frames))

    def _number(self, name: str, found: Callable[[], int]) -> int:
        if name not in self._numbers:
            number = found()
            self._numbers = {**_read(self.request), **self._numbers, name: number}
            keep(self.request, self._numbers)
        return self._numbers[name]

    @cached_property
    def _trials(self) -> TrialRuns:
        return self._make_trials()

    def _from_configurations(self) -> TrialRuns:
        import torch

        from .trial_step import TrialRuns

        vae = self._models.build_vae()
        return TrialRuns(*self._models.build(), vae, self._scale, getattr(torch, self._dtype))


def first_step(plan: Plan, graph: BlockGraph) -> str:
    """A hash of all that the first step of a plan depends on: what it may do, what it keeps and what the
    second step reads. Plans that begin in the same way take the same bytes there."""
    bound = plan.upper_bound()
    told = {
        "stock": plan.is_stock, "adaptive": plan.is_adaptive and plan.name, "lossless": plan.lossless,
        "choices": [_plain(choice) for choice in plan.choices[0]],
        "keep": sorted(kept(graph, plan)[0].items()),
        "next": [
            sorted(reads(choice, live(graph, choice, lossless=plan.lossless)).items())
            for choices in plan.choices[1:2] for choice in choices
        ],
        "anchors": bound.anchors and bound.anchors.stride,
    }  # fmt: skip
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def _plain(step: StepPlan) -> dict[str, Any]:
    (told,) = Schedule("", (step,)).to_dict()["steps"]
    return {name: value for name, value in told.items() if name not in ("label", "reason")}


def _read(request: Mapping[str, Any]) -> dict[str, int]:
    """The numbers of a request, shipped ones before the user's own."""
    numbers: dict[str, int] = {}
    for kept_numbers in (read_own(request), read_shipped(request)):
        if isinstance(kept_numbers, dict):
            whole = {name: n for name, n in kept_numbers.items() if isinstance(n, int)}
            numbers |= whole
    return numbers
