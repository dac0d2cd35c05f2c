"""Which weights and configurations a model is made of, told by checksums, before anything is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path

from .catalog import model_preset, model_presets
from .load import controlnet_folder, model_folder

_READ = (".json", ".safetensors", ".txt", ".model")


def fingerprint(model: str, controls: Iterable[str]) -> dict[str, str]:
    """A checksum of every part of a model and of the ControlNets of these controls, by the part's name; of a
    preset, whose parts are pinned, one of what it names."""
    if model in model_presets():
        told = json.dumps(asdict(model_preset(model)), sort_keys=True, default=str)
        return {model: hashlib.sha256(told.encode()).hexdigest()}
    folder = model_folder(model)
    nets = {f"controlnet {kind}": controlnet_folder(folder, kind) for kind in controls}
    others = {net.name for net in folder.glob("controlnet*")}
    parts = {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and p.name not in others}
    return {name: _checksum(part) for name, part in {**parts, **nets}.items()}


def _checksum(part: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(p for p in part.rglob("*") if p.suffix in _READ):
        facts = path.stat()
        told = _file_checksum(path.resolve(), facts.st_size, facts.st_mtime_ns)
        found.update(f"{path.relative_to(part)}\0{told}\n".encode())
    return found.hexdigest()


@cache
def _file_checksum(path: Path, nbytes: int, mtime_ns: int) -> str:
    """Read once a process, unless the file changes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
