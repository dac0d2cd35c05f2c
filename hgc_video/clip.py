"""A finished clip: its frames, rate and report; saves itself, shows itself in a notebook.

Knows nothing about how the frames were made.
"""

from __future__ import annotations

import base64
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .media.frames import Frames
from .media.sound import can_hold_sound
from .media.write import NOTHING, Extras
from .report import Report


@dataclass(frozen=True, eq=False, repr=False)
class Clip:
    """Frames (f H W 3) uint8 at `fps`, what they cost, and the control frames they follow.

    Of a clip that was written while it was made (`generate(out=...)`) they are read from that file when
    they are asked for, as its codec left them; `clip.frames[10:20]` and `numpy.asarray(clip.frames)` work
    alike for both. So are the control frames of a clip too long to hold. `extras` is what
    `save` writes beside the frames: the sound, and the run's configuration as text.

    Raises:
        InputError: the frames have another shape or dtype.
    """

    frames: Frames
    fps: float
    report: Report
    control: Frames | None = None
    extras: Extras = NOTHING

    def __post_init__(self) -> None:
        frames: Any = self.frames
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            raise InputError(f"frames must be (f H W 3) uint8, got {frames.shape} {frames.dtype}")

    @property
    def num_frames(self) -> int:
        """Frames in the clip."""
        return int(self.frames.shape[0])

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.frames.shape[1])

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.frames.shape[2])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the clip and returns its path.

        .mp4 (H.264, plays everywhere), .webm, .gif, .webp, or without a suffix a folder of PNGs. Movies have
        the clip's sound; all carry the run's configuration, unless it was not wanted.

        Raises:
            VideoError: an unknown suffix, a place that cannot be written, a full disk.
            InputError: the codec that was asked for is none of this suffix.
        """
        from .media.video import write_video

        movie = can_hold_sound(path)
        extras = self.extras if movie else Extras(self.extras.text)
        return write_video(path, self.frames, self.fps, extras)

    def __repr__(self) -> str:
        size = f"{self.num_frames} frames of {self.width}x{self.height} at {self.fps:g} fps"
        return f"<Clip: {size}, {100 * self.report.macs_saved:.1f} % of the MACs saved>"

    def _repr_html_(self) -> str:
        """The clip as a player inside a notebook."""
        with tempfile.TemporaryDirectory() as folder:
            data = base64.b64encode(self.save(Path(folder) / "clip.mp4").read_bytes()).decode()
        shown = max(256, self.width)
        return (
            f'<video controls loop autoplay muted playsinline width="{shown}" '
            f'src="data:video/mp4;base64,{data}"></video>'
        )
