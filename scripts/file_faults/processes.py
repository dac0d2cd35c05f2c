"""Work in a process of its own, forked from one that has loaded the libraries: as a command would do it."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgc_video.errors import HGCVideoError

from . import points
from .cases import Work

_LIMIT_S = 300.0


@dataclass
class Ended:
    """How a command ended: its exit code (negative: the signal), what it said, seconds."""

    code: int
    said: str
    seconds: float


def run(place: Path, folder: Path, work: Work, moment: float | None = None) -> Ended:
    """Work in a process of its own, with those that it begins, which end with it; killed at a moment."""
    said = place / "said.txt"
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _be(work, folder, said)
    code = None
    until = _LIMIT_S if moment is None else moment
    while code is None:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
        elif time.monotonic() - began > until:
            with suppress(ProcessLookupError):  # it may have no group of its own yet
                os.killpg(pid, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            code = -signal.SIGXCPU if moment is None else -signal.SIGKILL
        else:
            time.sleep(0.01)
    _end_group(pid)
    return Ended(code, said.read_text(errors="replace"), time.monotonic() - began)


def command(arguments: list[str]) -> None:
    """Does in this process what a command does; ends with its exit code where that is not 0."""
    from hgc_video.cli import main

    sys.argv = ["hgc-video", *arguments]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise


def part(work: Work) -> None:
    """Does work that is no command, and ends as one would."""
    try:
        work()
    except HGCVideoError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _be(work: Work, folder: Path, said: Path) -> None:
    """Does the work in place of what this process was forked for."""
    os.setpgid(0, 0)
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.chdir(folder)
    os.environ["HGC_VIDEO_HOME"] = str(folder / "home")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code: Any = 1
    try:
        points.install()
        work()
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _end_group(group: int) -> None:
    """Ends what a command has left running, and waits until it is gone."""
    try:
        while True:
            os.killpg(group, signal.SIGKILL)
            time.sleep(0.02)
    except ProcessLookupError:
        return
