"""People in single frames, by the networks that mediapipe's wheel carries: every person is found, cropped
and measured.

The graphs are mediapipe's own (its person detector, landmarks of one crop, hands and face of a body), put
together here so that they follow several people; its ready solution follows one.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..media.frames import Frame
from ..media.skeleton import BODY, FACE, LEFT_HAND, NUM_POINTS, RIGHT_HAND
from .mediapipe_graphs import FACES, FIND, HANDS, MEASURE, SIZE, Graph, as_image, hushed
from .people import SAME, apart

MOST_PEOPLE = 16  # in a frame: each costs the landmark network once

# mediapipe's landmark for each joint of OpenPose's COCO-18 order; the neck (1) has none.
_LANDMARKS = (0, -1, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
_NECK, _SHOULDERS, _HIPS = 1, (2, 5), (8, 11)
# The vertex of mediapipe's face mesh for each of the 68 points of OpenPose's face; the pupils follow.
_FACE = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389, 71, 63, 105, 66, 107,
    336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305, 33, 160, 158, 133, 153, 144, 362, 385, 387,
    263, 373, 380, 61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
_EYES = (slice(36, 42), slice(42, 48))


class PeopleFinder:
    """Finds the people of frame after frame; close it, or use it in a `with` block.

    Every frame is searched for people; those who were there in the frame before are looked for where they
    were, too, so that nobody is lost whom the detector misses for a moment.
    """

    def __init__(self, hands: bool = False, face: bool = False) -> None:
        self._whole = hands or face
        self._rois: list[Any] = []
        self._open = ExitStack()
        with hushed():
            self._find = self._open.enter_context(Graph(SIZE + FIND))
            text = SIZE + MEASURE + HANDS * hands + FACES * face
            self._measure = self._open.enter_context(Graph(text, complexity=1))

    def __enter__(self) -> PeopleFinder:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def people(self, frame: Frame) -> NDArray[np.float64]:
        """The people (p n 4) of a frame (H W 3); n is 18, or 130 with hands or face."""
        height, width = frame.shape[:2]
        image = as_image(frame)
        with hushed():
            found = [self._measured(image, roi, frame.shape) for roi in self._rois]
            known = [person for person, _ in filter(None, found)]
            for roi in self._find(image).get("rois", [])[:MOST_PEOPLE]:
                centre = np.array([roi.x_center * width, roi.y_center * height])
                if not any(_is_of(centre, roi.height * height, person) for person in known):
                    found.append(self._measured(image, roi, frame.shape))
        seen = [one for one in found if one is not None]
        kept = apart([person for person, _ in seen])
        self._rois = [roi for person, roi in seen if any(person is k for k in kept)][:MOST_PEOPLE]
        n = NUM_POINTS if self._whole else BODY.stop
        return np.stack(kept) if kept else np.zeros((0, n, 4))

    def _measured(
        self, image: Any, roi: Any, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.float64], Any] | None:
        """A person (n 4) in a crop and where to look in the next frame; None where nobody is in it."""
        got = self._measure(image, roi)
        if "body" not in got:
            return None
        person = np.zeros((NUM_POINTS if self._whole else BODY.stop, 4))
        person[BODY] = _body(_points(got["body"], shape))
        if "left" in got:
            person[LEFT_HAND] = _shown(_points(got["left"], shape))
        if "right" in got:
            person[RIGHT_HAND] = _shown(_points(got["right"], shape))
        if "face" in got:
            person[FACE] = _face(_points(got["face"], shape))
        return person, got["next_roi"]


def _points(landmarks: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Landmarks (n 4) in pixels; z is in the unit of x."""
    height, width = shape[:2]
    scale = np.array([width, height, width, 1.0])
    read: NDArray[np.float64] = scale * [[p.x, p.y, p.z, p.visibility] for p in landmarks.landmark]
    return read


def _body(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Joints (18 4) of mediapipe's 33 landmarks."""
    joints: NDArray[np.float64] = points[list(_LANDMARKS)]
    joints[_NECK] = joints[list(_SHOULDERS)].mean(axis=0)
    joints[_NECK, 3] = joints[list(_SHOULDERS), 3].min()
    return joints


def _face(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """OpenPose's 70 points of the face of a mesh (468 4)."""
    outline = points[list(_FACE)]
    return _shown(np.stack([*outline, *(outline[eye].mean(0) for eye in _EYES)]))


def _shown(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of a hand or a face that was found: visible, all of them."""
    points[:, 3] = 1.0
    return points


def _is_of(centre: NDArray[np.float64], size: float, person: NDArray[np.float64]) -> bool:
    """Whether a crop of this size around hips at `centre` is of a person who is known."""
    hips = person[list(_HIPS), :2].mean(0)
    return bool(np.linalg.norm(hips - centre) < SAME * size)
