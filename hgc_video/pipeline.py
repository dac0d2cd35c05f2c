"""generate(): a control clip and a prompt in, a controlled clip and its report out.

Composes media, models, plan, cache and the loop; each of them can be used without it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .clip import Clip
from .device import choose_device
from .errors import Cancelled, InputError
from .media.control import ControlClip, Placement, load_control, source_rates
from .media.frames import Frame, Frames, LazyFrames, gathered
from .media.video import ImageLike, VideoLike, check_output, open_clip, read_image, write_video
from .models.load import ModelFacts, load_pipeline, local_model, read_facts
from .plan.chunks import ChunkPlan, Chunks, Peak, parse_nbytes
from .plan.presets import Preset, resolve
from .request import Request, check_prompt_length, make_motion
from .stopwatch import Stopwatch

if TYPE_CHECKING:
    import torch

    from .run import Run

StepCallback = Callable[[int, int, Any], "bool | None"]


def generate(
    control_video: VideoLike | None = None,
    prompt: str | Mapping[int, str] = "",
    *,
    control: str | Mapping[str, VideoLike] = "pose",
    image: ImageLike | None = None,
    model: str = "puppet",
    preset: str = "balanced",
    negative_prompt: str | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    conditioning_scale: float | Mapping[str, float] = 1.0,
    control_guidance_start: float = 0.0,
    control_guidance_end: float = 1.0,
    num_frames: int | None = None,
    context_length: int | None = None,
    context_overlap: int | None = None,
    height: int | None = None,
    width: int | None = None,
    fps: float | None = None,
    source_fps: float | None = None,
    invert_depth: bool = False,
    motion: Mapping[str, float] | None = None,
    seed: int = 0,
    extract: bool = False,
    memory: str | int | None = None,
    out: str | os.PathLike[str] | None = None,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    offline: bool = False,
    auto_calibrate: bool = False,
    progress: bool = True,
    callback: StepCallback | None = None,
) -> Clip:
    """Makes the clip that `prompt` describes, or that `image` begins, and `control_video` moves.

    Args that matter:
        control_video: a path, frames (f H W 3) uint8, or a list of images: a ready control clip, or
            with `extract` a raw video to take the control from.
        prompt: what the clip shows; or a prompt that travels along the frames, `{0: "...", 48: "..."}`.
        control: "pose" (OpenPose skeletons), "depth" (near is bright), or what else the model has; or
            several at once, `{"pose": "a.mp4", "depth": "b.mp4"}`, without a control_video.
        image: the clip's first frame, of models that begin with one and read no prompt ("svd"): a path, an
            array (H W 3) uint8 or a PIL image. It is placed in the frame as the control is.
        model: "puppet" (embedded), a preset that `hgc-video models` lists (downloaded at first use), a
            folder in diffusers format, or a repository of the hub that is laid out as one.
        preset: off, lossless, quality, balanced, fast, turbo, or a policy such as "deepcache:interval=3".
        num_inference_steps: denoising steps; more is closer to the model's own limit. None is the model's
            own number. A preset may run more, cheaper ones; the report tells.
    Args to tinker with:
        guidance_scale: how strongly the prompt pulls; None is the model's own default, 1 or less is off.
        conditioning_scale: how strongly the control pulls, 0 leaves it out; by kind for several.
        auto_calibrate: at a model's first use, measure it and search a schedule of its own for the
            preset, on this clip and prompt; takes as long as some dozens of clips, once.
        offline: use what is on this machine and download nothing.
        control_guidance_start, control_guidance_end: shares of the run between which the control
            pulls; the ControlNet does not run outside of them.
        num_frames: None takes what the clip has, at most what the model holds at once. More than that is
            made in overlapping windows of `context_length` frames (None: what the model holds) that
            share `context_overlap` frames (None: a quarter of them).
        memory: what the run may take, as "8GiB" or bytes, weights included; the clip is cut to fit, and
            refused where nothing fits. None is what is free on the device.
        out: a clip to write, as Clip.save does, but frame by frame as they are decoded, so that a long clip
            is never in memory as a whole; `Clip.frames` then reads that file. None keeps the frames.
        height, width, fps: None follows the control clip.
        source_fps: the rate of a control that carries none, a folder of images or frames in memory. None:
            that of another control of as many frames, or else `fps`, or else 8.
        invert_depth: turns a depth clip round in which near is dark.
        motion: of models that begin with an image: `fps` (7) and `motion_bucket_id` (127) that they are
            told, `noise_aug_strength` (0.02) on the image, and `min_guidance_scale` (1) at the first frame,
            from where the pull grows to guidance_scale.
        callback: called after each step with (step_index, num_inference_steps, latents (1 c f h w), or
            (1 f c h w) of models that begin with an image); returning False stops the run.

    Returns:
        A Clip: `frames` (f H W 3) uint8, `fps`, `report`, `save(path)`.

    Raises:
        InputError: something given cannot be used; the message says what and what to do.
        ModelError: the model cannot be found or loaded.
        MissingExtraError: `extract` needs a package that is not installed.
        Cancelled: the callback returned False.
    """
    model = local_model(model, offline)
    facts = read_facts(model)
    video, kind = _controls(control_video, control)
    num_inference_steps = (
        facts.num_inference_steps if num_inference_steps is None else num_inference_steps
    )
    request = Request(
        control_video=video, prompt=prompt, control=kind, model=model,
        negative_prompt=negative_prompt, num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale, conditioning_scale=conditioning_scale, num_frames=num_frames,
        height=height, width=width, fps=fps, seed=seed, extract=extract,
        control_guidance_start=control_guidance_start, control_guidance_end=control_guidance_end,
        context_length=context_length, context_overlap=context_overlap, image=image,
        motion=make_motion(motion), from_image=facts.from_image, source_fps=source_fps,
        invert_depth=invert_depth,
    )  # fmt: skip
    if out is not None:
        _check_out(out, request.controls.values())
    if auto_calibrate:
        preset = _calibrated(request, preset)
    chosen = resolve(preset, model)
    if memory is not None:
        memory = parse_nbytes(memory)
    clock = Stopwatch()
    context = request.context(facts.max_frames)
    with clock("control"):
        clips = _read_controls(request, facts)
        first = _read_first(request, clips[0])
    with clock("load"):
        pipe = load_pipeline(
            model, *request.kinds, device=choose_device(device), dtype=dtype, offline=offline
        )
    for text in request.prompts():
        check_prompt_length(pipe.tokenizer, text)
    if negative_prompt:
        check_prompt_length(pipe.tokenizer, negative_prompt, "negative prompt")
    scale = facts.guidance_scale if guidance_scale is None else guidance_scale
    maker = _Maker(request, chosen, scale, clips, pipe, clock, facts, memory, context, first, out)
    try:
        run, frames = maker(callback, progress)
    except _out_of_memory() as error:
        warnings.warn(
            f"out of memory ({str(error).splitlines()[0]}); trying a smaller cut", stacklevel=2
        )
        run, frames = maker(callback, progress, again=True)
    shown = clips[0].stream
    control_frames = shown.settled() if isinstance(shown, LazyFrames) else shown
    return Clip(frames=frames, fps=clips[0].fps, report=run.report(), control=control_frames)


def _out_of_memory() -> type[Exception]:
    import torch

    return torch.OutOfMemoryError


class _Maker:
    """Makes the run of a request, a second time in a smaller cut where memory ran out."""

    def __init__(
        self, request: Request, preset: Preset, guidance_scale: float,
        clips: list[ControlClip], pipe: Any,
        clock: Stopwatch, facts: ModelFacts, memory: str | int | None, context: tuple[int, int],
        image: Frame | None, out: str | os.PathLike[str] | None,
    ) -> None:  # fmt: skip
        self.parts = (request, preset, guidance_scale, clips, pipe, clock)
        self.facts, self.memory, self.context = facts, memory, context
        self.image, self.out = image, out
        self.cut: ChunkPlan | None = None

    def __call__(
        self, callback: StepCallback | None, progress: bool, *, again: bool = False
    ) -> tuple[Run, Frames]:
        """The run and its frames (f H W 3); written as they are decoded where a place was told."""
        from .run import Run  # loads torch, which wrong input need not wait for

        clock = self.parts[-1]
        with clock("plan"):
            self.cut = self._cut(again)
        run = Run(*self.parts, self.cut, self.context[1], self.image)
        with _watched(callback, run.num_evaluations, progress) as on_step:
            latents = run.latents(on_step)
        size, chunks = (run.num_frames, run.height, run.width), run.decoded(latents)
        if self.out is None:
            return run, gathered(chunks, *size)
        each = (frame for chunk in chunks for frame in chunk)
        written = write_video(self.out, each, run.controls[0].fps)
        return run, LazyFrames(partial(_read_from, written), *size, hold=False)

    @property
    def _told_length(self) -> bool:
        """Whether the length of the windows is settled: told, or whole clips are all that the model makes."""
        return self.parts[0].from_image or self.parts[0].context_length is not None

    def _cut(self, again: bool) -> ChunkPlan:
        """How the clip is cut; a short one with no budget told is not cut on the CPU, and not predicted."""
        request, preset, guidance_scale, clips, pipe, _ = self.parts
        num_frames, height, width = clips[0].shape
        length, overlap = self.context
        from .hosts import host_of  # loads torch

        host, on_cpu = host_of(pipe), str(pipe.unet.device) == "cpu"
        if self.memory is None and on_cpu and num_frames <= length and not again:
            chunks = Chunks(decode=host.decoded_at_once(num_frames))
            return ChunkPlan(1, min(length, num_frames), chunks, Peak(0, 0), None)
        from .fit import fit_pipeline, memory_budget
        from .peak import Scale

        factor = pipe.vae_scale_factor
        scale = Scale(
            num_frames, height // factor, width // factor, host.num_tokens,
            2 if guidance_scale > 1 else 1, preset.num_steps(request.num_inference_steps), factor, overlap,
        )  # fmt: skip
        return fit_pipeline(
            pipe, preset, scale, max_frames=length, budget=memory_budget(self.memory, str(pipe.unet.device)),
            context=min(length, num_frames) if self._told_length else None,
            smaller_than=self.cut if again else None,
        )  # fmt: skip


def _read_from(path: Path, start: int) -> Iterator[Frame]:
    """The frames of a clip from a number on."""
    source = open_clip(path)
    return source.frames(range(start, source.info.num_frames))


def _check_out(out: str | os.PathLike[str], controls: Collection[VideoLike]) -> None:
    """Refuses what could not be written, before minutes are spent on it."""
    target = Path(out).expanduser().resolve()
    for video in controls:
        if isinstance(video, str | os.PathLike) and Path(video).expanduser().resolve() == target:
            raise InputError(f'out "{out}" is the control clip itself; name another file')
    check_output(out)


def _calibrated(request: Request, preset: str) -> str:
    """The preset that stands for this one on this model, measured and searched where it is not yet."""
    import numpy as np

    from .tune.auto import own_schedule
    from .tune.trials import Sample

    ((kind, video), *others) = request.controls.items()
    if request.from_image:
        raise InputError(
            f"auto_calibrate is for models that read a prompt; {request.model} does not"
        )
    if others or request.extract or not isinstance(request.prompt, str):
        raise InputError("auto_calibrate takes one ready control clip and one prompt; give those")
    clip = str(video) if isinstance(video, str | Path) else np.asarray(video)
    sample = Sample(clip, kind, request.prompt, request.seed)
    folder = Path.home() / ".cache" / "hgc_video"
    return own_schedule(request.model, sample, preset, request.num_inference_steps, folder=folder)


def _controls(
    control_video: VideoLike | None, control: str | Mapping[str, VideoLike]
) -> tuple[VideoLike | Mapping[str, VideoLike], str]:
    """The clip and its kind, or several clips by kind; InputError where it is neither."""
    if isinstance(control, Mapping):
        if control_video is not None:
            raise InputError(
                "control names clips by kind and control_video is given too; leave control_video out"
            )
        return control, ""
    if control_video is None:
        raise InputError('no control clip is given; give control_video, or control={"pose": clip}')
    return control_video, control


def _read_first(request: Request, clip: ControlClip) -> Frame | None:
    """The image (H W 3) that a clip begins with, of the clip's size; None where there is none."""
    if request.image is None:
        return None
    image = read_image(request.image)
    _, height, width = clip.shape
    return Placement(image.shape[0], image.shape[1], height, width).frame(image)


def _read_controls(request: Request, facts: ModelFacts) -> list[ControlClip]:
    """The control clips; the first one decides frames, size and rate of all."""
    (kind, video), *others = request.controls.items()
    rates = source_rates(request.controls, request.source_fps)
    request = replace(request, source_fps=rates[kind])
    first = _read_control(request, facts, kind, video, request.num_frames)
    num_frames, height, width = first.shape
    read = [first]
    for kind, video in others:
        sized = replace(request, height=height, width=width, fps=first.fps, source_fps=rates[kind])
        read.append(_read_control(sized, facts, kind, video, num_frames))
    return read


def _read_control(
    request: Request, facts: ModelFacts, kind: str, video: VideoLike, num_frames: int | None
) -> ControlClip:
    options: dict[str, Any] = {
        "num_frames": num_frames, "height": request.height, "width": request.width,
        "fps": request.fps, "multiple": facts.multiple, "default_area": facts.default_area,
        "max_frames": facts.max_frames if num_frames is None or facts.from_image else None,
        "source_fps": request.source_fps,
    }  # fmt: skip
    if request.extract:
        from .media.pose import extract_control

        return extract_control(video, kind, **options)
    inverted = request.invert_depth and kind == "depth"
    return load_control(video, kind, invert_depth=inverted, **options)


@contextmanager
def _watched(
    callback: StepCallback | None, num_inference_steps: int, progress: bool
) -> Iterator[Callable[[int, Any], None]]:
    """One function to call after each step: it moves the progress bar and asks the caller's callback."""
    from tqdm.auto import tqdm

    bar = tqdm(total=num_inference_steps, desc="denoising", unit="step", disable=not progress)

    def on_step(step_index: int, latents: Any) -> None:
        bar.update()
        if callback is not None and callback(step_index, num_inference_steps, latents) is False:
            raise Cancelled(
                f"stopped by the callback after step {step_index + 1} of {num_inference_steps}"
            )

    with bar:
        yield on_step
