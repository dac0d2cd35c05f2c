"""What `guard` goes by, as the package ships it: configs/schedules/guard.yaml, which scripts/bench_guard.py
writes."""

from __future__ import annotations

from functools import cache
from typing import Any

import yaml

from ..files import package_data


@cache
def shipped_guard() -> dict[str, Any]:
    """The file's fields: `path`, of measured predictions, and `maps`, from PSNR to tolerance."""
    text = (package_data("schedules") / "guard.yaml").read_bytes()
    return dict(yaml.safe_load(text))
