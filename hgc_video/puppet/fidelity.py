"""How well a puppet clip keeps to what was asked, measured against the world's truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .judge import Judge
from .spec import COLOURS, NO_HAT, PALETTE, Spec
from .world import Rendering

MIN_PIXELS = 24  # a part with fewer visible pixels in a frame is not judged


def part_colours(
    frames: NDArray[np.uint8], truth: Rendering, spec: Spec
) -> list[tuple[str, str, str]]:
    """(part, asked colour, found colour) for every visible prompted part, over the whole clip.

    The found colour is the palette entry nearest to the mean colour inside the part's true mask.
    """
    found = []
    for part in ("shirt", "trousers", "hat"):
        asked = getattr(spec, part)
        mask = truth.mask(part)
        if asked == NO_HAT or mask.sum() < MIN_PIXELS * len(frames) / 2:
            continue
        found.append((part, asked, nearest_colour(frames[mask].mean(0))))
    return found


def nearest_colour(rgb: NDArray[np.floating]) -> str:
    """The palette colour nearest to an RGB value 0..255."""
    palette = np.asarray([PALETTE[name] for name in COLOURS], np.float64)
    return COLOURS[int(np.argmin(((palette - rgb) ** 2).sum(1)))]


def silhouette_iou(frames: NDArray[np.uint8], truth: NDArray[np.bool_], judge: Judge) -> float:
    """Intersection over union of the dancer the judge finds and the true silhouette (f H W)."""
    found = judge.silhouette(frames)
    union = int((found | truth).sum())
    return int((found & truth).sum()) / max(union, 1)


def background_flicker(frames: NDArray[np.uint8], silhouette: NDArray[np.bool_]) -> float:
    """Mean absolute change (0..255) between neighbouring frames where no dancer is in either."""
    if len(frames) < 2:
        return 0.0
    still = ~(silhouette[1:] | silhouette[:-1])
    change = np.abs(frames[1:].astype(np.float32) - frames[:-1].astype(np.float32)).mean(-1)
    return float(change[still].mean())


def wears_hat(frames: NDArray[np.uint8], room: NDArray[np.bool_], judge: Judge) -> bool:
    """Whether a hat is seen: the judge finds a dancer in most of the room (f H W) that a hat alone fills."""
    return float(judge.silhouette(frames)[room].mean()) > 0.5


def gradient_energy(frames: NDArray[np.uint8]) -> float:
    """Mean squared difference of neighbouring pixels of frames (f H W 3): how much fine detail there is."""
    pixels = frames.astype(np.float32)
    across, down = np.diff(pixels, axis=2), np.diff(pixels, axis=1)
    return float((np.mean(across**2) + np.mean(down**2)) / 2)
