"""Where the searched schedules that come with the package lie: in configs/ of a checkout, in the package
itself where it was installed from a wheel."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def shipped_schedule(name: str) -> Path:
    """The file of a preset's schedule."""
    installed = _HERE / "schedules"
    folder = installed if installed.is_dir() else _HERE.parents[1] / "configs" / "schedules"
    return folder / f"{name}.yaml"
