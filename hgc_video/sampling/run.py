"""One run of a loaded pipeline: plan, encode, denoise under the plan, decode, report.

Knows the stock pipeline and the engine; not where models, clips or options come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from ..cache.engine import Engine, attach
from ..cache.finite import FiniteLatents
from ..cache.residual_inputs import residual_inputs
from ..cache.split import split
from ..files import without_home
from ..measure.device_speed import rates_of
from ..measure.peak_memory import PeakMemory
from ..media.control import ControlClip
from ..media.frames import Frames
from ..models.loaded_graph import loaded_graph
from ..options import GenerateOptions
from ..plan.clip_shape import ClipShape
from ..plan.devices import plan_devices
from ..plan.explain import StepSummary, summaries
from ..plan.graph import BlockGraph
from ..plan.memory.budget import MemoryPlan
from ..plan.memory.windows import Windows
from ..plan.presets import Preset
from ..plan.run_plan import plan_run
from ..plan.schedule import Schedule
from ..report import Report, Stopwatch
from .conditioning import Conditioning, in_control_window
from .exchange import Share
from .input_files import InputFiles
from .loop import ControlledUNet, denoise
from .other_process import Account
from .run_state import Keeper, KeepNothing, Offers, RunState
from .stock_pipeline import RunInputs, adapter_of
from .versions import versions


class _AsTensor:
    """Control frames as tensors (n 3 H W) uint8 on the host; only those asked for are read."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames

    def __getitem__(self, frames: slice) -> Tensor:
        return rearrange(torch.from_numpy(np.array(self._frames[frames])), "f h w c -> f c h w")


@dataclass(frozen=True)
class Beside:
    """What a run may have beside its control clips: the image that it begins with, the video that it
    restyles, the picture that it is to look like (H W 3)."""

    image: NDArray[np.uint8] | None = None
    source: ControlClip | None = None
    picture: NDArray[np.uint8] | None = None


class Run:
    """Makes the frames that the options ask for and the report of what that took."""

    def __init__(
        self, options: GenerateOptions, preset: Preset, controls: Sequence[ControlClip], pipe: Any,
        clock: Stopwatch, memory_plan: MemoryPlan, overlap: int, beside: Beside | None = None,
        files: InputFiles | None = None,
    ) -> None:  # fmt: skip
        self.files = files or InputFiles()
        self.options, self.preset = options, preset
        self.guidance_scale = float(options.guidance_scale or 0)
        self.controls, self.pipe, self.clock = controls, pipe, clock
        self.asked_steps = options.num_inference_steps or 0
        self.num_inference_steps = preset.num_steps(self.asked_steps)
        self.beside = beside or Beside()
        self.lead = self.beside.source or controls[0]
        self.num_frames, self.height, self.width = self.lead.shape
        self.device, self.adapter = str(pipe.unet.device), adapter_of(pipe, options)
        self.memory_plan = memory_plan
        self.windows = Windows(
            self.num_frames,
            memory_plan.context,
            min(overlap, memory_plan.context - 1),
            self.lead.cuts,
        )
        # A scheduler of second order evaluates the models twice in most steps.
        self.num_evaluations = len(self.adapter.timesteps(self.num_inference_steps))
        with clock("plan"):
            self.graph = self._graph()
            self.planned = plan_run(
                preset, self.graph, self.windows, evaluations=self.num_evaluations,
                asked=self._asked_evaluations(), memory_plan=memory_plan, inactive=self._inactive(),
            )  # fmt: skip
            if options.devices > 1:
                rates = rates_of(self.device, pipe.unet.dtype)
                devices = plan_devices(self.planned, options.devices, rates)
                self.planned = replace(self.planned, devices=devices)
        self.schedule, self.windows = self.planned.plan, self.planned.windows
        self.engine: Engine | None = None
        self.resumed_at = 0  # steps that another process had made
        self.sent_nbytes = 0  # to the other processes that make the clip too
        self.others: list[Account] = []  # what those did
        self.memory = PeakMemory(self.device)

    def latents(
        self, on_step: Callable[[int, Tensor], None], keeper: Keeper | None = None,
        share: Share | None = None,
    ) -> Tensor:  # fmt: skip
        """The clip's final latents, (1 c f h w) or (1 f c h w) as the pipeline has them; goes on from what
        the keeper has, and offers it what to go on from later.

        `on_step` is called with every step that is made; where it raises Cancelled, the keeper is asked. With
        a `share` other processes compute some of the windows, and process 0 has the latents of all.
        """
        keeper = keeper or KeepNothing()
        finite = FiniteLatents(self.num_evaluations, self._done_at)
        offers = Offers(keeper, on_step, finite)
        with self.memory, torch.no_grad():
            with self.clock("encode"):
                guidance, noise, timesteps, options = self.encode()
                start = [noise]
                del noise  # the loop alone holds it, until its first step
            with self.clock("denoise"), ExitStack() as stack:
                unet, controlnet = self.pipe.unet, self.pipe.controlnet
                models = {"graph": self.graph, "unet": unet, "controlnet": controlnet}
                stack.enter_context(residual_inputs(unet))
                if self.memory_plan.chunks.split:
                    stack.enter_context(split(self.memory_plan.chunks, **models))
                if not self.schedule.is_stock:
                    attached = attach(
                        self.schedule, **models, spill=self.memory_plan.chunks.spill,
                        scheduler=self.pipe.scheduler, guidance_scale=self.guidance_scale,
                    )  # fmt: skip
                    self.engine = stack.enter_context(attached)
                steered = ControlledUNet(
                    unet, controlnet, guidance, len(timesteps), windows=self.windows,
                    moves=self.planned.moves, listeners=[self.engine] if self.engine else [],
                    on_window=offers.window, share=share,
                )  # fmt: skip
                offers.state = state = RunState(
                    self.pipe.scheduler, options.get("generator"), steered, self.engine, start.pop()
                )
                keeper.planned(self.planned, state.latents.nbytes)
                state.go_on(keeper)
                self.resumed_at = state.step
                latents = denoise(
                    steered, self.pipe.scheduler, state.latents, timesteps, first=state.step,
                    on_step=offers.step, **options,
                )  # fmt: skip
                finite.settle()
                return latents if share is None else share.gathered(latents)

    def decoded(self, latents: Tensor, keeper: Keeper | None = None) -> Iterator[NDArray[np.uint8]]:
        """The clip's frames (n H W 3) uint8, a few at a time, decoded when they are asked for, or as the
        keeper has them."""
        keeper, axis, start = keeper or KeepNothing(), self.adapter.frames_axis, 0
        for chunk in latents.split(self.memory_plan.chunks.decode, dim=axis):
            frames = keeper.frames(start, chunk.shape[axis])
            if frames is None:
                with self.memory, torch.no_grad(), self.clock("decode"):
                    frames = self.decode(chunk)
                keeper.keep_frames(start, frames)
            yield frames
            start += chunk.shape[axis]

    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Frames (f H W 3) uint8 of latents, few at a time."""
        return self.adapter.decode(latents, self.memory_plan.chunks.decode)

    def report(self) -> Report:
        """What the run took; call it after `frames`."""
        options, shared = self.options, self.other_macs
        told = without_home(options.to_dict())
        baseline = self.planned.macs_baseline_by_part
        spent = self._spent()
        return Report(
            prompt=options.prompt_line, negative_prompt=options.negative_prompt,
            image=told["image"] or "", model=told["model"],
            preset=without_home(self.preset.name), num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale, conditioning_scale=options.strengths,
            seed=options.seed or 0, num_frames=self.num_frames, height=self.height, width=self.width,
            fps=self.lead.fps, device=self.device,
            control_frames_bridged=sum(clip.num_bridged for clip in self.controls),
            control_frames_empty=sum(clip.num_empty for clip in self.controls),
            dtype=str(self.pipe.unet.dtype).removeprefix("torch."),
            macs_by_part={**spent, **shared}, macs_baseline_by_part={**baseline, **shared},
            seconds=self.clock.totals(),
            peak_nbytes=max([self.memory.nbytes, *(other.peak_nbytes for other in self.others)]),
            **self._cache_nbytes(),
            schedule=self.executed(), steps=self.executed_steps(),
            memory=str(self.memory_plan), predicted_peak_nbytes=self.memory_plan.peak.nbytes,
            resumed_at=self.resumed_at,
            exchanged_nbytes=self.sent_nbytes + sum(other.sent_nbytes for other in self.others),
            options=told, versions=versions(),
        )  # fmt: skip

    def account(self) -> Account:
        """What this process did of a clip that several make."""
        spent = self.engine.log.macs_by_part() if self.engine else None
        return Account(spent, self.memory.nbytes, self._own_cache_nbytes(), self.sent_nbytes)

    def _spent(self) -> dict[str, int]:
        """MACs of UNet and ControlNet by part, of all processes; as planned where nothing counts them."""
        counted = [account.macs_by_part for account in (self.account(), *self.others)]
        if None in counted:
            return self.planned.macs_by_part
        return {part: sum(one[part] for one in counted if one) for part in counted[0] or {}}

    @cached_property
    def other_macs(self) -> dict[str, int]:
        """MACs of what runs beside UNet and ControlNet: encoders of text or images, VAE."""
        return dict(self.adapter.other_macs(self._take()))

    def executed(self) -> Schedule:
        """The schedule that was carried out."""
        return self.engine.log.record() if self.engine else self.schedule.upper_bound()

    def executed_steps(self) -> tuple[StepSummary, ...]:
        """A row of figures for every step that was carried out."""
        return summaries(self.graph, self.executed())

    def _cache_nbytes(self) -> dict[str, Any]:
        """What the cache held at most, and what was copied between the device and the offload tier; of
        several processes the sum."""
        own = self._own_cache_nbytes()
        return {
            name: nbytes + sum(other.cache_nbytes[name] for other in self.others)
            for name, nbytes in own.items()
        }

    def _own_cache_nbytes(self) -> dict[str, int]:
        if self.engine is None:
            return {}
        store = self.engine.store
        return {
            "cache_nbytes": self.engine.peak_nbytes,
            "cache_device_nbytes": store.device.peak, "cache_host_nbytes": store.host.peak,
            "copied_to_host_nbytes": store.to_host, "copied_to_device_nbytes": store.to_device,
        }  # fmt: skip

    def encode(self) -> tuple[Conditioning, Tensor, Tensor, dict[str, Any]]:
        """Conditioning, noise, timesteps and the scheduler's options."""
        timesteps = self.adapter.timesteps(self.num_inference_steps)
        conditioning, latents, options = self.adapter.encode(self._take(), timesteps)
        return conditioning, latents, timesteps, options

    def _take(self) -> RunInputs:
        return RunInputs(
            self.options,
            self.num_frames,
            self.height,
            self.width,
            tuple(_AsTensor(clip.stream) for clip in self.controls),
            self.beside.image,
            None if self.beside.source is None else self.beside.source.stream,
            self.beside.picture,
        )

    def _done_at(self, step_index: int) -> str:
        """What was done at a step, as half a sentence."""
        steps = self.executed().steps
        reason = steps[step_index].reason if step_index < len(steps) else ""
        return f"{self.preset.name}: {reason}" if reason else self.preset.name

    def _asked_evaluations(self) -> int:
        """How often the models would run without a policy: of the steps that were asked for."""
        if self.num_inference_steps == self.asked_steps:
            return self.num_evaluations
        return round(self.num_evaluations * self.asked_steps / self.num_inference_steps)

    def _graph(self) -> BlockGraph:
        pipe = self.pipe
        factor = pipe.vae_scale_factor
        shape = ClipShape(
            self.windows.plain[0].length, self.height // factor, self.width // factor,
            self.adapter.num_tokens, self.options.branches,
        )  # fmt: skip
        return loaded_graph(
            pipe.unet, pipe.controlnet, shape, dtype_nbytes=pipe.unet.dtype.itemsize
        )

    def _inactive(self) -> dict[int, tuple[str, ...]]:
        """The ControlNets that add nothing, by step; the stock pipeline runs them all the same."""
        options, count = self.options, self.num_evaluations
        window = (options.control_guidance_start, options.control_guidance_end)
        nets = ["controlnet"] if len(options.control_kinds) == 1 else [
            f"controlnet.nets.{k}" for k in range(len(options.control_kinds))
        ]  # fmt: skip
        off = tuple(net for net, scale in zip(nets, options.scales, strict=True) if scale == 0)
        return {
            i: off if in_control_window(i, count, *window) else tuple(nets) for i in range(count)
        }
