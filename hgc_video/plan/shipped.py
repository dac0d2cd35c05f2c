"""Where the data that comes with the package lies: in configs/ of a checkout, in the package itself where it
was installed from a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped(kind: str) -> Path:
    """The folder of shipped data: schedules, models."""
    installed = _PACKAGE / "configs" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / "configs" / kind


def shipped_schedule(name: str) -> Path:
    """The file of a preset's schedule."""
    return shipped("schedules") / f"{name}.yaml"
