"""What a run cost and under which settings, of `generate` and of `enable_cache`: numbers, text and JSON.

Knows nothing about how the numbers were measured. MACs are multiply-accumulates, every product
counted; a part is one of text_encoder, image_encoder, controlnet, unet, vae.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from .errors import InputError, one_line
from .files import write_text
from .plain_data import parse_json
from .plan.explain import StepSummary
from .plan.policies.net import NET
from .plan.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class MacTotals:
    """MACs by part: executed, and those that the same run without a cache takes."""

    macs_by_part: Mapping[str, int]
    macs_baseline_by_part: Mapping[str, int]

    @property
    def macs(self) -> int:
        """MACs executed, all parts."""
        return sum(self.macs_by_part.values())

    @property
    def macs_baseline(self) -> int:
        """MACs of the same run without a cache, all parts."""
        return sum(self.macs_baseline_by_part.values())

    @property
    def macs_saved(self) -> float:
        """The share of the baseline that was not executed, 0..1."""
        return 1 - self.macs / self.macs_baseline if self.macs_baseline else 0.0


class Stopwatch:
    """Adds up wall-clock seconds by stage name: `with clock("decode"): ...`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Times one stage; also when it fails."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began

    def totals(self) -> dict[str, float]:
        """Seconds of every stage and of all since the watch was made, as `total`."""
        return {**self.seconds, "total": time.perf_counter() - self._began}


_DERIVED = ("macs", "macs_baseline", "macs_saved")


@dataclass(frozen=True, kw_only=True)
class Report(MacTotals):
    """The account of one run; print it, or `save` it as JSON.

    `macs_by_part` is what was executed, `macs_baseline_by_part` what the same run without a cache
    takes; `seconds` is wall-clock time by stage (load, encode, denoise, decode, ...) and `total`, and
    `checkpoint`, which lies within denoise and decode;
    `peak_nbytes` the memory peak of the run, `cache_nbytes` the most that the cache held at once,
    `cache_device_nbytes` and `cache_host_nbytes` the most of it on the device and in the offload tier
    (pinned host memory; on the CPU a mapped file), `copied_to_host_nbytes` and `copied_to_device_nbytes`
    what went there and back; `image` what the clip begins with, of models that do; `schedule` the plan that
    was carried out, with the reason of every step; `steps` a row of figures for each step;
    `options` every option of the run, as it was given or decided; `memory` how the clip was split to fit and
    `predicted_peak_nbytes` what that was predicted to take (0: nothing was split, so nothing was predicted);
    `resumed_at` the steps that had been made when the run went on from a checkpoint, since when `seconds` and
    `peak_nbytes` are measured;
    of several devices `seconds` are those of the first one's process, `exchange` within denoise,
    `peak_nbytes` is the most of any process, MACs and bytes of the cache are the sum of all, and
    `exchanged_nbytes` went from one process to another;
    of extracted skeletons, `control_frames_bridged` lie in short gaps of the detection and were drawn
    between their neighbours, and `control_frames_empty` show nobody and are black; `fidelity` how near the
    controls are that were extracted from the finished clip again, by kind, where that was asked for.
    """

    prompt: str
    negative_prompt: str | None
    model: str
    preset: str
    num_inference_steps: int
    guidance_scale: float
    conditioning_scale: float | dict[str, float]
    seed: int
    num_frames: int
    height: int
    width: int
    fps: float
    device: str
    dtype: str
    seconds: Mapping[str, float]
    peak_nbytes: int
    cache_nbytes: int = 0
    cache_device_nbytes: int = 0
    cache_host_nbytes: int = 0
    copied_to_host_nbytes: int = 0
    copied_to_device_nbytes: int = 0
    schedule: Schedule
    steps: tuple[StepSummary, ...]
    memory: str
    predicted_peak_nbytes: int
    versions: Mapping[str, str]
    options: Mapping[str, Any]
    image: str = ""
    control_frames_bridged: int = 0
    control_frames_empty: int = 0
    fidelity: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    resumed_at: int = 0
    exchanged_nbytes: int = 0

    def to_json(self) -> str:
        """All fields, and `macs`, `macs_baseline` and `macs_saved` before them."""
        derived = {name: getattr(self, name) for name in _DERIVED}
        told = {**derived, **asdict(self), "schedule": self.schedule.to_dict()}
        return json.dumps(told, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote; InputError says what is no field, missing, or not possible."""
        try:
            given: dict[str, Any] = dict(parse_json(text))
        except (ValueError, TypeError) as error:
            raise InputError(f"this is no report: {error}; give what to_json wrote") from error
        if any(abs(number) >= 2**64 for number in _whole_numbers(given)):
            raise InputError("this is no report: it counts beyond 64 bits; give what to_json wrote")
        for name in _DERIVED:
            given.pop(name, None)
        known = {f.name for f in fields(cls)}
        needed = {
            f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING
        }
        for problem, names in (("lacks", needed - set(given)), ("has unknown", set(given) - known)):
            if names:
                raise InputError(f"the report {problem} {', '.join(sorted(names))}")
        given["schedule"] = Schedule.from_dict(given["schedule"])
        try:
            return _adapter().validate_python(given)
        except ValidationError as error:
            raise InputError(one_line(error, "a report", known)) from error

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the JSON and returns its path; InputError where it cannot be written."""
        return write_text(path, self.to_json() + "\n")

    def summary(self) -> str:
        """Settings and cost as text, without the steps."""
        return "\n".join([*self._heading(), *self._cost()])

    def __str__(self) -> str:
        return "\n".join([self.summary(), "steps", *(f"  {line}" for line in self.steps)])

    def _heading(self) -> list[str]:
        avoided = f'  without "{self.negative_prompt}"' if self.negative_prompt else ""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return [
            f"image     {self.image}" if self.image else f'prompt    "{self.prompt}"{avoided}',
            f"model     {self.model}, {self.dtype} on {self.device}",
            f"preset    {self.preset}: {self.num_inference_steps} steps, seed {self.seed}, "
            f"guidance {self.guidance_scale:g}, conditioning {_scales(self.conditioning_scale)}",
            f"clip      {self.num_frames} frames of {self.width}x{self.height} at {self.fps:g} fps"
            f"{self._gaps()}",
            f"versions  {versions}",
        ]

    def _cost(self) -> list[str]:
        baseline = self.macs_baseline_by_part
        parts = ", ".join(
            f"{name} {_tera(macs)} of {_tera(baseline.get(name, macs))}"
            for name, macs in self.macs_by_part.items()
        )
        stages = ", ".join(f"{k} {s:.1f}" for k, s in self.seconds.items() if k != "total")
        total = self.seconds.get("total", sum(self.seconds.values()))
        resumed = f", since step {self.resumed_at}" if self.resumed_at else ""
        return [
            f"MACs      {_tera(self.macs)} of {_tera(self.macs_baseline)} T: "
            f"{100 * self.macs_saved:.1f} % saved ({parts})",
            f"seconds   {total:.1f} ({stages}{resumed})",
            f"memory    {_mebi(self.peak_nbytes)} at most, the cache {_mebi(self.cache_nbytes)}"
            f"{self._tiers()}",
            *decided(self.steps),
            *self._devices(),
            *(f"fidelity  {kind}: {_measures(told)}" for kind, told in self.fidelity.items()),
        ]

    def _devices(self) -> list[str]:
        if not self.exchanged_nbytes:
            return []
        exchanged = f"{self.exchanged_nbytes / 2**20:.3g} MiB exchanged"
        return [f"devices   {self.options['devices']}, {exchanged}"]

    def _gaps(self) -> str:
        """Frames in which pose extraction found nobody, if there are any."""
        if not self.control_frames_bridged and not self.control_frames_empty:
            return ""
        return (
            f"; no person found in {self.control_frames_bridged + self.control_frames_empty}: "
            f"{self.control_frames_bridged} bridged, {self.control_frames_empty} left black"
        )

    def _tiers(self) -> str:
        """Where the cache lay, if not on the device alone."""
        if not self.cache_host_nbytes:
            return ""
        return (
            f": {_mebi(self.cache_device_nbytes)} on the device and {_mebi(self.cache_host_nbytes)} "
            f"off it, {_mebi(self.copied_to_host_nbytes)} copied there and "
            f"{_mebi(self.copied_to_device_nbytes)} back"
        )


def _whole_numbers(data: Any) -> Iterator[int]:
    """Those that plain data hold."""
    if isinstance(data, int):
        yield data
    elif isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            yield from _whole_numbers(value)


@cache
def _adapter() -> TypeAdapter[Report]:
    return TypeAdapter(Report)


def decided(steps: Sequence[StepSummary]) -> list[str]:
    """What was measured and decided at run time, in a line or two; none where nothing was."""
    lines = []
    errors = [row.forecast_error for row in steps if row.forecast_error is not None]
    if errors:
        lines.append(
            f"measured  {len(errors)} forecasts at computed steps, relative errors {min(errors):.2g} to "
            f"{max(errors):.2g}"
        )
    caught = [str(row.step) for row in steps if row.label.endswith(NET)]
    if caught:
        lines.append(
            f"net       {len(caught)} steps were computed, not reused: {', '.join(caught)}"
        )
    return lines


def _scales(told: float | dict[str, float]) -> str:
    if isinstance(told, dict):
        return ", ".join(f"{kind} {scale:g}" for kind, scale in told.items())
    return f"{told:g}"


def _measures(told: Mapping[str, float | None]) -> str:
    known = {name.replace("_", " "): value for name, value in told.items() if value is not None}
    return ", ".join(f"{name} {value:.3f}" for name, value in known.items())


def _tera(macs: int) -> str:
    return f"{macs / 1e12:.3g}"


def _mebi(nbytes: int) -> str:
    return f"{nbytes / 2**20:.0f} MiB"


@dataclass(frozen=True, kw_only=True)
class CacheReport(MacTotals):
    """The last run under `enable_cache`: MACs by part that were executed and that the same run without a
    cache executes (VAE and text encoder left out), bytes that the cache held at most, the schedules that
    were carried out (one, and one more for each time the run was planned anew), and a row of figures for
    every step."""

    pipeline: str
    preset: str
    num_inference_steps: int
    num_frames: int
    height: int
    width: int
    cache_nbytes: int
    schedules: tuple[Schedule, ...]
    steps: tuple[StepSummary, ...]

    def to_json(self) -> str:
        """All fields, and the share saved."""
        schedules = [schedule.to_dict() for schedule in self.schedules]
        told = {"macs_saved": self.macs_saved, **asdict(self), "schedules": schedules}
        return json.dumps(told, indent=2)

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.pipeline}, {self.preset}: {self.num_inference_steps} steps, "
                f"{self.num_frames} frames of {self.width}x{self.height} latents",
                f"MACs      {self.macs / 1e12:.3g} of {self.macs_baseline / 1e12:.3g} T: "
                f"{100 * self.macs_saved:.1f} % saved",
                f"cache     {self.cache_nbytes / 2**20:.0f} MiB at most",
                *decided(self.steps),
                "steps",
                *(f"  {line}" for line in self.steps),
            ]
        )
