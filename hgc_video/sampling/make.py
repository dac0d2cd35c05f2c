"""Makes the frames of a run; a stage that runs out of memory is done again in smaller parts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import Cancelled, InputError, warn
from ..media.control import ControlClip
from ..media.frames import Frame, Frames, LazyFrames, collect_frames
from ..media.scenes import shortest_scene
from ..media.video import open_clip, write_video
from ..models.load import ModelFacts
from ..options import GenerateOptions
from ..plan.clip_shape import ClipShape
from ..plan.devices import DeviceSplit
from ..plan.memory.budget import Chunks, MemoryPlan, Peak
from ..plan.presets import Preset
from ..report import Stopwatch
from .exchange import Lost, Share, process_group
from .fit_memory import Fit, memory_budget
from .input_files import InputFiles
from .other_process import Account, Part
from .outlook import outlook
from .outputs import extras_of
from .predict_peak import RunScale
from .processes import FirstPart
from .run import Beside, Run
from .run_state import Keeper, KeepNothing
from .stock_pipeline import adapter_of

StepCallback = Callable[[int, int, Any], "bool | None"]
# torch raises the first, of the host's memory too; numpy and Python the second.
_MEMORY_ERRORS = (RuntimeError, MemoryError)


@dataclass(frozen=True)
class RunSetup:
    """What a run is made of: options, preset, control clips, the loaded pipeline, what is known of its model,
    the memory budget (None: what is free), length and overlap of windows, the first frame of models that
    begin with one, the video that is restyled, the picture of an IP-Adapter, this process's part where
    several make the clip, and what the clip tells of its files."""

    options: GenerateOptions
    preset: Preset
    clips: tuple[ControlClip, ...]
    pipe: Any
    stopwatch: Stopwatch
    facts: ModelFacts
    budget: str | int | None
    context: tuple[int, int]
    first: Frame | None
    source: ControlClip | None = None
    picture: Frame | None = None
    part: Part | None = None
    files: InputFiles = field(default_factory=InputFiles)

    @property
    def lead(self) -> ControlClip:
        """The clip whose frames, size and rate all have."""
        return self.source or self.clips[0]

    def run(self, memory_plan: MemoryPlan) -> Run:
        """The planned run under a memory plan."""
        return Run(
            self.options, self.preset, self.clips, self.pipe, self.stopwatch, memory_plan, self.context[1],
            Beside(self.first, self.source, self.picture), self.files,
        )  # fmt: skip

    @property
    def longest(self) -> int:
        """Frames of the longest window: no more than the shortest scene has."""
        clip = self.lead
        return (
            min(self.context[0], shortest_scene(clip.cuts, clip.shape[0]))
            if clip.cuts
            else self.context[0]
        )

    def memory_plan(self) -> MemoryPlan:
        """How the run fits the memory. A short clip on the CPU is not split where no budget is given, and
        nothing is predicted for it."""
        num_frames, device = self.lead.shape[0], str(self.pipe.unet.device)
        if self.budget is None and device == "cpu" and num_frames <= self.longest:
            chunks = Chunks(decode=adapter_of(self.pipe).decoded_at_once(num_frames))
            return MemoryPlan(1, num_frames, chunks, Peak(0, 0), None)
        budget = memory_budget(self.budget, device)
        if self.part is not None and device == "cpu":  # the processes have one memory
            budget //= self.part.size
        return self.fit.plan(budget)

    @cached_property
    def fit(self) -> Fit:
        """What chooses memory plans for this run."""
        options, pipe = self.options, self.pipe
        num_frames, height, width = self.lead.shape
        length, overlap = self.longest, self.context[1]
        factor = pipe.vae_scale_factor
        clip = ClipShape(
            num_frames,
            height // factor,
            width // factor,
            adapter_of(pipe, options).num_tokens,
            options.branches,
        )
        num_steps = self.preset.num_steps(options.num_inference_steps or 0)
        scale = RunScale(clip, num_steps, factor, overlap, self.lead.cuts)
        # The windows' length is settled where it is given, or where the model makes whole clips only.
        settled = self.facts.from_image or options.context_length is not None
        context = min(length, num_frames) if settled else None
        return Fit(pipe, self.preset, scale, max_frames=length, context=context)


def make_frames(
    setup: RunSetup, callback: StepCallback | None, progress: bool, keeper: Keeper | None = None
) -> tuple[Run, Frames]:
    """The run and its frames (f H W 3); written as they are decoded where the options name a file. It goes
    on from what the keeper has, and offers it what to go on from later.

    Raises:
        Cancelled: the callback returned False, or the keeper was asked to stop.
        torch.OutOfMemoryError: memory ran out, and no smaller plan fits either.
    """
    keeper = keeper or KeepNothing()
    run, latents = _denoised(setup, callback, progress, keeper)
    if isinstance(setup.part, FirstPart):
        run.others = setup.part.accounts()
    while True:
        try:
            return run, _decoded(setup, run, latents, keeper)
        except _MEMORY_ERRORS as error:
            _warn_out_of_memory(error, "decoding", stacklevel=4)
        clear_device_cache(garbage_collection=True)  # here, where the error no longer holds tensors
        run.memory_plan = setup.fit.smaller_decode(run.memory_plan)


def _denoised(
    setup: RunSetup, callback: StepCallback | None, progress: bool, keeper: Keeper
) -> tuple[Run, Tensor]:
    """A run and its latents; a second time under a smaller plan, and no more, where memory ran out. Not where
    several processes make the clip."""
    if setup.part is not None:
        return _denoised_together(setup, setup.part, callback, progress)
    with setup.stopwatch("plan"):
        memory_plan = keeper.memory_plan(setup.memory_plan)
    try:
        return _latents(setup, memory_plan, callback, progress, keeper)
    except _MEMORY_ERRORS as error:
        _warn_out_of_memory(error, "denoising", stacklevel=5)
    clear_device_cache(garbage_collection=True)
    with setup.stopwatch("plan"):
        smaller = partial(setup.fit.smaller_denoise, memory_plan)
        memory_plan = keeper.memory_plan(smaller, again=True)
    return _latents(setup, memory_plan, callback, progress, keeper)


def _denoised_together(
    setup: RunSetup, part: Part, callback: StepCallback | None, progress: bool
) -> tuple[Run, Tensor]:
    """A run and its latents, of which other processes make some; in process 0 it has all of them."""
    with setup.stopwatch("plan"):
        memory_plan, whole, store = part.agree(setup.memory_plan, callback is not None)
    run = setup.run(memory_plan)
    if progress:
        tqdm.write(outlook(run), file=sys.stderr)
    split = DeviceSplit(run.windows, part.size, run.planned.moves, whole)
    device = setup.pipe.unet.device
    try:
        with process_group(part.rank, part.size, store, device, part.look) as group:
            share = Share(split, part.rank, group, run.adapter.frames_axis)
            with _watched(callback, run.num_evaluations, progress) as on_step:
                latents = run.latents(on_step, share=share)
    except Lost as lost:
        raise part.why(lost) from lost
    except _MEMORY_ERRORS as error:
        if not _is_out_of_memory(error):
            raise
        raise InputError(
            f"memory ran out with {memory_plan}; give less memory, more devices, or a smaller clip"
        ) from error
    run.sent_nbytes = group.nbytes
    setup.stopwatch.seconds["exchange"] = group.seconds
    return run, latents


def make_part(setup: RunSetup) -> Account:
    """This process's part of a clip that process 0 decodes and writes."""
    return _denoised(setup, None, False, KeepNothing())[0].account()


def _latents(
    setup: RunSetup, memory_plan: MemoryPlan, callback: StepCallback | None, progress: bool,
    keeper: Keeper,
) -> tuple[Run, Tensor]:  # fmt: skip
    run = setup.run(memory_plan)
    if progress:
        tqdm.write(outlook(run), file=sys.stderr)
    with _watched(callback, run.num_evaluations, progress) as on_step:
        return run, run.latents(on_step, keeper)


def _decoded(setup: RunSetup, run: Run, latents: Tensor, keeper: Keeper) -> Frames:
    size, chunks = (run.num_frames, run.height, run.width), run.decoded(latents, keeper)
    out: str | os.PathLike[str] | None = setup.options.out
    if out is None:
        return collect_frames(chunks, *size)
    each = (frame for chunk in chunks for frame in chunk)
    written = write_video(out, each, run.lead.fps, extras_of(run))
    return written_frames(written, size)


def written_frames(path: Path, size: tuple[int, int, int]) -> LazyFrames:
    """The frames of a clip that was written, read when they are asked for; `size` as (f, H, W)."""
    return LazyFrames(partial(_read_from, path), *size, hold=False)


def _read_from(path: Path, start: int) -> Iterator[Frame]:
    """The frames of a clip from a number on."""
    source = open_clip(path)
    return source.frames(range(start, source.info.num_frames))


def _warn_out_of_memory(error: Exception, stage: str, stacklevel: int) -> None:
    """Warns that memory ran out and a smaller plan comes next; raises what is no such error."""
    if not _is_out_of_memory(error):
        raise error
    first = (str(error).splitlines() or ["out of memory"])[0]
    warn(f"{stage} ran out of memory ({first}); trying a smaller memory plan", stacklevel)


def _is_out_of_memory(error: Exception) -> bool:
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or should_reduce_batch_size(error)


@contextmanager
def _watched(
    callback: StepCallback | None, num_inference_steps: int, progress: bool
) -> Iterator[Callable[[int, Any], None]]:
    """One function to call after each step: it moves the progress bar and asks the caller's callback."""
    bar = tqdm(total=num_inference_steps, desc="denoising", unit="step", disable=not progress)

    def on_step(step_index: int, latents: Any) -> None:
        bar.update(step_index + 1 - bar.n)  # more than one where the run went on from a checkpoint
        if callback is not None and callback(step_index, num_inference_steps, latents) is False:
            raise Cancelled(
                f"stopped by the callback after step {step_index + 1} of {num_inference_steps}"
            )

    with bar:
        yield on_step
