"""Puts the embedded model to the test on held-out specs and motions, against known truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluate.quality import psnr
from ..evaluate.results_file import ResultsFile
from ..models.identity import model_hash
from ..models.load import EMBEDDED, default_guidance_scale, load_pipeline, model_folder
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
Row = dict[str, Any]  # the figures of one clip


@dataclass(frozen=True)
class Options:
    """What is measured and on how many clips; `extras` clips, perhaps none, for the slower questions."""

    model: str = EMBEDDED
    clips: int = 64
    num_frames: int = 16
    num_inference_steps: int = 25
    # A folder holds the same model at another stage of its training: the scale is the embedded model's too.
    guidance_scale: float = default_guidance_scale(EMBEDDED)
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
            height=frames.shape[1], width=frames.shape[2], guidance_scale=self.options.guidance_scale,
            num_inference_steps=steps or self.options.num_inference_steps,
            conditioning_frames=[Image.fromarray(f) for f in frames],
            generator=torch.Generator().manual_seed(case.seed if seed is None else seed), output_type="np",
        ).frames[0]  # fmt: skip
        return np.asarray(np.round(out * 255), np.uint8)


@dataclass(frozen=True)
class _OfClip:
    """What is kept of a clip."""

    of: str
    figures: Row


class Kept:
    """Figures of single clips, kept in a file so that a stopped evaluation goes on, or in none."""

    def __init__(self, options: Options, path: Path | None) -> None:
        self._file = None if path is None else ResultsFile(path)
        told = f"{model_hash(options.model)} {options.num_frames} {options.num_inference_steps}"
        self._task = f"evaluate {options.model} {told} {options.guidance_scale}"
        rows = self._file.read(self._task, _OfClip) if self._file else []
        self._known: dict[str, Row] = {row["of"]: row["figures"] for row in rows}

    def __call__(self, of: str, measure: Callable[[], Row]) -> Row:
        """The figures of what is named, measured where they are not known."""
        if of not in self._known:
            self._known[of] = measure()
            if self._file is not None:
                self._file.add(self._task, [{"of": of, "figures": self._known[of]}])
        return self._known[of]


def evaluate(
    options: Options, log: Callable[[str], None] = print, memory: Path | None = None
) -> dict[str, Any]:
    """Every figure that the model is held to; means over clips unless said. `memory` is the file of clips
    measured so far."""
    sample, judge, kept = Sampler(options), _judge(options.model), Kept(options, memory)
    figures: dict[str, Any] = {"options": vars(options)}
    for kind in ("pose", "depth"):
        figures[kind] = _fidelity(sample, judge, kind, kept, log)
    if options.extras:
        figures["freedom"] = _freedom(sample, judge, kept, log)
        figures["fairness"] = _fairness(sample, kept, log)
    return figures


def _judge(model: str) -> Judge:
    return load_judge(model_folder(model) / "judge.safetensors")


def _fidelity(
    sample: Sampler, judge: Judge, kind: str, kept: Kept, log: Callable[[str], None]
) -> dict[str, Any]:
    """Half of the clips for each kind of control."""
    options = sample.options
    made, true = [], []
    for index in range(0 if kind == "pose" else 1, options.clips, 2):
        found = kept(f"{kind} {index}", partial(_case_rows, sample, judge, kind, index))
        made.append(found["made"])
        true.append(found["true"])
        log(f"{kind} {index}: {_line(made)}")
    return {**summary(made), "of_true_clips": summary(true)}


def _case_rows(sample: Sampler, judge: Judge, kind: str, index: int) -> Row:
    case = held_out(index, sample.options.num_frames)
    return {
        "made": clip_figures(case, sample(case, kind), judge),
        "true": clip_figures(case, case.truth.frames, judge),
    }


def clip_figures(case: Case, frames: NDArray[np.uint8], judge: Judge) -> Row:
    """What is measured of frames (f H W 3) that were made for a case, as plain data."""
    truth = case.truth
    hat = wears_hat(frames, case.room_for_a_hat(), judge)
    return {
        "colours": [list(found) for found in part_colours(frames, truth, case.spec)],
        "iou": float(silhouette_iou(frames, truth.silhouette, judge)),
        "flicker": float(background_flicker(frames, truth.silhouette)),
        "limbs": limb_recall(frames, truth, case.spec, judge).tolist(),
        "hat_wrong": bool(hat != (case.spec.hat != NO_HAT)),
        "detail": [gradient_energy(frames), gradient_energy(truth.frames)],
    }


def _line(rows: list[Row]) -> str:
    """The newest clip's figures in a line."""
    last = rows[-1]
    return (
        f"IoU {last['iou']:.3f} limbs {np.nanmean(last['limbs']):.3f} "
        f"hat {'wrong' if last['hat_wrong'] else 'right'} colours so far {accuracy(_colours(rows)):.3f}"
    )


def _colours(rows: Iterable[Row]) -> list[list[str]]:
    return [found for row in rows for found in row["colours"]]


def summary(rows: list[Row]) -> dict[str, Any]:
    """Means over the figures of clips unless said."""
    colours, limbs = _colours(rows), np.concatenate([np.array(row["limbs"]) for row in rows])
    ious = [row["iou"] for row in rows]
    energy, true_energy = np.mean([row["detail"] for row in rows], axis=0)
    return {
        "clips": len(rows),
        "part_colour_accuracy": accuracy(colours),
        "by_part": {
            part: accuracy([c for c in colours if c[0] == part])
            for part in ("shirt", "trousers", "hat")
        },
        "silhouette_iou": float(np.mean(ious)),
        "silhouette_iou_min": float(np.min(ious)),
        "limb_recall": float(np.nanmean(limbs)),
        "limbs_missing": missing_limbs(limbs),
        "hats_wrong": float(np.mean([row["hat_wrong"] for row in rows])),
        "background_flicker": float(np.mean([row["flicker"] for row in rows])),
        "gradient_energy": float(energy / true_energy),
    }


def accuracy(colours: Sequence[Sequence[str]]) -> float:
    """Share of parts, each with its asked and its found colour, whose found colour is the asked one."""
    return (
        float(np.mean([asked == found for _, asked, found in colours])) if colours else float("nan")
    )


def _freedom(
    sample: Sampler, judge: Judge, kept: Kept, log: Callable[[str], None]
) -> dict[str, Any]:
    """What changes, and what does not, with another control, prompt or seed."""
    rows = []
    for index in range(sample.options.extras):
        rows.append(kept(f"freedom {index}", partial(_free_clip, sample, judge, index)))
        log(
            f"freedom {index}: other control IoU {rows[-1]['other_iou']:.3f}, "
            f"other seed {rows[-1]['seed_psnr_db']:.1f} dB"
        )
    return {
        "iou_with_another_control": float(np.mean([row["other_iou"] for row in rows])),
        "accuracy_with_another_prompt": accuracy([c for row in rows for c in row["other_prompt"]]),
        "psnr_between_seeds_db": float(np.mean([row["seed_psnr_db"] for row in rows])),
        "accuracy_with_another_seed": accuracy([c for row in rows for c in row["seed_colours"]]),
    }


def _free_clip(sample: Sampler, judge: Judge, index: int) -> Row:
    frames = sample.options.num_frames
    case, other = held_out(index, frames), held_out(index + 500, frames)
    moved = sample(case, "pose", control=other.truth.pose)
    redressed = sample(case, "pose", spec=replace(other.spec, hat=case.spec.hat))
    first, second = sample(case, "pose"), sample(case, "pose", seed=case.seed + 1)
    return {
        "other_iou": float(silhouette_iou(moved, case.truth.silhouette, judge)),
        "other_prompt": [list(c) for c in part_colours(redressed, case.truth, case.spec)[:2]],
        "seed_psnr_db": psnr(first, second),
        "seed_colours": [list(c) for c in part_colours(second, case.truth, case.spec)],
    }


def _fairness(sample: Sampler, kept: Kept, log: Callable[[str], None]) -> dict[str, Any]:
    """PSNR to 50 plain steps at the same noise, for fewer plain steps."""
    rows = []
    for index in range(sample.options.extras):
        rows.append(kept(f"fairness {index}", partial(_fair_clip, sample, index)))
        log(f"fairness {index}: " + ", ".join(f"{k} steps {v:.1f} dB" for k, v in rows[-1].items()))
    return {
        f"psnr_of_{k}_steps_to_50_db": float(np.mean([row[k] for row in rows])) for k in rows[0]
    }


def _fair_clip(sample: Sampler, index: int) -> Row:
    case = held_out(index, sample.options.num_frames)
    reference = sample(case, "pose", steps=50)
    return {str(k): psnr(sample(case, "pose", steps=k), reference) for k in (8, 13, 25)}
