"""Are arms and legs there? Their true places, searched for a dancer in the colours that may be there.

What the prompt leaves open is allowed: sleeves are long or short, skin has any tone, cloth any pattern.
A limb may be one pixel off.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from .body import MEMBERS
from .fidelity import MIN_PIXELS
from .judge import Judge
from .spec import PALETTE, Spec
from .world import SKINS, Rendering

_TOLERANCE = 35  # RGB distance; a cloth's shades are sampled, and frames are a little soft
_LIGHT = np.linspace(0.68, 1.08, 5)  # what the world's light makes of a colour
_PATTERN = np.linspace(-48, 72, 6)  # what the strongest patterns add to a colour
_MISSING = (
    0.3  # a limb of which less is seen is missing: over the torso some of it is seen by chance
)


def limb_recall(
    frames: NDArray[np.uint8], truth: Rendering, spec: Spec, judge: Judge
) -> NDArray[np.float64]:
    """Share of each true arm's and leg's pixels that are a dancer's and have its colour, (f 4).

    NaN where fewer than `MIN_PIXELS` of a limb are visible. Shoes, whose colour is free, are left out.
    """
    dancer = judge.silhouette(frames)
    skin = shades(SKINS, patterned=False)
    cloth = {
        "arm": np.concatenate([shades([PALETTE[spec.shirt]]), skin]),
        "leg": shades([PALETTE[spec.trousers]]),
    }
    wanted = _grown(truth.members > 0)
    seen = {}
    for kind, colours in cloth.items():
        right = np.zeros(wanted.shape, bool)
        right[wanted] = _near(frames[wanted], colours)
        seen[kind] = _grown(right & dancer)
    found = np.full((len(frames), len(MEMBERS) - 1), np.nan)
    for index, member in enumerate(MEMBERS[1:]):
        limb = (truth.members == index + 1) & ~truth.mask("shoes")
        for f in np.flatnonzero(limb.sum((1, 2)) >= MIN_PIXELS):
            found[f, index] = seen[member.split()[1]][f][limb[f]].mean()
    return found


def missing_limbs(recall: NDArray[np.float64]) -> float:
    """The share of limbs, of those that are judged, that are as good as not there."""
    judged = recall[~np.isnan(recall)]
    return float(np.mean(judged < _MISSING))


def shades(
    colours: Iterable[tuple[int, int, int]], *, patterned: bool = True
) -> NDArray[np.float32]:
    """What light and pattern can make of base colours, (n 3)."""
    base = np.asarray(list(colours), np.float32)
    if patterned:
        base = np.clip(base[:, None] + _PATTERN[:, None].astype(np.float32), 0, 255).reshape(-1, 3)
    return np.asarray((base[:, None] * _LIGHT[:, None]).reshape(-1, 3), np.float32)


def _near(pixels: NDArray[np.uint8], colours: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which pixels (n 3) are near one of the colours (k 3)."""
    distance = ((pixels[:, None].astype(np.float32) - colours) ** 2).sum(-1)
    return np.asarray(distance.min(1) < _TOLERANCE**2)


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask (f H W) and the pixels around it."""
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    height, width = mask.shape[1:]
    around = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.asarray(np.any(around, axis=0))
