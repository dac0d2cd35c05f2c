"""An error becomes the outcome of the task that met it, so that it ends neither a worker nor a batch."""

from __future__ import annotations

import sys
import traceback

from ..errors import HGCVideoError, internal_error, text_of
from ..files import fault_of_machine
from .passing_faults import may_pass
from .task import Outcome


def failed_by(error: Exception) -> Outcome:
    """The outcome of a task that an error ended. One that is no fault of the user or of the machine is
    printed with its traceback."""
    told = error if isinstance(error, HGCVideoError) else fault_of_machine(error)
    if told is not None:
        return Outcome("failed", why=text_of(told), passing=may_pass(error))
    traceback.print_exception(error, file=sys.stderr)
    return Outcome("failed", why=internal_error(error))
