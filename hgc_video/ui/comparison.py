"""The same shot under several presets: what each cost, and how far each is from what computed most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .line import DONE, Task

MOST = 3


def rows_of(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """A row for each clip of a comparison: its task, and where it is done its figures. `psnr_db` is to the
    clip that took most MACs (None: it is that clip, or not all are done)."""
    rows = [{**task.to_dict(), "psnr_db": None, "reference": False} for task in tasks]
    if not tasks or any(task.state != DONE for task in tasks):
        return rows
    from numpy import load

    from ..evaluate.quality import psnr

    most = max(tasks, key=lambda task: task.result["macs"])
    reference = load(most.folder / "frames.npy")
    for row, task in zip(rows, tasks, strict=True):
        row["reference"] = task is most
        if task is not most:
            if "psnr_db" not in task.result:
                task.result["psnr_db"] = psnr(load(task.folder / "frames.npy"), reference)
            row["psnr_db"] = task.result["psnr_db"]
    return rows
