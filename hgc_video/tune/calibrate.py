"""Calibrates a model: every sample is measured in its own job, and what is measured already is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..evaluate.jobs import workers
from ..evaluate.trials import SampleSet, kept_trials, model_hash, trials
from ..plan.calibration import Calibration, load_calibration, mean
from .record import record

_GAINS_EVERY = 4  # steps; with four clips and as many offsets every step is measured once


def calibrate(
    source: SampleSet, num_inference_steps: int, *, folder: Path, jobs: int = 1,
    depths: tuple[int, ...] = (0, 1), log: Callable[[str], None] = print,
) -> Calibration:  # fmt: skip
    """The mean over all samples; each one's is a file in `folder`, so that a stopped run goes on."""
    model = f"{model_hash(source.model)}{source.scheduler}"
    name = f"{model}-{num_inference_steps}-{source.num_frames}-{'.'.join(map(str, depths))}"
    todo = [
        (index, folder / f"{name}-{source.first + index}.yaml") for index in range(source.count)
    ]
    missing = [(index, path) for index, path in todo if not path.is_file()]
    folder.mkdir(parents=True, exist_ok=True)
    log(f"{source.count - len(missing)} of {source.count} samples are measured already")
    with kept_trials(), workers(jobs) as each:
        each(partial(_measure, source, num_inference_steps, depths), missing)
    parts = [load_calibration(path) for _, path in todo]
    return _with_all_gains(parts)


def _measure(
    source: SampleSet, num_inference_steps: int, depths: tuple[int, ...], job: tuple[int, Path]
) -> None:
    index, path = job
    trial = trials(source)(index, num_inference_steps)
    with torch.no_grad():
        found = record(trial, depths, every=_GAINS_EVERY, offset=index)
    part = path.with_suffix(".part")
    found.save(part)
    part.replace(path)


def _with_all_gains(parts: list[Calibration]) -> Calibration:
    """The mean of all; sensitivity, which differ by factors between clips, by their geometric mean."""
    whole = mean(parts)
    rows = [torch.tensor(part.sensitivity).log() for part in parts]
    return replace(whole, sensitivity=tuple(torch.stack(rows).mean(0).exp().tolist()))
