"""What a clip keeps of control and prompt: against the truth where the model's world is known, else by
taking the control from the clip again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from ..errors import MissingExtraError
from ..media.control import ControlClip
from ..models.load import EMBEDDED, model_folder
from ..preprocess.registry import make_preprocessor
from .control_fidelity import control_fidelity
from .quality import Frames
from .samples import SampleSet
from .trials import Trial

# The measure of each kind of control that is taken from a clip again without weights to download.
_AGAIN = {"pose": "skeleton_f1", "canny": "edge_f1", "lineart": "edge_f1"}


@dataclass(frozen=True)
class Fidelity:
    """`colours`: share of prompted parts in the asked colour; `iou`: of the silhouette with the true one;
    both for the embedded model's own clips. `control`: overlap of the skeletons or lines taken from the clip
    with those it was made from. None is not known."""

    colours: float | None = None
    iou: float | None = None
    control: float | None = None


def fidelity(source: SampleSet, clip: int, trial: Trial, frames: Frames) -> Fidelity:
    """The fidelity of frames (f H W 3) that a trial gave for a source's clip of this number."""
    if source.model == EMBEDDED and source.listed is None:
        return _to_truth(source, clip, frames)
    if trial.control.kind not in _AGAIN:  # nothing here finds another control without weights
        return Fidelity()
    return Fidelity(control=_taken_again(frames, trial.control))


def _taken_again(frames: Frames, control: ControlClip) -> float | None:
    try:
        measures = control_fidelity(frames, control, make_preprocessor(control.kind))
    except MissingExtraError:
        return None
    return measures[_AGAIN[control.kind]]


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
