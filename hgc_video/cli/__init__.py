"""The command line: `hgc-video generate | resume | extract | show | plan | policies | models | doctor`,
`init | run | schema | batch` for shot files, and `calibrate | search | compare` for schedules.

The edge of the package: reads options, prints, and turns errors into one line and an exit code: 2
for what the user can mend, 1 for what we must, 130 for cancelled. Nobody imports it.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from pathlib import Path

from .shell import app, signals_cancel, signals_end

__all__ = ["app", "main"]


def main() -> None:
    """The entry point of the `hgc-video` command."""
    signals_cancel()  # a run that is kept finishes its step first (jobs/checkpoint)
    # At exit Python looks for garbage among all objects, more than a second for those of torch and diffusers;
    # frozen ones are left to the system.
    atexit.register(gc.freeze)
    _check_surroundings()
    try:
        app()
    except OSError as error:  # of help and version, which are printed outside of a command
        if "--debug" in sys.argv or error.filename is not None:
            raise
        sys.stdout = None  # is not tried again at the end
        sys.exit(
            _refused(f"what is printed cannot be written: {os.strerror(error.errno or 0).lower()}")
        )
    finally:
        signals_end()


def _check_surroundings() -> None:
    """Has every letter printable, output that is closed go nowhere, and ends where no command can work."""
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115  None where it is closed
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not _takes_all(stream):
            stream.reconfigure(errors="backslashreplace")
    why = ""
    if sys.flags.optimize > 1:
        why = "Python runs without docstrings (-OO), which transformers needs; run it with -O, or without"
    try:
        Path.cwd()
    except OSError:
        why = "the current folder is not there any more; change to another"
    if why:
        sys.exit(_refused(why))


def _takes_all(stream: io.TextIOWrapper) -> bool:
    """Whether a stream takes every letter, and every byte of a file's name."""
    return stream.encoding.lower() in ("utf-8", "utf8") and stream.errors != "strict"


def _refused(why: str) -> int:
    print(f"error: {why}", file=sys.stderr)
    return 2
