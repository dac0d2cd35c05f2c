"""Data of texts that may be damaged, or made to be hard to read."""

from __future__ import annotations

import json
from typing import Any

_MOST_DIGITS = 15
# Of a text that is written as UTF-8: half a character, as in the name of a file that is not UTF-8, is escaped
# as in JSON and YAML (\udcff), and read as it was.
HALVES = "backslashreplace"


def parse_json(text: str | bytes) -> Any:
    """The data of a JSON text; ValueError where it is none, or is nested too deep to be read, of which `json`
    says RecursionError."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def is_whole(text: str) -> bool:
    """Whether a text is a whole number from 0 on, of at most 15 digits: `int` refuses thousands of them.

    >>> is_whole("48"), is_whole("-1"), is_whole("9" * 5000)
    (True, False, False)
    """
    return text.isdecimal() and len(text) <= _MOST_DIGITS
