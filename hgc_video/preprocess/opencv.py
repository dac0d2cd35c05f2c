"""OpenCV, where it is installed; several packages carry it, and any of them will do."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import MissingExtraError


def opencv(who: str) -> Any:
    """The module cv2; MissingExtraError names `who` needs it."""
    try:
        return import_module("cv2")
    except (ImportError, OSError) as error:
        raise MissingExtraError(
            f'{who} needs OpenCV ({error}): pip install "hgc_video[edges]"'
        ) from error
