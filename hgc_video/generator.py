"""Generator: makes clips one after another, and keeps the pipeline that it loaded for the next one.

Composes media, models, plan, cache and the loop; each of them can be used without it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, overload

from .clip import Clip
from .errors import CacheStateError, InputError, nearest
from .files import numbered, own_folder, user_path
from .media.control import ControlClip
from .media.frames import Frames, LazyFrames
from .media.video import VideoLike
from .models.device import choose_device, choose_dtype
from .models.identity import local_state
from .models.load import ModelFacts, check_controls, load_pipeline, local_model, read_facts
from .models.parts import ModelParts, model_of
from .models.schedulers import adds_noise, scheduler_of
from .options import LOADING, GenerateOptions, check_prompt_length
from .plan.memory.budget import parse_nbytes
from .plan.presets import Preset, resolve
from .preprocess.base import Preprocessor
from .report import Report, Stopwatch
from .sampling.controls import choose_fidelity, read_controls, read_first_frame, read_picture
from .sampling.input_files import InputFiles, sha256_of_inputs
from .sampling.outputs import check_out, extras_of, tell_left_out

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .jobs.checkpoint.work import Work
    from .sampling.make import RunSetup
    from .sampling.other_process import Account, OtherPart, Part

StepCallback = Callable[[int, int, Any], "bool | None"]
_Text = str | Mapping[int, str]


class Generator:
    """Makes clips with options of `hgc_video.generate` that hold for all of them.

    What was loaded stays for the next call, so that only the first one waits for it; a call that asks for
    another model, control, device or precision loads that in its place.

        generator = hgc_video.Generator(model="puppet", preset="balanced")
        first = generator.generate("dance_pose.mp4", "a dancer in a red shirt")
        more = generator.generate("dance_pose.mp4", "a dancer in a green shirt", seed=[1, 2, 3])

    It makes one clip at a time: a thread needs a Generator of its own.

    Raises:
        InputError: an option that `generate` does not have.
        CacheStateError: of its methods, while it makes a clip in another thread, or for whose callback it is.
    """

    def __init__(self, model: str = "puppet", *, progress: bool = True, **options: Any) -> None:
        known = GenerateOptions.model_fields
        for name in options:
            if name not in known:
                raise InputError(f'Generator has no field "{name}": {nearest(name, known)}')
        self.options, self.progress = {"model": model, **options}, progress
        self._loaded: tuple[dict[str, Any], Any, Any] | None = None
        self._busy = Lock()
        self.num_loads = 0  # how often a pipeline was loaded
        # The names that clips tell of their inputs, by path, where these are copies of what was asked for.
        self.input_names: Mapping[str, str] = {}

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
        with self._alone():
            facts, every = self._decided(asked)
            shared = self._shared(every, facts, progress)
            return [self._one(one, every, shared, progress, callback) for one in every]

    def make_part(self, options: GenerateOptions, part: OtherPart) -> Account:
        """This process's part of a clip that another one decodes and writes."""
        from .sampling.make import make_part

        with self._alone():
            facts, every = self._decided([options])
            shared = self._shared(every, facts, False)
            return make_part(self._setup(every[0], every, shared, part))

    def unload(self) -> None:
        """Frees the pipeline; the next call loads one."""
        with self._alone():
            self._loaded = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Has this Generator do one thing at a time: its pipeline, scheduler and models hold the state of one
        run. CacheStateError where it is at something already."""
        if not self._busy.acquire(blocking=False):
            raise CacheStateError(
                "this Generator is making a clip already; make a Generator for each thread, or wait until "
                "the clip is done"
            )
        try:
            yield
        finally:
            self._busy.release()

    def _decided(
        self, asked: Sequence[GenerateOptions]
    ) -> tuple[ModelFacts, list[GenerateOptions]]:
        """What is known of the model, and the options with what it decides."""
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
            check_out(one)
            choose_fidelity(one)
        return facts, every

    def load(self, options: GenerateOptions) -> None:
        """Loads what these options need, so that the first clip does not wait for it."""
        parts = ModelParts.of(options)
        model = local_model(model_of(options.model, parts, options.offline), options.offline)
        with self._alone():
            self._pipeline(options.model_copy(update={"model": model}))

    def preview(self, latents: Any, num_frames: int) -> NDArray[np.uint8]:
        """Frames of a running clip side by side, (H W 3) uint8: as many, spread over the clip, decoded from
        the latents that a callback is given, as noisy as they are."""
        import numpy as np
        import torch

        from .sampling.stock_pipeline import adapter_of

        assert self._loaded is not None
        adapter = adapter_of(self._loaded[1])
        count = latents.shape[adapter.frames_axis]
        chosen = sorted({round(at) for at in np.linspace(0, count - 1, min(num_frames, count))})
        with torch.no_grad():
            picked = latents.index_select(
                adapter.frames_axis, torch.tensor(chosen, device=latents.device)
            )
            return np.concatenate(list(adapter.decode(picked, 1)), axis=1)

    def _shared(
        self, every: Sequence[GenerateOptions], facts: ModelFacts, progress: bool
    ) -> _Shared:
        """What all clips have in common."""
        options = every[0]
        chosen = resolve(options.preset, options.model)
        choose_device(options.device)
        budget = None if options.memory is None else parse_nbytes(options.memory)
        context = options.context(facts.max_frames)
        check_controls(
            options.model, options.control_kinds, ModelParts.of(options), options.offline
        )
        clock = Stopwatch()
        with clock("control"):
            begun = sha256_of_inputs(options)
            clips = read_controls(options, facts, progress)
            for one in every:
                one.check_prompt_frames(clips[0].shape[0])
            first, picture = read_first_frame(options, clips[0]), read_picture(options)
        if options.devices > 1:
            from .sampling.processes import check_devices

            check_devices(options, clips[0], context)
        tell_left_out(options, facts, clips)
        if options.auto_calibrate:
            chosen = _calibrated(options, own_folder(options.calibration_dir), progress)
        source = clips[0] if options.video is not None else None
        controls = tuple(clip for clip in clips if clip is not source)
        return _Shared(
            chosen, controls, facts, budget, context, clock, first, source, picture, begun
        )

    def _one(
        self, options: GenerateOptions, every: Sequence[GenerateOptions], shared: _Shared,
        progress: bool, callback: StepCallback | None,
    ) -> Clip:  # fmt: skip
        """One of the clips; one that was made before in its work folder is not made again."""
        from .jobs.checkpoint.work import Work  # loads torch, which wrong input need not wait for
        from .sampling.processes import several

        work = Work(options)
        with work.kept(), ExitStack() as stack:
            if (report := work.finished()) is not None:
                return _made_before(options, report, shared.shown)
            part = None
            if options.devices > 1:
                part = stack.enter_context(several(options, _make_part))
            return _made(self._setup(options, every, shared, part), callback, progress, work)

    def _setup(
        self, options: GenerateOptions, every: Sequence[GenerateOptions], shared: _Shared,
        part: Part | None,
    ) -> RunSetup:  # fmt: skip
        """What the run of one of the clips is made of; loads the pipeline."""
        from .sampling.make import RunSetup

        clock = shared.clock if options is every[0] else Stopwatch()
        with clock("load"):
            pipe = self._pipeline(options)
        if options is every[0]:
            for one in every:
                if one.prompt_syntax == "plain":
                    _check_lengths(one, pipe)
        preset = shared.preset.for_sampler(options.net, adds_noise=adds_noise(pipe.scheduler))
        return RunSetup(
            options, preset, shared.clips, pipe, clock, shared.facts, shared.budget,
            shared.context, shared.first, shared.source, shared.picture, part,
            InputFiles(self.input_names, shared.begun),
        )  # fmt: skip

    def _pipeline(self, options: GenerateOptions) -> Any:
        """The pipeline that the options need: the one before, or a newly loaded one in its place, also where
        a file of it was written to since."""
        told = {name: getattr(options, name) for name in LOADING}
        told |= {"kinds": options.control_kinds, "ip_adapter": options.ip_adapter is not None}
        parts = ModelParts.of(options)
        told |= {"files": local_state(options.model, parts)}
        if self._loaded is None or self._loaded[0] != told:
            self._loaded = None  # freed before the next one is loaded
            pipe = load_pipeline(
                options.model, *options.control_kinds, parts=parts, **_loading(options)
            )
            self._loaded = (told, pipe, pipe.scheduler)
            self.num_loads += 1
        _, pipe, own = self._loaded
        pipe.scheduler = scheduler_of(options.scheduler, own)
        if options.ip_adapter is not None:
            pipe.set_ip_adapter_scale(options.ip_adapter_scale)
        return pipe


def _make_part(options: GenerateOptions, part: OtherPart) -> Account:
    """What the other processes of a clip call."""
    return Generator().make_part(options, part)


def is_list(given: Mapping[str, Any]) -> bool:
    """Whether options of `generate` ask for a list of clips."""
    return any(isinstance(given.get(name), list | tuple) for name in ("prompt", "seed"))


def clips_of(given: Mapping[str, Any]) -> list[GenerateOptions]:
    """The options of every clip: of each prompt with the seed at its place, or with the one seed.

    Raises:
        InputError: an option that is not possible; lists of different length, or empty.
    """
    if not is_list(given):
        return [GenerateOptions(**_with_begun_seed(given))]
    lists = {n: v for n in ("prompt", "seed") if isinstance(v := given.get(n), list | tuple)}
    lengths = {name: len(values) for name, values in lists.items()}
    count = max(lengths.values())
    if set(lengths.values()) != {count} or not count:
        told = " and ".join(f"{length} {name}s" for name, length in lengths.items())
        raise InputError(f"{told} are given; give lists of one length, or one for all clips")
    made = []
    for at in range(count):
        one = {**given, **{name: values[at] for name, values in lists.items()}}
        for place in ("out", "work"):
            if one.get(place) is not None and count > 1:
                one[place] = numbered(one[place], at + 1)
        made.append(GenerateOptions(**_with_begun_seed(one)))
    return made


def _with_begun_seed(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options with the seed that a run drew which was begun in their work folder."""
    if given.get("work") is None or given.get("seed", 0) is not None:
        return given
    from .jobs.checkpoint.work import begun_seed

    return {**given, "seed": begun_seed(given["work"])}


@dataclass(frozen=True)
class _Shared:
    """What clips that differ in prompt, seed and file have in common: preset, control clips, facts of the
    model, memory budget, windows, how long that took, the first frame, the video that is restyled, the
    picture of an IP-Adapter, and the SHA-256 of their files."""

    preset: Preset
    clips: tuple[ControlClip, ...]
    facts: ModelFacts
    budget: int | None
    context: tuple[int, int]
    clock: Stopwatch
    first: NDArray[np.uint8] | None
    source: ControlClip | None
    picture: NDArray[np.uint8] | None
    begun: Mapping[str, str]

    @property
    def shown(self) -> ControlClip:
        """What a finished clip shows as its control: the first control clip, or else the video."""
        clip = self.clips[0] if self.clips else self.source
        assert clip is not None
        return clip


def _made(setup: RunSetup, callback: StepCallback | None, progress: bool, work: Work) -> Clip:
    from .sampling.make import make_frames

    again = choose_fidelity(setup.options)
    run, frames = make_frames(setup, callback, progress, work.keeper)
    measured = {}
    if again:
        with setup.stopwatch("fidelity"):
            measured = _fidelity(setup, frames, again)
    if work.write_s:
        setup.stopwatch.seconds["checkpoint"] = work.write_s
    report = replace(run.report(), fidelity=measured)
    work.finish(report)
    return Clip(
        frames=frames, fps=setup.lead.fps, control=_shown((*setup.clips, setup.lead)[0]), report=report,
        extras=extras_of(run),
    )  # fmt: skip


def _made_before(options: GenerateOptions, report: Report, control: ControlClip) -> Clip:
    """The clip that lies where it was written."""
    from .sampling.make import written_frames

    assert options.out is not None
    size = (report.num_frames, report.height, report.width)
    frames = written_frames(user_path(options.out), size)
    return Clip(frames=frames, fps=report.fps, report=report, control=_shown(control))


def _shown(control: ControlClip) -> Frames:
    """The control frames for who looks at the clip."""
    shown = control.stream
    return shown.as_array() if isinstance(shown, LazyFrames) else shown


def _fidelity(
    setup: RunSetup, frames: Frames, again: Mapping[str, Preprocessor]
) -> dict[str, dict[str, float | None]]:
    """How near the controls of a finished clip, extracted again, are to those it was made from; by kind."""
    import numpy as np

    from .evaluate.control_fidelity import control_fidelity

    options = setup.options
    # A long clip is not in memory; it is read from where it was written.
    made: VideoLike = np.asarray(frames) if options.out is None else options.out
    return {
        clip.kind: control_fidelity(made, clip, again[clip.kind], options.offline)
        for clip in setup.clips
        if clip.kind in again
    }


def _loading(options: GenerateOptions) -> dict[str, Any]:
    """Where and how models are loaded."""
    device, dtype = choose_device(options.device), choose_dtype(options.dtype)
    return {"device": device, "dtype": dtype, "offline": options.offline}


def _check_lengths(options: GenerateOptions, pipe: Any) -> None:
    for text in options.prompts:
        check_prompt_length(pipe.tokenizer, text)
    if options.negative_prompt:
        check_prompt_length(pipe.tokenizer, options.negative_prompt, "negative prompt")


def _calibrated(options: GenerateOptions, folder: Path, progress: bool) -> Preset:
    """The preset that stands for this one on this model, measured and searched where it is not yet."""
    import numpy as np
    from tqdm.auto import tqdm

    from .evaluate.samples import Sample, SampleSet
    from .media.video import probe
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
    frames = probe(clip).num_frames if isinstance(clip, str) else len(clip)
    source = SampleSet(options.model, None, 0, 1, frames, **_loading(options))
    log = partial(tqdm.write, file=sys.stderr) if progress else _silent
    steps = options.num_inference_steps or 0
    return own_schedule(source, sample, options.preset, steps, folder=folder, log=log)


def _silent(line: str) -> None:
    """Where no progress is to be shown."""
