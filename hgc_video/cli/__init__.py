"""The command line: `hgc-video generate | resume | extract | show | plan | policies | models | doctor`,
`init | run | schema | batch` for shot files, and `calibrate | search | compare` for schedules.

The edge of the package: reads options, prints, and turns errors into one line and an exit code: 2
for what the user can mend, 1 for what we must, 130 for cancelled. Nobody imports it.
"""

from __future__ import annotations

import atexit
import gc
import io
import signal
import sys

from .shell import app

__all__ = ["app", "main"]


def main() -> None:
    """The entry point of the `hgc-video` command."""
    # A kill cleans up as Ctrl-C does; a run that is kept finishes its step first (jobs/checkpoint).
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # At exit Python looks for garbage among all objects, more than a second for those of torch and diffusers;
    # frozen ones are left to the system.
    atexit.register(gc.freeze)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a letter that it lacks ends no run
    app()
