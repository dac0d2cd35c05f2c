"""Faults of a machine that may be over when a job is tried again: of disks and of mounts."""

from __future__ import annotations

import errno

_PASSING = {
    getattr(errno, name)
    for name in (
        "EDQUOT", "EHOSTDOWN", "EHOSTUNREACH", "EIO", "ENETDOWN", "ENETUNREACH", "ENODEV", "ENOSPC",
        "ENOTCONN", "ENXIO", "EREMOTEIO", "EROFS", "ESTALE", "ETIMEDOUT",
    )
    if hasattr(errno, name)
}  # fmt: skip


def may_pass(error: BaseException) -> bool:
    """Whether such a fault is the error, or what it was raised from."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in _PASSING:
            return True
        found = found.__cause__ or found.__context__
    return False
