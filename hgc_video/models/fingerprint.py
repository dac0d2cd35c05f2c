"""Which weights and configurations a model is made of, told by checksums, before anything is loaded."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from ..files import kept_sha256_of, user_path
from .catalog import model_preset, model_presets
from .load import model_folder
from .parts import ModelParts, controlnet_folders

_READ = (".json", ".safetensors", ".txt", ".model")


def fingerprint(model: str, controls: Iterable[str], parts: ModelParts) -> dict[str, str]:
    """A checksum of every part of a model, of the ControlNets of these controls and of the parts that stand
    in place of its own, by the part's name; of a preset or a repository one of what it names."""
    own = {} if parts.base else _own(model, tuple(controls), dict(parts.controlnets))
    return own | {name: _of_named(named) for name, named in _named(parts)}


def _own(model: str, controls: tuple[str, ...], named: dict[str, str]) -> dict[str, str]:
    if model in model_presets():
        told = json.dumps(asdict(model_preset(model)), sort_keys=True, default=str)
        return {model: hashlib.sha256(told.encode()).hexdigest()}
    folder = model_folder(model)
    kinds = tuple(kind for kind in controls if kind not in named)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loading warns of the same
        nets = dict(zip(kinds, controlnet_folders(folder, kinds), strict=True))
    others = {net.name for net in folder.glob("controlnet*")}
    found = {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and p.name not in others}
    found |= {f"controlnet {kind}": net for kind, net in nets.items()}
    return {name: _checksum(part) for name, part in found.items()}


def _named(parts: ModelParts) -> Iterator[tuple[str, str]]:
    for name in ("base", "base_config", "motion_adapter", "vae", "ip_adapter_model"):
        if getattr(parts, name):
            yield name, getattr(parts, name)
    yield from ((f"controlnet {kind}", net) for kind, net in parts.controlnets)
    yield from ((f"lora {number}", lora) for number, (lora, _) in enumerate(parts.loras, 1))


def _of_named(named: str) -> str:
    path = user_path(named)
    if not path.exists():
        return hashlib.sha256(named.encode()).hexdigest()
    if path.is_dir():
        return _checksum(path)
    return kept_sha256_of(path)


def _checksum(part: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(p for p in part.rglob("*") if p.suffix in _READ):
        told = kept_sha256_of(path)
        found.update(f"{path.relative_to(part)}\0{told}\n".encode())
    return found.hexdigest()
