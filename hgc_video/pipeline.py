"""generate(): a control clip and a prompt in, a controlled clip and its report out.

Composes media, models, plan, cache and the loop; each of them can be used without it.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .clip import Clip
from .errors import HGCVideoWarning, InputError
from .files import check_distinct, own_folder
from .media.control import ControlClip
from .media.frames import LazyFrames
from .media.left_out import left_out
from .media.video import ImageLike, VideoLike, check_output
from .models.device import choose_device, choose_dtype
from .models.kept_pipeline import kept_or_loaded
from .models.load import ModelFacts, load_pipeline, local_model, read_facts
from .options import GenerateOptions, check_prompt_length
from .plan.memory.budget import parse_nbytes
from .plan.presets import Preset, resolve
from .report import Stopwatch
from .sampling.controls import read_controls, read_first_frame

if TYPE_CHECKING:
    import torch


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
    seed: int | None = 0,
    extract: bool = False,
    memory: str | int | None = None,
    out: str | os.PathLike[str] | None = None,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    offline: bool = False,
    auto_calibrate: bool = False,
    calibration_dir: str | os.PathLike[str] | None = None,
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
        seed: the same seed gives the same clip; None draws one, which the report names.
    Args to tinker with:
        guidance_scale: the strength of the prompt; None is the model's own default, 1 or less is off.
        conditioning_scale: the strength of the control, 0 leaves it out; by kind for several.
        auto_calibrate: at a model's first use, measure it and search a schedule of its own for the
            preset, on this clip and prompt; takes as long as some dozens of clips, once. It is kept in
            `calibration_dir`; None is $HGC_VIDEO_HOME, or hgc_video in $XDG_CACHE_HOME (~/.cache).
        device: "cpu", "cuda", "cuda:1", "mps"; None is the first of CUDA, MPS and the CPU that is there.
        dtype: "float32", "float16", "bfloat16" or torch's; None is half precision on CUDA and single
            precision elsewhere.
        offline: use what is on this machine and download nothing.
        control_guidance_start, control_guidance_end: shares of the run between which the ControlNet
            runs.
        num_frames: None takes what the clip has, at most what the model holds at once, and warns of what is
            left. More than that is made in overlapping windows of `context_length` frames (None: what the
            model holds) that share `context_overlap` frames (None: a quarter of them).
        memory: what the run may take, as "8GiB" or bytes, weights included; the run is split to fit, and
            refused where nothing fits. None is what is free on the device.
        out: a clip to write, as Clip.save does, but frame by frame as they are decoded, so that a long clip
            is never in memory as a whole; `Clip.frames` then reads that file. None keeps the frames.
        height, width, fps: None follows the control clip.
        source_fps: the rate of a control clip that carries none (a folder of images, frames in memory).
        invert_depth: the depth clip is bright where it is far.
        motion: of models that begin with an image: `fps` (7) and `motion_bucket_id` (127) that they are
            told, `noise_aug_strength` (0.02) on the image, and `min_guidance_scale` (1) at the first frame,
            from where guidance grows to guidance_scale.
        callback: called after each step with (step_index, num_inference_steps, latents (1 c f h w), or
            (1 f c h w) of models that begin with an image); returning False stops the run.

    Returns:
        A Clip: `frames` (f H W 3) uint8, `fps`, `report`, `save(path)`.

    Raises:
        InputError: something given cannot be used; the message says what and what to do.
        ModelError: the model cannot be found or loaded.
        MissingExtraError: `extract` needs a package that is not installed.
        Cancelled: the callback returned False.

    Warns:
        HGCVideoWarning: what of the control clip is left out, frames or sound; memory ran out and a smaller
            memory plan is tried.
    """
    given = GenerateOptions(
        control_video=control_video, prompt=prompt, control=control, image=image, model=model,
        preset=preset, negative_prompt=negative_prompt, num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale, conditioning_scale=conditioning_scale,
        control_guidance_start=control_guidance_start, control_guidance_end=control_guidance_end,
        num_frames=num_frames, context_length=context_length, context_overlap=context_overlap,
        height=height, width=width, fps=fps, source_fps=source_fps, invert_depth=invert_depth,
        motion=motion, seed=seed, extract=extract, memory=memory, out=out, device=device, dtype=dtype,
        offline=offline, auto_calibrate=auto_calibrate, calibration_dir=calibration_dir,
    )  # fmt: skip
    model = local_model(model, offline)
    facts = read_facts(model)
    options = given.model_copy(update={"model": model}).for_model(
        from_image=facts.from_image, num_inference_steps=facts.num_inference_steps,
        guidance_scale=facts.guidance_scale,
    )  # fmt: skip
    _check_out(options)
    chosen = resolve(preset, model)
    device, torch_dtype = choose_device(device), choose_dtype(options.dtype)
    if memory is not None:
        memory = parse_nbytes(memory)
    clock = Stopwatch()
    context = options.context(facts.max_frames)
    with clock("control"):
        clips = read_controls(options, facts)
        options.check_prompt_frames(clips[0].shape[0])
        first = read_first_frame(options, clips[0])
    _tell_left_out(options, facts, clips[0])
    if auto_calibrate:
        loading = {"device": device, "dtype": torch_dtype, "offline": offline}
        chosen = _calibrated(options, own_folder(calibration_dir), progress, loading)
    with clock("load"):
        pipe = kept_or_loaded(
            load_pipeline,
            model,
            *options.control_kinds,
            device=device,
            dtype=torch_dtype,
            offline=offline,
        )
    for text in options.prompts:
        check_prompt_length(pipe.tokenizer, text)
    if negative_prompt:
        check_prompt_length(pipe.tokenizer, negative_prompt, "negative prompt")
    from .sampling.make import (  # loads torch, which wrong input need not wait for
        RunSetup,
        make_frames,
    )

    setup = RunSetup(options, chosen, tuple(clips), pipe, clock, facts, memory, context, first)
    run, frames = make_frames(setup, callback, progress)
    shown = clips[0].stream
    control_frames = shown.as_array() if isinstance(shown, LazyFrames) else shown
    return Clip(frames=frames, fps=clips[0].fps, report=run.report(), control=control_frames)


def _check_out(options: GenerateOptions) -> None:
    """Refuses what could not be written, before minutes are spent on it."""
    if options.out is not None:
        inputs = [("control clip", video) for video in options.control_clips.values()]
        check_distinct({"out": options.out}, [*inputs, ("image", options.image)])
        check_output(options.out)


def _tell_left_out(options: GenerateOptions, facts: ModelFacts, clip: ControlClip) -> None:
    """Warns of what the run does not take of its first control clip, which decides the others' frames."""
    video = next(iter(options.control_clips.values()))
    told = left_out(
        clip, video, fps=options.fps, told=options.num_frames is not None,
        most=facts.max_frames if facts.from_image else None,
    )  # fmt: skip
    if told:
        warnings.warn(told, HGCVideoWarning, stacklevel=3)


def _calibrated(
    options: GenerateOptions, folder: Path, progress: bool, loading: Mapping[str, Any]
) -> Preset:
    """The preset that stands for this one on this model, measured and searched where it is not yet."""
    import numpy as np
    from tqdm.auto import tqdm

    from .evaluate.trials import Sample, SampleSet
    from .tune.auto import own_schedule

    ((kind, video), *others) = options.control_clips.items()
    if options.image is not None:
        raise InputError(
            f"auto_calibrate is for models that read a prompt; {options.model} does not"
        )
    if others or options.extract or not isinstance(options.prompt, str):
        raise InputError("auto_calibrate takes one ready control clip and one prompt; give those")
    clip = str(video) if isinstance(video, str | Path) else np.asarray(video)
    sample = Sample(clip, kind, options.prompt, options.seed or 0)
    source = SampleSet(options.model, None, 0, 1, 1, **loading)
    log = partial(tqdm.write, file=sys.stderr) if progress else _silent
    steps = options.num_inference_steps or 0
    return own_schedule(source, sample, options.preset, steps, folder=folder, log=log)


def _silent(line: str) -> None:
    """Where no progress is to be shown."""
