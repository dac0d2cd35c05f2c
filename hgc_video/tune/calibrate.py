"""Calibrates a model: every sample is measured in its own job, and what is measured already is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..errors import at_least
from ..evaluate.jobs import workers
from ..evaluate.results_file import ResultsFile
from ..evaluate.samples import SampleSet
from ..evaluate.trials import kept_trials, trials
from ..models.identity import model_hash
from ..plan.calibration import Calibration, calibration_of, mean
from .record import record

_GAINS_EVERY = 4  # steps; with four clips and as many offsets every step is measured once


def calibrate(
    source: SampleSet, num_inference_steps: int, *, folder: Path, jobs: int = 1,
    depths: tuple[int, ...] = (0, 1), log: Callable[[str], None] = print,
) -> Calibration:  # fmt: skip
    """The mean over all samples; each one's is kept in `folder`, so that a stopped run goes on.

    InputError for a single step, which has none before it to reuse.
    """
    at_least("num_inference_steps", num_inference_steps, 2)
    model = f"{model_hash(source.model)}{source.scheduler}"
    # "products_as": those measured before 0.5 have none, and are measured again.
    task = f"calibrate products_as {model} {num_inference_steps} {source.num_frames} {depths}"
    samples = source.identities()
    results = ResultsFile(folder / "samples.jsonl")
    known = _known(results, task)
    missing = [index for index, sample in enumerate(samples) if sample not in known]
    with kept_trials(), workers(jobs) as each:
        results.check_writable()
        log(f"{source.count - len(missing)} of {source.count} samples are measured already")
        measure = partial(_measure, source, num_inference_steps, depths, results, task)
        each(measure, [(index, samples[index]) for index in missing])
    known = _known(results, task)
    results.require(samples, known)
    return _with_all_gains([calibration_of(known[sample], results.path) for sample in samples])


@dataclass(frozen=True)
class _Measured:
    """What is kept of a sample."""

    sample: int | str
    measured: dict[str, Any]


def _known(results: ResultsFile, task: str) -> dict[int | str, dict[str, Any]]:
    """What was measured, by sample."""
    return {one["sample"]: one["measured"] for one in results.read(task, _Measured)}


def _measure(
    source: SampleSet, num_inference_steps: int, depths: tuple[int, ...], results: ResultsFile,
    task: str, sample: tuple[int, int | str],
) -> None:  # fmt: skip
    index, identity = sample
    trial = trials(source)(index, num_inference_steps)
    with torch.no_grad():
        found = record(trial, depths, every=_GAINS_EVERY, offset=index)
    results.add(task, [{"sample": identity, "measured": found.to_dict()}])


def _with_all_gains(parts: list[Calibration]) -> Calibration:
    """The mean of all; sensitivity, which differ by factors between clips, by their geometric mean."""
    whole = mean(parts)
    rows = [torch.tensor(part.sensitivity).log() for part in parts]
    return replace(whole, sensitivity=tuple(torch.stack(rows).mean(0).exp().tolist()))
