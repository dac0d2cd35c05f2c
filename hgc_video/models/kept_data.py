"""Data that is made once of models' configurations, and read ever after: block graphs, bytes at a peak.

What the package ships comes first; what is not shipped is kept in the user's folder. A file says what it
holds and what made it: one of other versions, of another request, or spoilt, counts as absent. Loads no
torch.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import complete_or_gone, own_folder, package_data
from ..plain_data import parse_json

_FORMAT = 1
_ENDING = ".json.gz"
_PACKAGE = Path(__file__).parent.parent
_MAKERS = ("cache", "measure", "models", "plan", "sampling")  # rooms whose code makes the data


def read_shipped(request: Mapping[str, Any]) -> Any:
    """What the package ships for a request, a mapping of plain values; None where that is nothing."""
    return _read(package_data("graphs"), request, _shipped_by())


def read_own(request: Mapping[str, Any]) -> Any:
    """What is kept for a request in the user's folder; None where that is nothing."""
    with suppress(InputError):  # there is no such folder
        return _read(_own(), request, _made_by())
    return None


def keep(request: Mapping[str, Any], data: Any) -> None:
    """Keeps the data of a request in the user's folder; nothing is kept where that cannot be written."""
    with suppress(InputError, OSError):
        _write(_own(), request, data, _made_by())


def ship_own(folder: Path) -> None:
    """Ships what is kept in the user's folder, where it was made by the code as it is, in `folder`."""
    for path in _own().glob(f"*{_ENDING}"):
        content = _content(path, _made_by())
        if content is not None:
            _write(folder, content["request"], content["data"], _shipped_by())


def shipped() -> list[tuple[dict[str, Any], Any]]:
    """The request and the data of everything that is shipped and can be used here."""
    files = sorted(package_data("graphs").glob(f"*{_ENDING}"))
    found = (_content(path, _shipped_by()) for path in files)
    return [(content["request"], content["data"]) for content in found if content is not None]


def _shipped_by() -> dict[str, Any]:
    """What a shipped file must have been made by: this release of diffusers, whose models it describes."""
    release = ".".join(metadata.version("diffusers").split(".")[:2])
    return {"format": _FORMAT, "diffusers": release}


def _made_by() -> dict[str, Any]:
    """What makes data now: versions, and the code of ours that takes part."""
    versions = {name: metadata.version(name) for name in ("diffusers", "torch")}
    return {"format": _FORMAT, "code": _code(), **versions}


@cache
def _code() -> str:
    found = hashlib.sha256()
    for room in _MAKERS:
        for path in sorted((_PACKAGE / room).rglob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _own() -> Path:
    return own_folder() / "graphs"


def _read(folder: Path, request: Mapping[str, Any], made_by: Mapping[str, Any]) -> Any:
    content = _content(folder / _file_name(request), made_by)
    if content is None or _text(content["request"]) != _text(request):
        return None
    return content["data"]


def _content(path: Path, made_by: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a file holds; None where it is spoilt or was made by something else."""
    try:
        content = parse_json(gzip.decompress(path.read_bytes()))
        if content["made_by"] == made_by and "data" in content and "request" in content:
            return dict(content)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError):
        pass
    return None


def _write(folder: Path, request: Mapping[str, Any], data: Any, made_by: Mapping[str, Any]) -> None:
    content = {"made_by": made_by, "request": request, "data": data}
    folder.mkdir(parents=True, exist_ok=True)
    with complete_or_gone(folder / _file_name(request)) as part:
        # Without a time in it, the same data gives the same bytes.
        part.write_bytes(gzip.compress(_text(content).encode(), mtime=0))


def _file_name(request: Mapping[str, Any]) -> str:
    """The name of a request's file: a hash of all of it."""
    return f"{hashlib.sha256(_text(request).encode()).hexdigest()[:32]}{_ENDING}"


def _text(data: Any) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"))
