"""Puts the embedded model to the test on held-out specs and motions, against known truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluate.quality import psnr
from ..models.load import default_guidance_scale, load_pipeline, model_folder
from .fidelity import (
    background_flicker,
    gradient_energy,
    part_colours,
    silhouette_iou,
    wears_hat,
)
from .judge import Judge, load_judge
from .limb_recall import limb_recall, missing_limbs
from .motion import Motion, random_motion
from .prompts import plain_prompt
from .spec import COLOURS, NO_HAT, Spec, random_spec
from .world import Rendering, render

_HELD_OUT = 990_000_000  # training draws its shards from the seeds below


@dataclass(frozen=True)
class Options:
    """What is measured and on how many clips; `extras` clips, perhaps none, for the slower questions."""

    model: str = "puppet"
    clips: int = 64
    num_frames: int = 16
    num_inference_steps: int = 25
    guidance_scale: float = 0.0  # 0: the model's default
    extras: int = 4


@dataclass(frozen=True)
class Case:
    """One held-out clip: what is asked, its truth, and the seed of its noise."""

    spec: Spec
    truth: Rendering
    seed: int
    motion: Motion
    style_seed: int

    def room_for_a_hat(self) -> NDArray[np.bool_]:
        """What a hat alone would fill, or fills, of the frames (f H W)."""
        bare, hatted = (
            render(replace(self.spec, hat=hat), self.motion, self.style_seed)
            for hat in (NO_HAT, COLOURS[0])
        )
        return hatted.mask("hat") & ~bare.silhouette

    def control(self, kind: str) -> NDArray[np.uint8]:
        """The control clip (f H W 3) of this kind."""
        return self.truth.pose if kind == "pose" else self.truth.depth


def held_out(index: int, num_frames: int) -> Case:
    """The case of this number; always the same."""
    rng = np.random.default_rng([_HELD_OUT, index])
    spec = random_spec(rng)
    motion, style_seed = random_motion(rng, num_frames), int(rng.integers(2**31))
    return Case(spec, render(spec, motion, style_seed), 1000 + index, motion, style_seed)


class Sampler:
    """Plain clips of a case from the stock pipelines, one per control kind, sharing their parts."""

    def __init__(self, options: Options) -> None:
        self.options = options
        pose, depth = (load_pipeline(options.model, kind) for kind in ("pose", "depth"))
        self.pipes: dict[str, Any] = {"pose": pose, "depth": depth}
        self.scale = options.guidance_scale or default_guidance_scale(options.model)

    def __call__(
        self, case: Case, kind: str, *, spec: Spec | None = None, steps: int | None = None,
        seed: int | None = None, control: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:  # fmt: skip
        """Frames (f H W 3) uint8 of a case, perhaps with another prompt, control, seed or step count."""
        import torch
        from PIL import Image

        frames = case.control(kind) if control is None else control
        out = self.pipes[kind](
            prompt=plain_prompt(spec or case.spec), negative_prompt="", num_frames=len(frames),
            height=frames.shape[1], width=frames.shape[2], guidance_scale=self.scale,
            num_inference_steps=steps or self.options.num_inference_steps,
            conditioning_frames=[Image.fromarray(f) for f in frames],
            generator=torch.Generator().manual_seed(case.seed if seed is None else seed), output_type="np",
        ).frames[0]  # fmt: skip
        return np.asarray(np.round(out * 255), np.uint8)


def evaluate(options: Options, log: Callable[[str], None] = print) -> dict[str, Any]:
    """Every figure that the model is held to; means over clips unless said."""
    sample, judge = Sampler(options), _judge(options.model)
    figures: dict[str, Any] = {"options": vars(options), "guidance_scale": sample.scale}
    for kind in ("pose", "depth"):
        figures[kind] = _fidelity(sample, judge, kind, log)
    if options.extras:
        figures["freedom"] = _freedom(sample, judge, log)
        figures["fairness"] = _fairness(sample, log)
    return figures


def _judge(model: str) -> Judge:
    return load_judge(model_folder(model) / "judge.safetensors")


def _fidelity(
    sample: Sampler, judge: Judge, kind: str, log: Callable[[str], None]
) -> dict[str, Any]:
    """Half of the clips for each kind of control."""
    options = sample.options
    made, true = Figures(judge), Figures(judge)
    for index in range(0 if kind == "pose" else 1, options.clips, 2):
        case = held_out(index, options.num_frames)
        made.add(case, sample(case, kind))
        true.add(case, case.truth.frames)
        log(f"{kind} {index}: {made.last()}")
    return {**made.summary(), "of_true_clips": true.summary()}


class Figures:
    """What is measured of clips against their truth, gathered clip by clip."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.colours: list[tuple[str, str, str]] = []
        self.ious: list[float] = []
        self.flickers: list[float] = []
        self.limbs: list[NDArray[np.float64]] = []
        self.hats_wrong: list[bool] = []
        self.detail: list[tuple[float, float]] = []

    def add(self, case: Case, frames: NDArray[np.uint8]) -> None:
        """Takes the frames (f H W 3) that were made for a case."""
        truth = case.truth
        self.colours += part_colours(frames, truth, case.spec)
        self.ious.append(silhouette_iou(frames, truth.silhouette, self.judge))
        self.flickers.append(background_flicker(frames, truth.silhouette))
        self.limbs.append(limb_recall(frames, truth, case.spec, self.judge))
        hat = wears_hat(frames, case.room_for_a_hat(), self.judge)
        self.hats_wrong.append(hat != (case.spec.hat != NO_HAT))
        self.detail.append((gradient_energy(frames), gradient_energy(truth.frames)))

    def last(self) -> str:
        """The newest clip's figures in a line."""
        return (
            f"IoU {self.ious[-1]:.3f} limbs {np.nanmean(self.limbs[-1]):.3f} "
            f"hat {'wrong' if self.hats_wrong[-1] else 'right'} "
            f"colours so far {accuracy(self.colours):.3f}"
        )

    def summary(self) -> dict[str, Any]:
        """Means over clips unless said."""
        limbs = np.concatenate(self.limbs)
        energy, true_energy = np.mean(self.detail, axis=0)
        return {
            "clips": len(self.ious),
            "part_colour_accuracy": accuracy(self.colours),
            "by_part": {
                part: accuracy([c for c in self.colours if c[0] == part])
                for part in ("shirt", "trousers", "hat")
            },
            "silhouette_iou": float(np.mean(self.ious)),
            "silhouette_iou_min": float(np.min(self.ious)),
            "limb_recall": float(np.nanmean(limbs)),
            "limbs_missing": missing_limbs(limbs),
            "hats_wrong": float(np.mean(self.hats_wrong)),
            "background_flicker": float(np.mean(self.flickers)),
            "gradient_energy": float(energy / true_energy),
        }


def accuracy(colours: list[tuple[str, str, str]]) -> float:
    """Share of parts whose found colour is the asked one."""
    return (
        float(np.mean([asked == found for _, asked, found in colours])) if colours else float("nan")
    )


def _freedom(sample: Sampler, judge: Judge, log: Callable[[str], None]) -> dict[str, Any]:
    """What changes, and what does not, with another control, prompt or seed."""
    options = sample.options
    other_iou, other_prompt, seed_psnr, seed_colours = [], [], [], []
    for index in range(options.extras):
        case, other = held_out(index, options.num_frames), held_out(index + 500, options.num_frames)
        moved = sample(case, "pose", control=other.truth.pose)
        other_iou.append(silhouette_iou(moved, case.truth.silhouette, judge))
        redressed = sample(case, "pose", spec=replace(other.spec, hat=case.spec.hat))
        other_prompt += part_colours(redressed, case.truth, case.spec)[:2]
        first, second = sample(case, "pose"), sample(case, "pose", seed=case.seed + 1)
        seed_psnr.append(psnr(first, second))
        seed_colours += part_colours(second, case.truth, case.spec)
        log(
            f"freedom {index}: other control IoU {other_iou[-1]:.3f}, other seed {seed_psnr[-1]:.1f} dB"
        )
    return {
        "iou_with_another_control": float(np.mean(other_iou)),
        "accuracy_with_another_prompt": accuracy(other_prompt),
        "psnr_between_seeds_db": float(np.mean(seed_psnr)),
        "accuracy_with_another_seed": accuracy(seed_colours),
    }


def _fairness(sample: Sampler, log: Callable[[str], None]) -> dict[str, Any]:
    """PSNR to 50 plain steps at the same noise, for fewer plain steps."""
    found: dict[int, list[float]] = {8: [], 13: [], 25: []}
    for index in range(sample.options.extras):
        case = held_out(index, sample.options.num_frames)
        reference = sample(case, "pose", steps=50)
        for steps, values in found.items():
            values.append(psnr(sample(case, "pose", steps=steps), reference))
        log(
            f"fairness {index}: " + ", ".join(f"{k} steps {v[-1]:.1f} dB" for k, v in found.items())
        )
    return {f"psnr_of_{k}_steps_to_50_db": float(np.mean(v)) for k, v in found.items()}
