"""The size of a clip's frames, planned from plain numbers; reads no pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..errors import InputError
from .limits import check_pixels


def plan_size(
    source_height: int,
    source_width: int,
    height: int | None = None,
    width: int | None = None,
    multiple: int = 32,
    default_area: int = 128 * 128,
) -> tuple[int, int]:
    """Height and width, both multiples of `multiple`, for a source of any size.

    Given sizes are kept; one that is missing follows the source's aspect; with none given it is the
    size nearest to that aspect among those within a tenth of `default_area` (128x128, 160x96 and
    96x160 for the defaults).

    Raises:
        InputError: a given size is no positive multiple of `multiple`. VideoError: more pixels than allowed.
    """
    for name, size in (("height", height), ("width", width)):
        if size is not None and (size < multiple or size % multiple):
            near = max(multiple, round(size / multiple) * multiple)
            raise InputError(f"{name}={size} is no multiple of {multiple}; take {near}")
    aspect = source_width / source_height
    if height is None and width is None:
        sizes = _sizes_near(default_area, multiple)
        return min(sizes, key=lambda hw: abs(math.log(hw[1] / hw[0] / aspect)))
    given = f"height={height}" if height is not None else f"width={width}"
    if height is None:
        assert width is not None
        height = max(multiple, round(width / aspect / multiple) * multiple)
    if width is None:
        width = max(multiple, round(height * aspect / multiple) * multiple)
    check_pixels(width, height, f"{given}: the clip")
    return height, width


def _sizes_near(area: int, multiple: int) -> Iterable[tuple[int, int]]:
    longest = max(1, round(2 * math.sqrt(area) / multiple))  # no sliver beyond 1:4
    steps = range(multiple, longest * multiple + 1, multiple)
    sizes = [(h, w) for h in steps for w in steps if abs(h * w / area - 1) <= 0.1]
    side = max(1, round(math.sqrt(area) / multiple)) * multiple
    return [(side, side), *sizes]
