"""How well a clip follows its control: the control is extracted from it again, and both are compared."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import max_pool2d

from ..errors import InputError
from ..media.control import ControlClip
from ..media.skeleton import BODY
from ..media.video import VideoLike
from ..preprocess.base import Preprocessor
from ..preprocess.extract import extract_control
from .quality import Frames

_TOLERANCE = 1 / 32  # of a frame's height: how far a limb may be off and still count
_LINE_TOLERANCE = 1 / 128  # of a frame's height: how far a line may be off
_LINE = 96  # of 255: what is drawn more faintly is no line
_SURE = 0.3  # visibility from which a joint counts

Measures = dict[str, float | None]


def control_fidelity(
    clip: VideoLike, control: ControlClip, preprocessor: Preprocessor, offline: bool = False
) -> Measures:
    """Measures of one control of a clip, of the same frames, size and rate.

    pose: `people_found`, the share of people and frames of the control in which somebody is where he is to
    be, `keypoint_distance` of those, joint to joint, as a share of a person's height (both None of a ready
    skeleton clip, whose joints are not known), and `skeleton_f1`, the overlap of the drawings. depth:
    `depth_error`, mean difference (0..1) after the best scale and shift, and `depth_correlation`. Lines:
    `edge_f1`. What is extracted is not kept on disk.
    """
    _, height, width = control.shape
    try:
        found = extract_control(
            clip, preprocessor, height=height, width=width, fps=control.fps, multiple=1,
            source_fps=control.fps, offline=offline, keep_found=False,
        )  # fmt: skip
    except InputError:  # nobody is to be seen
        if control.kind != "pose":
            raise
        return _of_pose(None, control)
    if control.kind == "pose":
        return _of_pose(found, control)
    return _of_depth(found, control) if control.kind == "depth" else _of_lines(found, control)


def overlap(found: Frames, control: Frames, tolerance: float = _TOLERANCE, least: int = 1) -> float:
    """Agreement (0..1) of two clips (f H W 3) of drawn lines: the F1 of their pixels of at least `least`.

    A pixel counts as met where the other clip has one within this share of the height.
    """
    reach = max(1, round(found.shape[1] * tolerance))
    a, b = (torch.from_numpy(clip.max(-1) >= least).float() for clip in (found, control))
    near_a, near_b = (max_pool2d(x[:, None], 2 * reach + 1, 1, reach)[:, 0] for x in (a, b))
    if a.sum() == 0 or b.sum() == 0:
        return float(a.sum() == b.sum())
    precision, recall = float((a * near_b).sum() / a.sum()), float((b * near_a).sum() / b.sum())
    return 2 * precision * recall / max(precision + recall, 1e-9)


def _of_pose(found: ControlClip | None, control: ControlClip) -> Measures:
    drawn = control.frames
    overlapping = overlap(found.frames, drawn) if found is not None else 0.0
    measures: Measures = {"people_found": None, "keypoint_distance": None}
    if control.keypoints is not None:
        nobody = np.zeros((0, *control.keypoints.shape[1:]))
        seen = nobody if found is None or found.keypoints is None else found.keypoints
        measures["people_found"], measures["keypoint_distance"] = keypoint_measures(
            seen, control.keypoints
        )
    return {**measures, "skeleton_f1": overlapping}


def keypoint_measures(
    found: NDArray[np.floating], wanted: NDArray[np.floating]
) -> tuple[float | None, float | None]:
    """The share of people and frames of `wanted` (t f n 4) that are found in `found`, and the mean distance
    of their joints as a share of their height; None where there is nothing to measure.

    In each frame people are paired so that distances are least; who is more than half of his height away is
    somebody else.
    """
    asked, distances = 0, []
    for frame in range(wanted.shape[1]):
        people = [p[frame, BODY] for p in wanted if p[frame, BODY, 3].max() >= _SURE]
        seen = [p[frame, BODY] for p in found if p[frame, BODY, 3].max() >= _SURE]
        asked += len(people)
        distances += _paired(seen, people)
    if not asked:
        return None, None
    return len(distances) / asked, float(np.mean(distances)) if distances else None


def _paired(seen: list[NDArray[np.floating]], people: list[NDArray[np.floating]]) -> list[float]:
    from scipy.optimize import linear_sum_assignment

    if not seen or not people:
        return []
    cost = np.array([[_apart(one, person) for one in seen] for person in people])
    return [float(cost[k]) for k in zip(*linear_sum_assignment(cost), strict=True) if cost[k] < 0.5]


def _apart(one: NDArray[np.floating], person: NDArray[np.floating]) -> float:
    """Mean distance of the joints that both show, as a share of the person's height."""
    both = np.minimum(one[:, 3], person[:, 3]) >= _SURE
    if not both.any():
        return 1.0
    height = np.ptp(person[person[:, 3] >= _SURE, 1])
    between = np.linalg.norm(one[both, :2] - person[both, :2], axis=-1)
    return float(between.mean() / max(float(height), 1.0))


def _of_depth(found: ControlClip, control: ControlClip) -> Measures:
    got, wanted = (
        clip.frames[..., 0].astype(np.float64).ravel() / 255 for clip in (found, control)
    )
    spread = got.std()
    if spread < 1e-6 or wanted.std() < 1e-6:
        return {
            "depth_error": float(np.abs(wanted - wanted.mean()).mean()),
            "depth_correlation": None,
        }
    correlation = float(np.corrcoef(got, wanted)[0, 1])
    # Estimators know depth up to a scale and a shift; near may not become far by it.
    scale = max(0.0, correlation) * wanted.std() / spread
    aligned = scale * (got - got.mean()) + wanted.mean()
    return {
        "depth_error": float(np.abs(aligned - wanted).mean()), "depth_correlation": correlation,
    }  # fmt: skip


def _of_lines(found: ControlClip, control: ControlClip) -> Measures:
    return {"edge_f1": overlap(found.frames, control.frames, _LINE_TOLERANCE, _LINE)}
