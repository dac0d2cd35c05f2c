"""What a task of the line does: a clip, a control, or a batch. Loads torch and the model, once."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import sys
import time
import traceback
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import Cancelled, HGCVideoError, text_of
from ..files import numbered, write_text
from ..options import GenerateOptions
from .estimate import Estimates
from .line import Task

if TYPE_CHECKING:
    from ..clip import Clip
    from ..generator import Generator

_PREVIEW_SHARE = 0.02  # of a run's time that previews may take
_SHOWN = 3  # frames of a preview


class Maker:
    """Works tasks off with one Generator, whose model stays loaded between them.

    `state` is what the page shows of the model: loading, ready, or why it cannot be loaded.
    """

    def __init__(self, estimates: Estimates, model: str) -> None:
        self._estimates, self._model = estimates, model
        self._generator: Generator | None = None
        self._preview_s: dict[Any, float] = {}  # what the last preview took, by model and size
        self.state = "loading"
        self.load_s = 0.0

    def prepare(self) -> None:
        """Loads the libraries and the first model."""
        began = time.monotonic()
        try:
            # Two threads that import diffusers at a time find half of it.
            with self._estimates.lock:
                self._load()
            self.state = "ready"
        except Exception as error:  # told; a run with another model may do
            if not isinstance(error, HGCVideoError):
                traceback.print_exc(file=sys.stderr)
            self.state = text_of(error) or type(error).__name__
        # The half million objects of the libraries stay; to go through them after each run would take a third
        # of a second.
        gc.collect()
        gc.freeze()
        self.load_s = time.monotonic() - began

    def _load(self) -> None:
        import torch

        from ..generator import Generator
        from ..models.device import choose_device
        from ..sampling.outlook import likely_macs_per_s

        self._generator = Generator(progress=False)
        device = choose_device(None)
        dtype = torch.float16 if device.startswith("cuda") else torch.float32
        self._estimates.first_rate = likely_macs_per_s(device, dtype)
        self._estimates.dtype_nbytes = dtype.itemsize
        self._generator.load(GenerateOptions(control_video="any", model=self._model))

    def __call__(self, task: Task) -> None:
        """Does a task. Raises Cancelled where it was cancelled meanwhile."""
        try:
            {"clip": self._clip, "control": _control, "batch": _batch}[task.kind](task)
        finally:
            _give_memory_back()
        if task.cancelled and task.kind != "batch":
            raise Cancelled("cancelled")

    def _clip(self, task: Task) -> None:
        assert self._generator is not None
        generator, previews = self._generator, _Previews(task, self._preview_s)
        generator.input_names = task.names  # which the clip tells
        task.stage = "reading the clip and loading what is missing"
        out = task.folder / "clip.mp4"
        # A comparison needs the frames as they were made, not as the codec left them.
        kept: dict[str, Any] = {} if task.group else {"out": out}

        def callback(step: int, steps: int, latents: Any) -> bool:
            previews.step(generator, step, steps, latents)
            return not task.cancelled

        (clip,) = generator.make([GenerateOptions(**task.options, **kept)], False, callback)
        if task.group:
            _keep_frames(clip, task.folder)
        clip.report.save(task.folder / "report.json")
        write_text(task.folder / "shot.yaml", shot_text(task.options, task.names))
        task.result = _result(clip)
        self._learn(clip)

    def _learn(self, clip: Clip) -> None:
        """What this machine did is the best prediction of what it will do."""
        report = clip.report
        macs = sum(report.macs_by_part.get(part, 0) for part in ("unet", "controlnet"))
        seconds = report.seconds["total"] - report.seconds.get("load", 0.0)
        self._estimates.rates[report.model] = macs / max(seconds, 1e-3)


class _Previews:
    """Pictures of the running clip. All of a run take a fiftieth of the time since it began, by what the last
    one took; the first of a model and size, which nothing is known of, comes after the first step."""

    def __init__(self, task: Task, taken_s: dict[Any, float]) -> None:
        self._task, self._taken_s = task, taken_s
        self._began, self._spent_s = time.monotonic(), 0.0

    def step(self, generator: Generator, step: int, steps: int, latents: Any) -> None:
        """After a step: counts it, and shows the clip where it is time."""
        self._task.at_step(step + 1, steps)
        key = (self._task.options.get("model"), tuple(latents.shape[-2:]))
        after_s = self._spent_s + self._taken_s.get(key, 0.0)
        since_s = time.monotonic() - self._began
        if step + 1 < steps and after_s <= _PREVIEW_SHARE * since_s:
            self._taken_s[key] = self._show(generator, latents)
            self._spent_s += self._taken_s[key]

    def _show(self, generator: Generator, latents: Any) -> float:
        """Makes a preview; gives back the seconds that it took."""
        from PIL import Image

        if latents.is_cuda:  # the step may still be at work, which is no time of the preview
            import torch

            torch.cuda.synchronize(latents.device)
        began = time.monotonic()
        frames = generator.preview(latents, _SHOWN)
        file = io.BytesIO()
        Image.fromarray(frames).save(file, "png", compress_level=1)
        part = self._task.folder / "preview.part"
        part.write_bytes(file.getvalue())
        part.replace(part.with_suffix(".png"))  # whole: the page may be reading it
        self._task.previews += 1
        return time.monotonic() - began


def _control(task: Task) -> None:
    """Takes the control from a raw clip, or reads a ready one, as a run would; a picture for each frame."""
    from ..media.video import write_video
    from ..models.load import read_facts
    from ..models.parts import ModelParts
    from ..sampling.controls import read_controls

    options = GenerateOptions(**task.options)
    task.stage = "taking the control from the clip" if options.extract else "reading the control"
    facts = read_facts(options.model, ModelParts.of(options), offline=True)
    clip = read_controls(options, facts)[-1]
    write_video(task.folder / "control", _until_cancelled(clip.frames, task), clip.fps)
    task.result = {
        "taken": list(clip.taken), "num_frames": clip.shape[0], "fps": clip.fps, "height": clip.shape[1],
        "width": clip.shape[2], "num_people": clip.num_people, "num_empty": clip.num_empty,
        "num_bridged": clip.num_bridged,
    }  # fmt: skip


def _until_cancelled(frames: Any, task: Task) -> Any:
    for frame in frames:
        if task.cancelled:
            raise Cancelled("cancelled")
        yield frame


def _batch(task: Task) -> None:
    """Works a batch folder off, as `hgc-video batch FOLDER` does."""
    from ..jobs.batch import EngineChoice, work_off
    from ..jobs.drive import Stop

    task.stage = "working the batch off"
    stop = Stop(lambda: task.cancelled)
    work_off(Path(task.options["folder"]), EngineChoice(), lambda event: None, stop)


def shot_text(options: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The shot file of options: uploaded files by their own names, to lie beside it."""
    told = _with_names(options, names)
    video = told.pop("control_video", None)
    if video is not None:
        told = {"control": {told.pop("control", "pose"): video}, **told}
    head = "# A shot of hgc-video, with the files that it names beside it:  hgc-video run FILE\n"
    numbers = count(2)
    out = Path("clip.mp4")
    while str(out) in names.values():  # which lies beside the shot, and would be written over
        out = numbered("clip.mp4", next(numbers))
    body = yaml.safe_dump({**told, "out": str(out)}, sort_keys=False, allow_unicode=True)
    return f"{head}{body}"


def _with_names(value: Any, names: Mapping[str, str]) -> Any:
    """Options with uploaded files by their own names, wherever they stand."""
    if isinstance(value, Mapping):
        return {_with_names(k, names): _with_names(v, names) for k, v in value.items()}
    return names.get(value, value) if isinstance(value, str) else value


def _give_memory_back() -> None:
    """Frees what a run left in cycles, and has glibc return what is free to the system: otherwise a process
    that makes many clips grows by some MiB with each."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _keep_frames(clip: Clip, folder: Path) -> None:
    import numpy as np

    clip.save(folder / "clip.mp4")
    np.save(folder / "frames.npy", np.asarray(clip.frames))


def _result(clip: Clip) -> dict[str, Any]:
    report = clip.report
    return {
        "summary": report.summary(), "macs": report.macs, "macs_baseline": report.macs_baseline,
        "macs_saved": report.macs_saved, "seconds": report.seconds["total"],
        "peak_nbytes": report.peak_nbytes, "num_frames": report.num_frames, "fps": report.fps,
        "height": report.height, "width": report.width, "preset": report.preset,
        "steps": report.num_inference_steps, "sound": clip.extras.sound is not None,
    }  # fmt: skip
