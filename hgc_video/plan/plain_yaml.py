"""Plain data of YAML texts and files that may be damaged, or made to fill the memory.

By PyYAML's safe loader. A few lines of aliases to aliases stand for billions of values (billion laughs).
Limits: MAX_NBYTES of a file; MAX_VALUES, aliases counted wherever they stand, which the environment variable
HGC_VIDEO_MAX_YAML raises.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from ..files import is_open_already, is_stream, limit_of

MAX_NBYTES = 2**26
MAX_VALUES = 1_000_000
_VARIABLE = "HGC_VIDEO_MAX_YAML"


def read_plain(
    path: Path, loader: type[yaml.SafeLoader] = yaml.SafeLoader, most_nbytes: int = MAX_NBYTES
) -> Any:
    """The plain data of a YAML or JSON file.

    A pipe that is open already is read as a file is: /dev/stdin, and what a shell makes of `<(...)`. A name
    that leads to any other pipe or device is refused, as nobody may ever write to it.

    Raises:
        InputError: it cannot be read, is larger than `most_nbytes`, is no text, or `parse_plain` refuses it.
    """
    try:
        path = path.expanduser()
        if is_stream(path) and not is_open_already(path):
            raise InputError("it is a device or a pipe")
        with path.open("rb") as file:
            data = file.read(most_nbytes + 1)
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        told = getattr(error, "strerror", None) or str(error)
        raise InputError(f"it cannot be read: {told.lower()}") from error
    if len(data) > most_nbytes:
        raise InputError(f"it is larger than {most_nbytes >> 20} MiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("it is no text in UTF-8") from error
    return parse_plain(text, loader)


def parse_plain(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """The plain data of a YAML text.

    Raises:
        InputError: it is no YAML (the line is named), or holds more values than allowed, or itself.
    """
    try:
        data = yaml.load(text, Loader=loader)  # a SafeLoader or a subclass of it
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        told = getattr(error, "problem", None) or str(error)
        raise InputError(f"this is no YAML{where}: {' '.join(told.split())}") from error
    except InputError:
        raise
    except RecursionError as error:
        raise InputError("this YAML cannot be read: it is nested too deep") from error
    except (TypeError, ValueError, OverflowError, AttributeError, LookupError) as error:
        raise InputError(f"this YAML cannot be read: {' '.join(str(error).split())}") from error
    _check_count(data)
    return data


def _check_count(data: Any) -> None:
    """InputError where data hold more values than allowed, shared ones counted wherever they stand."""
    most = limit_of(_VARIABLE, MAX_VALUES)
    counts: dict[int, int | None] = {}  # of each holder, by its id; None while it is looked at

    def count(value: Any) -> int:
        if not isinstance(value, dict | list):
            return 1
        if id(value) in counts:
            known = counts[id(value)]
            if known is None:
                raise InputError("this YAML cannot be read: a value holds itself")
            return known
        counts[id(value)] = None
        inner = value.values() if isinstance(value, dict) else value
        total = 1 + sum(map(count, inner))
        counts[id(value)] = total
        return total

    try:
        total = count(data)
    except RecursionError as error:
        raise InputError("this YAML cannot be read: it is nested too deep") from error
    if total > most:
        raise InputError(
            f"this YAML stands for {total} values, more than {most}; allow more with the environment "
            f"variable {_VARIABLE}"
        )
