"""Generator: makes clips one after another, and keeps the pipeline that it loaded for the next one.

Composes media, models, plan, cache and the loop; each of them can be used without it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from .clip import Clip
from .errors import HGCVideoWarning, InputError, nearest
from .files import check_distinct, numbered, own_folder
from .media.control import ControlClip
from .media.frames import LazyFrames
from .media.left_out import left_out
from .media.video import VideoLike, check_output
from .models.device import choose_device, choose_dtype
from .models.load import ModelFacts, load_pipeline, local_model, read_facts
from .models.parts import ModelParts, model_of
from .models.schedulers import scheduler_of
from .options import LOADING, GenerateOptions, check_prompt_length
from .plan.memory.budget import parse_nbytes
from .plan.presets import Preset, resolve
from .report import Stopwatch
from .sampling.controls import read_controls, read_first_frame, read_picture

if TYPE_CHECKING:
    from .sampling.make import RunSetup

StepCallback = Callable[[int, int, Any], "bool | None"]
_Text = str | Mapping[int, str]


class Generator:
    """Makes clips with options of `hgc_video.generate` that hold for all of them.

    What was loaded stays for the next call, so that only the first one waits for it; a call that asks for
    another model, control, device or precision loads that in its place.

        generator = hgc_video.Generator(model="puppet", preset="balanced")
        first = generator.generate("dance_pose.mp4", "a dancer in a red shirt")
        more = generator.generate("dance_pose.mp4", "a dancer in a green shirt", seed=[1, 2, 3])

    Raises:
        InputError: an option that `generate` does not have.
    """

    def __init__(self, model: str = "puppet", *, progress: bool = True, **options: Any) -> None:
        known = GenerateOptions.model_fields
        for name in options:
            if name not in known:
                raise InputError(f'Generator has no field "{name}": {nearest(name, known)}')
        self.options, self.progress = {"model": model, **options}, progress
        self._loaded: tuple[dict[str, Any], Any, Any] | None = None

    @overload
    def generate(
        self, control_video: VideoLike | None = None, prompt: _Text = "", *, seed: int | None = ...,
        progress: bool | None = ..., callback: StepCallback | None = ..., **options: Any,
    ) -> Clip: ...  # fmt: skip
    @overload
    def generate(
        self, control_video: VideoLike | None = None, prompt: _Text = "", *, seed: list[int],
        progress: bool | None = ..., callback: StepCallback | None = ..., **options: Any,
    ) -> list[Clip]: ...  # fmt: skip
    @overload
    def generate(
        self, control_video: VideoLike | None, prompt: list[_Text], *,
        seed: int | list[int] | None = ..., progress: bool | None = ..., callback: StepCallback | None = ...,
        **options: Any,
    ) -> list[Clip]: ...  # fmt: skip
    def generate(
        self, control_video: VideoLike | None = None, prompt: _Text | list[_Text] = "", *,
        progress: bool | None = None, callback: StepCallback | None = None, **options: Any,
    ) -> Clip | list[Clip]:  # fmt: skip
        """As `hgc_video.generate`; an option that is given here goes before the Generator's own."""
        given = {**self.options, **options, "control_video": control_video, "prompt": prompt}
        shown = self.progress if progress is None else progress
        clips = self.make(clips_of(given), shown, callback)
        return clips if is_list(given) else clips[0]

    def make(
        self, asked: Sequence[GenerateOptions], progress: bool, callback: StepCallback | None
    ) -> list[Clip]:
        """The clips of options that differ in prompt, seed and file alone; all are checked first."""
        first = asked[0]
        parts = ModelParts.of(first)
        model = local_model(model_of(first.model, parts, first.offline), first.offline)
        facts = read_facts(model, parts, first.offline)
        every = [
            one.model_copy(update={"model": model}).for_model(
                from_image=facts.from_image, num_inference_steps=facts.num_inference_steps,
                guidance_scale=facts.guidance_scale,
            )
            for one in asked
        ]  # fmt: skip
        for one in every:
            _check_out(one)
        setup = self._setup(every, facts, progress)
        for one in every:
            if one.prompt_syntax == "plain":
                _check_lengths(one, setup.pipe)
        made = [_made(setup, callback, progress)]
        for one in every[1:]:
            again = replace(setup, options=one, stopwatch=Stopwatch())
            made.append(_made(again, callback, progress))
        return made

    def unload(self) -> None:
        """Frees the pipeline; the next call loads one."""
        self._loaded = None

    def _setup(
        self, every: Sequence[GenerateOptions], facts: ModelFacts, progress: bool
    ) -> RunSetup:
        """What all runs share, and the first of them."""
        options = every[0]
        chosen = resolve(options.preset, options.model)
        choose_device(options.device)
        budget = None if options.memory is None else parse_nbytes(options.memory)
        clock = Stopwatch()
        context = options.context(facts.max_frames)
        with clock("control"):
            clips = read_controls(options, facts)
            for one in every:
                one.check_prompt_frames(clips[0].shape[0])
            first, picture = read_first_frame(options, clips[0]), read_picture(options)
        _tell_left_out(options, facts, clips[0])
        if options.auto_calibrate:
            chosen = _calibrated(options, own_folder(options.calibration_dir), progress)
        with clock("load"):
            pipe = self._pipeline(options)
        from .sampling.make import RunSetup  # loads torch, which wrong input need not wait for

        source = clips[0] if options.video is not None else None
        controls = tuple(clip for clip in clips if clip is not source)
        return RunSetup(
            options, chosen, controls, pipe, clock, facts, budget, context, first, source, picture
        )

    def _pipeline(self, options: GenerateOptions) -> Any:
        """The pipeline that the options need: the one before, or a newly loaded one in its place."""
        told = {name: getattr(options, name) for name in LOADING}
        told |= {"kinds": options.control_kinds, "ip_adapter": options.ip_adapter is not None}
        if self._loaded is None or self._loaded[0] != told:
            self._loaded = None  # freed before the next one is loaded
            parts = ModelParts.of(options)
            pipe = load_pipeline(
                options.model, *options.control_kinds, parts=parts, **_loading(options)
            )
            self._loaded = (told, pipe, pipe.scheduler)
        _, pipe, own = self._loaded
        pipe.scheduler = scheduler_of(options.scheduler, own)
        if options.ip_adapter is not None:
            pipe.set_ip_adapter_scale(options.ip_adapter_scale)
        return pipe


def is_list(given: Mapping[str, Any]) -> bool:
    """Whether options of `generate` ask for a list of clips."""
    return any(isinstance(given.get(name), list | tuple) for name in ("prompt", "seed"))


def clips_of(given: Mapping[str, Any]) -> list[GenerateOptions]:
    """The options of every clip: of each prompt with the seed at its place, or with the one seed.

    Raises:
        InputError: an option that is not possible; lists of different length, or empty.
    """
    if not is_list(given):
        return [GenerateOptions(**given)]
    lists = {n: v for n in ("prompt", "seed") if isinstance(v := given.get(n), list | tuple)}
    lengths = {name: len(values) for name, values in lists.items()}
    count = max(lengths.values())
    if set(lengths.values()) != {count} or not count:
        told = " and ".join(f"{length} {name}s" for name, length in lengths.items())
        raise InputError(f"{told} are given; give lists of one length, or one for all clips")
    made = []
    for at in range(count):
        one = {**given, **{name: values[at] for name, values in lists.items()}}
        if one.get("out") is not None and count > 1:
            one["out"] = numbered(one["out"], at + 1)
        made.append(GenerateOptions(**one))
    return made


def _made(setup: RunSetup, callback: StepCallback | None, progress: bool) -> Clip:
    from .sampling.make import make_frames

    run, frames = make_frames(setup, callback, progress)
    shown = (setup.clips[0] if setup.clips else setup.lead).stream
    control = shown.as_array() if isinstance(shown, LazyFrames) else shown
    return Clip(frames=frames, fps=setup.lead.fps, report=run.report(), control=control)


def _loading(options: GenerateOptions) -> dict[str, Any]:
    """Where and how models are loaded."""
    device, dtype = choose_device(options.device), choose_dtype(options.dtype)
    return {"device": device, "dtype": dtype, "offline": options.offline}


def _check_lengths(options: GenerateOptions, pipe: Any) -> None:
    for text in options.prompts:
        check_prompt_length(pipe.tokenizer, text)
    if options.negative_prompt:
        check_prompt_length(pipe.tokenizer, options.negative_prompt, "negative prompt")


def _check_out(options: GenerateOptions) -> None:
    """Refuses what could not be written, before minutes are spent on it."""
    if options.out is not None:
        inputs = [("control clip", video) for video in options.control_clips.values()]
        inputs += [("image", options.image), ("video", options.video)]
        check_distinct({"out": options.out}, [*inputs, ("picture", options.ip_adapter)])
        check_output(options.out)


def _tell_left_out(options: GenerateOptions, facts: ModelFacts, clip: ControlClip) -> None:
    """Warns of what the run does not take of its first control clip, which decides the others' frames."""
    video = options.video
    if video is None:
        video = next(iter(options.control_clips.values()))
    told = left_out(
        clip, video, fps=options.fps, told=options.num_frames is not None,
        most=facts.max_frames if facts.from_image else None,
    )  # fmt: skip
    if told:
        warnings.warn(told, HGCVideoWarning, stacklevel=6)


def _calibrated(options: GenerateOptions, folder: Path, progress: bool) -> Preset:
    """The preset that stands for this one on this model, measured and searched where it is not yet."""
    import numpy as np
    from tqdm.auto import tqdm

    from .evaluate.trials import Sample, SampleSet
    from .tune.auto import own_schedule

    ((kind, video), *others) = options.control_clips.items()
    if options.image is not None or options.video is not None:
        raise InputError(
            f"auto_calibrate is for models that read a prompt; {options.model} does not"
        )
    if others or options.extract or not isinstance(options.prompt, str):
        raise InputError("auto_calibrate takes one ready control clip and one prompt; give those")
    clip = str(video) if isinstance(video, str | Path) else np.asarray(video)
    sample = Sample(clip, kind, options.prompt, options.seed or 0)
    source = SampleSet(options.model, None, 0, 1, 1, **_loading(options))
    log = partial(tqdm.write, file=sys.stderr) if progress else _silent
    steps = options.num_inference_steps or 0
    return own_schedule(source, sample, options.preset, steps, folder=folder, log=log)


def _silent(line: str) -> None:
    """Where no progress is to be shown."""
