"""The command line: `hgc-video generate | plan | policies | models | doctor`, `init | run | schema |
batch` for shot files, and `calibrate | search | compare` for schedules.

The edge of the package: reads options, prints, and turns errors into one line and an exit code: 2
for what the user can mend, 1 for what we must, 130 for cancelled. Nobody imports it.
"""

from __future__ import annotations

import signal

from . import batch, compare, generate, plan, shot, tune
from .shell import app

__all__ = ["app", "batch", "compare", "generate", "main", "plan", "shot", "tune"]


def main() -> None:
    """The entry point of the `hgc-video` command."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill cleans up as Ctrl-C does
    app()
