"""One clip under every method: what it cost, how far it is from the uncached and the converged result, and
what it keeps of control and prompt."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..measure.quality import Frames, flicker, psnr, ssim, structure_distance
from ..models.load import EMBEDDED, model_folder
from ..plan.cost import full_cost
from ..tune.trials import Source, Trial, trials
from .methods import Method, make_method


@dataclass(frozen=True)
class Task:
    """The clips of a source, each with so many noises; every method meets all of them."""

    source: Source
    num_inference_steps: int
    converged_steps: int
    seeds: int = 1


@dataclass(frozen=True)
class Figures:
    """One method on one clip and noise.

    macs_saved: of the denoising loop, ControlNet included, against the uncached run. time_ratio: of
    the loop, to the uncached one of the same process. kept_nbytes: the cache at its largest.
    psnr_db, ssim, structure_distance: to the uncached result; converged_db: to the converged one.
    colours, iou: share of prompted parts in the asked colour and overlap with the true silhouette,
    where the truth is known (None else). flicker: mean change between frames, to the uncached clip's.
    """

    method: str
    clip: int
    seed: int
    macs_saved: float
    time_ratio: float
    kept_nbytes: int
    psnr_db: float
    ssim: float
    structure_distance: float
    converged_db: float
    colours: float | None
    iou: float | None
    flicker: float


@dataclass(frozen=True)
class _Made:
    frames: Frames
    seconds: float
    macs: int
    kept_nbytes: int


def measure(task: Task, words: list[str], clip: int, seed: int) -> list[dict[str, Any]]:
    """The figures of every method on one clip and noise; the uncached run is made first, so that what it
    costs and what the others cost is measured side by side."""
    with torch.no_grad():
        reference = _make(task, make_method("off"), clip, seed)
        converged = _make(
            task, make_method(f"fewer-steps:steps={task.converged_steps}"), clip, seed
        )
        return [asdict(_figures(task, word, clip, seed, reference, converged)) for word in words]


def frames_of(task: Task, word: str, clip: int, seed: int) -> Frames:
    """The clip (f H W 3) of a method, to be looked at."""
    with torch.no_grad():
        return _make(task, make_method(word), clip, seed).frames


def _figures(
    task: Task, word: str, clip: int, seed: int, reference: _Made, converged: _Made
) -> Figures:
    method = make_method(word)
    made = reference if word == "off" else _make(task, method, clip, seed)
    colours, iou = _fidelity(task, clip, made.frames)
    return Figures(
        method=word, clip=clip, seed=seed, macs_saved=1 - made.macs / reference.macs,
        time_ratio=made.seconds / reference.seconds, kept_nbytes=made.kept_nbytes,
        psnr_db=psnr(made.frames, reference.frames), ssim=ssim(made.frames, reference.frames),
        structure_distance=structure_distance(made.frames, reference.frames),
        converged_db=psnr(made.frames, converged.frames), colours=colours, iou=iou,
        flicker=flicker(made.frames) / max(flicker(reference.frames), 1e-6),
    )  # fmt: skip


def _make(task: Task, method: Method, clip: int, seed: int) -> _Made:
    steps = method.preset.num_steps(task.num_inference_steps)
    trial: Trial = trials(task.source)(clip, steps, variant=seed)
    own = trial.pipe.scheduler
    trial.pipe.scheduler = method.scheduler(own)
    try:
        evaluations = _evaluations(trial.pipe.scheduler, steps)
        plan = method.preset.schedule(trial.graph, evaluations)
        begun = time.perf_counter()
        latents: Tensor = trial.latents(plan)
        seconds = time.perf_counter() - begun
    finally:
        trial.pipe.scheduler = own
    engine = trial.engine if plan is not None else None
    if engine is None:
        macs, kept = full_cost(trial.graph, evaluations).total, 0
    else:
        macs, kept = sum(engine.macs_by_part().values()), engine.peak_nbytes
    return _Made(trial.decode(latents), seconds, macs, kept)


def _evaluations(scheduler: Any, steps: int) -> int:
    scheduler.set_timesteps(steps)
    return len(scheduler.timesteps)


def _fidelity(task: Task, clip: int, frames: Frames) -> tuple[float | None, float | None]:
    """Prompt and control fidelity against the truth, which the embedded model's world knows."""
    source = task.source
    if source.model != EMBEDDED or source.listed is not None:
        return None, None
    from ..puppet.evaluation import accuracy, held_out
    from ..puppet.fidelity import part_colours, silhouette_iou

    case = held_out(source.first + clip, source.num_frames)
    found = part_colours(frames, case.truth, case.spec)
    return (accuracy(found) if found else None), silhouette_iou(
        frames, case.truth.silhouette, _judge()
    )


@cache
def _judge() -> Any:
    from ..puppet.judge import load_judge

    return load_judge(model_folder(EMBEDDED) / "judge.safetensors")
