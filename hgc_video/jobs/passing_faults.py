"""Faults of a machine that may be over when a thing is tried again: of disks and of mounts."""

from __future__ import annotations

import errno
import sqlite3

WAIT_S = 3600  # that a batch waits, at a time, for a queue that cannot be written

_PASSING = {
    getattr(errno, name)
    for name in (
        "EDQUOT", "EHOSTDOWN", "EHOSTUNREACH", "EIO", "ENETDOWN", "ENETUNREACH", "ENODEV", "ENOSPC",
        "ENOTCONN", "ENXIO", "EREMOTEIO", "EROFS", "ESTALE", "ETIMEDOUT",
    )
    if hasattr(errno, name)
}  # fmt: skip


# As SQLite tells them, which may be over too; "no such table" is an operational error to it as well.
_TOLD = ("disk is full", "disk I/O error", "readonly database", "is locked", "unable to open")


def may_pass(error: BaseException) -> bool:
    """Whether such a fault is the error, or what it was raised from."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in _PASSING:
            return True
        if isinstance(found, sqlite3.OperationalError) and any(t in str(found) for t in _TOLD):
            return True
        found = found.__cause__ or found.__context__
    return False
