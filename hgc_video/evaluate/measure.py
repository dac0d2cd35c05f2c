"""One clip under every method: what it cost, how far it is from the uncached and the converged result, and
what it keeps of control and prompt."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import at_least
from ..measure.peak_memory import PeakMemory
from ..models.schedulers import adds_noise
from ..plan.cost import full_cost
from .fidelity import fidelity
from .methods import Method, make_method
from .perceptual import clip_score, lpips, video_features
from .quality import Frames, flicker, psnr, ssim, structure_distance
from .samples import SampleSet
from .trials import Trial, trials


@dataclass(frozen=True)
class Networks:
    """Trained networks to judge by, where they are present: folders of a CLIP and of a VideoMAE model, and
    whether LPIPS is measured."""

    clip: Path | None = None
    video: Path | None = None
    lpips: bool = False


@dataclass(frozen=True)
class CompareConfig:
    """The clips of a source, each with so many noises; every method meets all of them. Without
    converged_steps (0) nothing is compared with a converged run.

    Raises:
        InputError: seeds or num_inference_steps below 1, converged_steps below 0.
    """

    source: SampleSet
    num_inference_steps: int
    converged_steps: int
    seeds: int = 1
    networks: Networks = Networks()

    def __post_init__(self) -> None:
        at_least("num_inference_steps", self.num_inference_steps, 1)
        at_least("converged_steps", self.converged_steps, 0)
        at_least("seeds", self.seeds, 1)


@dataclass(frozen=True)
class Figures:
    """One method on one clip and noise.

    macs_saved: of the denoising loop, ControlNet included, against the uncached run. time_ratio: of
    the loop, to the uncached one of the same process. kept_nbytes: the cache at its largest;
    peak_nbytes: of the loop, on the CPU of the whole process.
    psnr_db, ssim, structure_distance: to the uncached result; converged_db: to the converged one, None
    without it.
    colours, iou, control: as in Fidelity. flicker: mean change between frames, to the uncached clip's.
    lpips: to the uncached result; clip_score: to the prompt; features: of the clip under a VideoMAE
    model, for the Fréchet distance. All three None without their networks.
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
    converged_db: float | None
    colours: float | None
    iou: float | None
    flicker: float
    control: float | None = None
    peak_nbytes: int = 0
    lpips: float | None = None
    clip_score: float | None = None
    features: list[float] | None = None


@dataclass(frozen=True)
class _Made:
    frames: Frames
    seconds: float
    macs: int
    kept_nbytes: int
    peak_nbytes: int
    trial: Trial


def measure(task: CompareConfig, words: list[str], clip: int, seed: int) -> list[dict[str, Any]]:
    """The figures of every method on one clip and noise; the uncached run is made first, so that what it
    costs and what the others cost is measured side by side."""
    with torch.no_grad():
        reference = _make(task, make_method("off"), clip, seed)
        converged = None
        if task.converged_steps:
            longer = make_method(f"fewer-steps:steps={task.converged_steps}")
            converged = _make(task, longer, clip, seed)
        return [asdict(_figures(task, word, clip, seed, reference, converged)) for word in words]


def frames_of(task: CompareConfig, word: str, clip: int, seed: int) -> Frames:
    """The clip (f H W 3) of a method, to be looked at."""
    with torch.no_grad():
        return _make(task, make_method(word), clip, seed).frames


def _figures(
    task: CompareConfig, word: str, clip: int, seed: int, reference: _Made, converged: _Made | None
) -> Figures:
    method = make_method(word)
    made = reference if word == "off" else _make(task, method, clip, seed)
    return Figures(
        method=word, clip=clip, seed=seed, macs_saved=1 - made.macs / reference.macs,
        time_ratio=made.seconds / reference.seconds, kept_nbytes=made.kept_nbytes,
        psnr_db=psnr(made.frames, reference.frames), ssim=ssim(made.frames, reference.frames),
        structure_distance=structure_distance(made.frames, reference.frames),
        converged_db=None if converged is None else psnr(made.frames, converged.frames),
        flicker=flicker(made.frames) / max(flicker(reference.frames), 1e-6),
        peak_nbytes=made.peak_nbytes, **asdict(fidelity(task.source, clip, made.trial, made.frames)),
        **_seen(task.networks, made, reference),
    )  # fmt: skip


def _seen(networks: Networks, made: _Made, reference: _Made) -> dict[str, Any]:
    """What the trained networks say that are present."""
    seen: dict[str, Any] = {}
    if networks.lpips:
        seen["lpips"] = lpips(made.frames, reference.frames)
    if networks.clip is not None:
        seen["clip_score"] = clip_score(made.frames, made.trial.prompt, networks.clip)
    if networks.video is not None:
        seen["features"] = video_features(made.frames, networks.video).round(5).tolist()
    return seen


def _make(task: CompareConfig, method: Method, clip: int, seed: int) -> _Made:
    steps = method.preset.num_steps(task.num_inference_steps)
    trial: Trial = trials(task.source)(clip, steps, variant=seed)
    own = trial.pipe.scheduler
    trial.pipe.scheduler = method.scheduler(own, task.num_inference_steps)
    try:
        evaluations = _evaluations(trial.pipe.scheduler, steps)
        preset = method.preset.for_sampler(adds_noise=adds_noise(trial.pipe.scheduler))
        plan = preset.schedule(trial.graph, evaluations)
        with PeakMemory(str(trial.pipe.unet.device)) as memory:
            begun = time.perf_counter()
            latents: Tensor = trial.latents(plan)
            _wait_for(latents)
            seconds = time.perf_counter() - begun
    finally:
        trial.pipe.scheduler = own
    engine = None if plan.is_stock else trial.engine
    if engine is None:
        macs, kept = full_cost(trial.graph, evaluations).total, 0
    else:
        macs, kept = sum(engine.log.macs_by_part().values()), engine.peak_nbytes
    return _Made(trial.decode(latents), seconds, macs, kept, memory.nbytes, trial)


def _wait_for(latents: Tensor) -> None:
    if latents.device.type == "cuda":  # which runs on while Python goes ahead
        torch.cuda.synchronize(latents.device)


def _evaluations(scheduler: Any, steps: int) -> int:
    scheduler.set_timesteps(steps)
    return len(scheduler.timesteps)
