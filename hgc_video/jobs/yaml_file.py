"""Reads YAML that people write: `off` is a word and 12:30 is text, as in YAML 1.2, and no key is lost.

Knows nothing about what the files are for.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from ..plan.plain_yaml import parse_plain, read_plain

MOST_NBYTES = 2**20  # of a file that a person wrote
_TAG = "tag:yaml.org,2002:"
# YAML 1.1, which PyYAML reads, makes False of `off`, 750 of 12:30, and text of 1e-3.
_SCALARS = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain data only. A key that is given twice is an error: the first would be lost in silence."""

    # Without this, the resolvers below would be added to those of every other reader.
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for at, key in enumerate(keys) if key in keys[:at]), None)
        if twice is not None:
            raise InputError(f'"{twice}" is given twice; leave one out')
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made

    def construct_yaml_int(self, node: Any) -> int:
        """A decimal number; YAML 1.1 takes 010 for 8."""
        return int(self.construct_scalar(node))


_Loader.add_constructor(f"{_TAG}int", _Loader.construct_yaml_int)
for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(
        f"{_TAG}{_name}", re.compile(_pattern), ["" if c == "\0" else c for c in _first]
    )


def read_yaml(path: Path) -> Any:
    """The plain data of a YAML or JSON file, or of a pipe that is open already (`read_plain`).

    Raises:
        InputError: it cannot be read, is another pipe or a device, is larger than 1 MiB, is no YAML, or gives
            a key twice.
    """
    try:
        return read_plain(path, _Loader, MOST_NBYTES)
    except InputError as error:
        raise InputError(f"{path}: {error}; give a shot file") from error


def parse_yaml(text: str) -> Any:
    """The plain data of a YAML text; InputError names the line of a fault."""
    return parse_plain(text, _Loader)
