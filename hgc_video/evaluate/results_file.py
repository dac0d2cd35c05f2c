"""A file of results that were measured once: one JSON object a line, each under the task that it belongs to.

Calibration, search and comparison keep what they measured in it, so that a stopped run goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..errors import InputError
from ..files import make_folder, refuse_stream, require_writable, unwritable, user_path
from ..plain_data import parse_json

_TASK = "task"  # the key of a line that says what its result was measured for


class ResultsFile:
    """The results of any number of tasks; several processes may append to it.

    A task is a text that names all that its results depend on. A line that a killed process left
    unfinished is skipped, and measured again.
    """

    def __init__(self, path: Path) -> None:
        self.path = user_path(path)

    def check_writable(self) -> None:
        """Raises InputError where nothing could be added, or it is a device or a pipe: ask before hours of
        measuring."""
        make_folder(self.path.parent)
        try:
            refuse_stream(self.path, InputError)
            exists = self.path.exists()
        except OSError as error:
            raise unwritable(self.path, error, InputError) from error
        if exists:
            self.add("", [])
        else:
            require_writable(self.path)

    def read(self, task: str, kind: Any = None) -> list[dict[str, Any]]:
        """A task's results, in the order they were added; none where there is no file yet. Those that are
        damaged are skipped: `kind`, a dataclass, has the fields that each has. InputError where the file
        cannot be read, or is a device or a pipe."""
        try:
            refuse_stream(self.path, InputError)
            text = self.path.read_text("utf-8", errors="replace") if self.path.exists() else ""
        except OSError as error:
            told = os.strerror(error.errno) if error.errno else str(error)
            raise InputError(
                f'the kept results "{self.path}" cannot be read: {told.lower()}; name another file'
            ) from error
        found = [result for name, result in map(_parsed, text.splitlines()) if name == task]
        return found if kind is None else [result for result in found if _is_of(result, kind)]

    def require(self, wanted: Iterable[Any], known: Container[Any]) -> None:
        """InputError where of what was measured something is not in the file: others removed or damaged it
        meanwhile."""
        missing = [one for one in wanted if one not in known]
        if missing:
            raise InputError(
                f'{len(missing)} of the results in "{self.path}" are gone since they were measured; leave '
                "the file alone and run it again"
            )

    def add(self, task: str, results: Iterable[dict[str, Any]]) -> None:
        """Appends results in one write of whole lines; InputError where the file cannot be written."""
        lines = "".join(json.dumps({_TASK: task, **result}) + "\n" for result in results)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                file.write((_missing_newline(file) + lines).encode())
        except OSError as error:
            raise unwritable(self.path, error, InputError) from error


def _parsed(line: str) -> tuple[str | None, dict[str, Any]]:
    try:
        result = parse_json(line)
        return str(result.pop(_TASK)), result
    except (ValueError, KeyError, AttributeError, TypeError):
        return None, {}


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _is_of(result: dict[str, Any], kind: Any) -> bool:
    """Whether a result has the fields of a dataclass; it may have others."""
    try:
        _adapter(kind).validate_json(json.dumps(result), strict=True)
    except ValidationError:
        return False
    return True


def _missing_newline(file: Any) -> str:
    """What ends an unfinished last line, so that it does not spoil the next one."""
    if file.seek(0, 2) == 0:
        return ""
    file.seek(-1, 2)
    return "" if file.read(1) == b"\n" else "\n"
