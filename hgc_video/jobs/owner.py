"""Which process runs a job, as text that tells later whether that process is still there."""

from __future__ import annotations

import os
import platform
import sys

from ..plain_data import is_whole


def this_owner() -> str:
    """This process, as host:pid:start."""
    pid = os.getpid()
    return f"{platform.node()}:{pid}:{_start(pid)}"


def is_gone(owner: str) -> bool:
    """Whether a process of this machine is surely gone; of another machine nobody can tell."""
    host, _, process = owner.partition(":")
    pid, _, start = process.partition(":")
    ours = host == platform.node() and pid.isascii() and is_whole(pid)
    return ours and _start(int(pid)) != start


def is_here(owner: str) -> bool:
    """Whether a process of this machine is surely there."""
    return owner.partition(":")[0] == platform.node() and not is_gone(owner)


def _start(pid: int) -> str:
    """When a process began, as text; nothing where it is not there or is dead and not yet reaped. On Linux it
    is counted from the system's start: there the time of day of both moves when the clock is set."""
    import psutil

    try:
        process = psutil.Process(pid)
        dead = process.status() == psutil.STATUS_ZOMBIE
        booted = psutil.boot_time() if sys.platform == "linux" else 0.0
        return "" if dead else f"{process.create_time() - booted:.2f}"
    except psutil.Error:
        return ""
