"""What a video is, as a shot file has to know: its size, rate, length, sound, and what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, collected_warnings
from ..media.control import LOOKED_AT
from ..media.frame_choice import plan_frames
from ..media.frames import VideoInfo
from ..media.looks import Look, look_of, looks_inverted
from ..media.sound import has_sound
from ..media.video import open_clip

_SHOWN = {
    "skeleton": "a clip of skeletons", "grey": "a depth clip, grey", "coloured": "a raw video",
}  # fmt: skip


@dataclass(frozen=True)
class ClipFacts:
    """What is known of a video file. `taken` are the frames that a run of all of it makes, at `fps`."""

    path: Path
    info: VideoInfo
    sound: bool
    look: Look
    inverted: bool
    taken: int
    fps: float

    @property
    def kind(self) -> str:
        """The control that it is or that is taken from it."""
        return "depth" if self.look == "grey" else "pose"

    @property
    def raw(self) -> bool:
        """Whether the control must be taken from it first."""
        return self.look == "coloured"

    def __str__(self) -> str:
        info, sound = self.info, "with sound" if self.sound else "without sound"
        return (
            f"{self.path.name}: {_SHOWN[self.look]}, {info.num_frames} frames of "
            f"{info.width}x{info.height} at {info.fps:g} fps, {info.duration_s:.1f} s, {sound}"
        )


def facts_of(path: Path) -> ClipFacts:
    """Looks at a video, a few frames of it.

    Raises:
        VideoError: it cannot be read.
        InputError: it is black.
    """
    with collected_warnings():  # an assumed rate stands in the file that is written
        source = open_clip(path)
    spread = np.linspace(0, source.info.num_frames - 1, min(LOOKED_AT, source.info.num_frames))
    frames = np.stack(list(source.frames([int(at) for at in spread.round()])))
    look = look_of(frames)
    if look == "black":
        raise InputError(f'"{path}" is black in every frame looked at; give another clip')
    indices, fps = plan_frames(source.info.num_frames, source.info.fps)
    inverted = look == "grey" and looks_inverted(frames)
    return ClipFacts(path, source.info, has_sound(path), look, inverted, len(indices), fps)
