"""What a prompt can name: shirt, trousers and hat colours and the scene.

Everything else in the world is free and left to the style seed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (205, 35, 38),
    "orange": (240, 130, 20),
    "yellow": (240, 215, 50),
    "green": (38, 150, 55),
    "blue": (40, 78, 205),
    "purple": (130, 48, 168),
    "white": (238, 238, 238),
    "black": (26, 26, 30),
}  # sRGB, 0..255
COLOURS = tuple(PALETTE)
SCENES = ("beach", "forest", "city", "desert", "snow", "stage")
NO_HAT = "none"


@dataclass(frozen=True)
class Spec:
    """A dancer and a scene; `hat` is a colour or "none"."""

    shirt: str
    trousers: str
    hat: str
    scene: str

    def __post_init__(self) -> None:
        for name, allowed in ATTRIBUTES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")

    def labels(self) -> dict[str, int]:
        """Each attribute as an index into its allowed values."""
        return {name: allowed.index(getattr(self, name)) for name, allowed in ATTRIBUTES.items()}


ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shirt": COLOURS,
    "trousers": COLOURS,
    "hat": (*COLOURS, NO_HAT),
    "scene": SCENES,
}


def random_spec(rng: np.random.Generator) -> Spec:
    """Shirt and trousers differ, so that a swap of the two can be seen; a third wears no hat."""
    shirt, trousers, hat = (str(c) for c in rng.choice(COLOURS, 3, replace=False))
    scene = str(rng.choice(SCENES))
    return Spec(shirt, trousers, NO_HAT if rng.random() < 0.35 else hat, scene)


def spec_from(values: dict[str, Any]) -> Spec:
    """A spec from a mapping, as stored with calibration and test clips."""
    return Spec(**{f.name: str(values[f.name]) for f in fields(Spec)})
