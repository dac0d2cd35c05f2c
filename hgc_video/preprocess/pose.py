"""Skeletons of the people in a clip, drawn as OpenPose draws them; the networks are in mediapipe's wheel"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..errors import InputError
from ..media.control import Placement
from ..media.frames import Frame
from ..media.skeleton import BODY, draw_people
from .base import Drawn, Estimates, Preprocessor, drawn_field
from .landmarks import PeopleFinder
from .mediapipe_graphs import mediapipe_version
from .people import Points, bridged, smoothed, tracks

MAX_GAP_S = 0.5  # a detector misses a person for so long; longer, and nobody is there


class PosePreprocessor(Preprocessor):
    """What every preprocessor of people draws, of whichever detector found them: people (p n 4) a frame."""

    control = "pose"
    own_size = True

    max_people: int = drawn_field(
        8, ge=1, le=16, description="people drawn; those seen most and largest are kept"
    )
    gap: float = drawn_field(
        MAX_GAP_S,
        ge=0,
        le=5,
        description="seconds in which somebody not found is drawn all the same",
    )
    smooth: float = drawn_field(
        0.3, ge=0, le=3, description="seconds over which movements are smoothed; 0 is not"
    )
    shortest: float = drawn_field(
        0.1, ge=0, le=5, description="seconds; who is found for less was never there"
    )
    visibility: float = drawn_field(
        0.3, ge=0, le=1, description="joints seen less surely than this are not drawn"
    )

    def drawn(self, found: Estimates, place: Placement, fps: float) -> Drawn:
        people, gaps = self.people(list(found.read()), fps)
        if not len(people):
            raise InputError(
                f"no person found in any of the {len(found)} frames taken; use a clip that shows one person "
                "from head to foot; a ready pose clip needs no extraction"
            )
        people[..., :2] = place.points(people[..., :2])
        size = (place.height, place.width)
        empty = people[..., 3].max((0, 2)) == 0

        def frames(start: int) -> Iterator[Frame]:
            return self._drawings(people[:, start:], *size)

        return Drawn(frames, int(gaps.sum()), int(empty.sum()), len(people), people)

    def people(self, found: list[NDArray[Any]], fps: float) -> tuple[Points, NDArray[np.bool_]]:
        """Tracks (t f n 4) in pixels of the film, bridged and smoothed, and the frames that lie in gaps."""
        max_gap = max(1, round(self.gap * fps)) if self.gap else 0
        every = tracks(found, max_gap)
        seen = (every[..., 3].max(2) > 0).sum(1)
        every = every[seen >= min(len(found), max(1, round(self.shortest * fps)))]
        every = every[: self.max_people]
        gaps = np.zeros(len(found), bool)
        for track in every:
            track[:], missed = bridged(track, max_gap)
            gaps |= missed
            if self.smooth:
                track[:] = smoothed(track, round(self.smooth * fps))
        return every, gaps

    def _drawings(self, people: Points, height: int, width: int) -> Iterator[Frame]:
        # The nearest, who are the largest, are drawn last and hide the others.
        for frame in people[::-1, :, :, [0, 1, 3]].swapaxes(0, 1):
            yield draw_people(frame, height, width, min_visibility=self.visibility)


class Pose(PosePreprocessor):
    """Skeletons of several people, with hands and face on request (mediapipe, no download)"""

    name = "pose"
    extra = "pose"

    hands: bool = Field(False, description="hands too, 21 points each")
    face: bool = Field(False, description="the face too, 70 points")

    def require(self, offline: bool = False) -> None:
        mediapipe_version()

    def made_by(self) -> dict[str, str]:
        return {"mediapipe": mediapipe_version()}

    def estimates(self, frames: Iterable[Frame], fps: float) -> Iterator[NDArray[Any]]:
        with PeopleFinder(self.hands, self.face) as finder:
            for frame in frames:
                yield finder.people(frame).astype(np.float32)


def extract_pose(frames: Iterable[Frame], *, max_gap: int = 6) -> NDArray[np.float64]:
    """Keypoints (f 18 4) of the person seen most: x, y, z in pixels of the frame and visibility 0..1, in
    COCO-18 order.

    z is depth relative to the hips, smaller is nearer. Up to `max_gap` frames without the person are bridged
    from their neighbours; where nobody is for longer, or at the beginning and the end, all is 0,
    visibility too.

    Raises:
        InputError: no frame shows a person.
        MissingExtraError: mediapipe is not installed.
    """
    found = list(Pose().estimates(frames, 1.0))
    people = tracks(found, max_gap)
    if not len(people):
        raise InputError(f"no person found in any of the {len(found)} frames taken")
    return bridged(people[0][:, BODY], max_gap)[0].astype(np.float64)


def skeleton_frames(keypoints: NDArray[np.floating], height: int, width: int) -> Frame:
    """OpenPose-style frames (f H W 3) from keypoints (f 18 4) in pixels of height x width."""
    frames = keypoints[:, None, :, [0, 1, 3]]
    return np.stack([draw_people(people, height, width) for people in frames])
