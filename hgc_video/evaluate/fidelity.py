"""What a clip keeps of control and prompt: against the truth where the model's world is known, else by
taking the control from the clip again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.nn.functional import max_pool2d

from ..errors import InputError, MissingExtraError
from ..models.load import EMBEDDED, model_folder
from .quality import Frames
from .trials import SampleSet, Trial

_TOLERANCE = 1 / 32  # of a frame's height: how far a limb may be off and still count


@dataclass(frozen=True)
class Fidelity:
    """`colours`: share of prompted parts in the asked colour; `iou`: of the silhouette with the true one;
    both for the embedded model's own clips. `control`: overlap of the skeletons taken from the clip with
    those it was made from. None is not known."""

    colours: float | None = None
    iou: float | None = None
    control: float | None = None


def fidelity(source: SampleSet, clip: int, trial: Trial, frames: Frames) -> Fidelity:
    """The fidelity of frames (f H W 3) that a trial gave for a source's clip of this number."""
    if source.model == EMBEDDED and source.listed is None:
        return _to_truth(source, clip, frames)
    if trial.control.kind != "pose":  # nothing here finds another control in a picture
        return Fidelity()
    return Fidelity(control=_taken_again(frames, trial.control.frames))


def skeleton_overlap(found: Frames, control: Frames) -> float:
    """Agreement (0..1) of two clips (f H W 3) of drawn skeletons: the F1 of their pixels, each of which
    counts as met where the other has one within a thirty-second of the height."""
    reach = max(1, round(found.shape[1] * _TOLERANCE))
    a, b = (torch.from_numpy(clip.max(-1) > 0).float() for clip in (found, control))
    near_a, near_b = (max_pool2d(x[:, None], 2 * reach + 1, 1, reach)[:, 0] for x in (a, b))
    if a.sum() == 0 or b.sum() == 0:
        return float(a.sum() == b.sum())
    precision, recall = float((a * near_b).sum() / a.sum()), float((b * near_a).sum() / b.sum())
    return 2 * precision * recall / max(precision + recall, 1e-9)


def _taken_again(frames: Frames, control: Frames) -> float | None:
    from ..preprocess.pose import extract_pose, skeleton_frames

    try:
        keypoints = extract_pose(frames)
    except InputError:  # nobody is to be seen
        return 0.0
    except MissingExtraError:
        return None
    height, width = control.shape[1:3]
    keypoints[..., :2] *= (width / frames.shape[2], height / frames.shape[1])
    return skeleton_overlap(skeleton_frames(keypoints, height, width), control)


def _to_truth(source: SampleSet, clip: int, frames: Frames) -> Fidelity:
    from ..puppet.evaluation import accuracy, held_out
    from ..puppet.fidelity import part_colours, silhouette_iou

    case = held_out(source.first + clip, source.num_frames)
    found = part_colours(frames, case.truth, case.spec)
    return Fidelity(
        accuracy(found) if found else None,
        silhouette_iou(frames, case.truth.silhouette, _judge()),
    )


@cache
def _judge() -> Any:
    from ..puppet.judge import load_judge

    return load_judge(model_folder(EMBEDDED) / "judge.safetensors")
