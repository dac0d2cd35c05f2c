"""Where the data that comes with the package lies: in configs/ of a checkout, in the package itself where it
was installed from a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped(kind: str) -> Path:
    """The folder of shipped data: schedules, models."""
    installed = _PACKAGE / "configs" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / "configs" / kind


def shipped_schedule(name: str, model: str = "") -> Path:
    """The file of a preset's schedule: the one for a model that is known by this name where there is such
    a file, else the one that was searched on the embedded model."""
    folder = shipped("schedules")
    own = folder / model / f"{name}.yaml"
    known = (
        model == Path(model).name and own.is_file()
    )  # a path of the user's names no file of ours
    return own if known else folder / f"{name}.yaml"
