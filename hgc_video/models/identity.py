"""What a model is, by checksums of its files: of every part, of a loaded pipeline's weights, of the whole.

All three rest on the SHA-256 of single files, each read once in a process.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import collected_warnings
from ..files import kept_sha256_of, resolved, state_of, user_path
from ..plain_data import HALVES
from .catalog import model_preset, model_presets, preset_file
from .load import EMBEDDED, model_folder
from .parts import ModelParts, controlnet_folders

_READ = (".json", ".safetensors", ".txt", ".model")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def model_hash(model: str) -> str:
    """The first 16 hex digits of SHA-256 over all parts of a model: weights, configurations, tokenizers, and
    what lies beside them in its folder; of a model that is known by name over what names its parts.

    Calibrations, schedules and results say by it what they were measured on.
    """
    if model in model_presets():
        return _of_preset(model)[:16]
    is_part = model != EMBEDDED and user_path(model).is_dir()  # any folder, a single network's too
    return _of_folder(user_path(model) if is_part else model_folder(model))[:16]


def is_hash_of(told: str | None, model: str) -> bool:
    """Whether a file was measured on a model: by `model_hash`, or by the hash of the networks alone that
    older files hold."""
    return told is not None and told in (model_hash(model), _hash_of_networks(model))


def fingerprint(model: str, controls: Iterable[str], parts: ModelParts) -> dict[str, str]:
    """A checksum of every part of a model, of the ControlNets of these controls and of the parts that stand
    in place of its own, by the part's name; of a preset or a repository one of what it names."""
    own = {} if parts.base else _own(model, tuple(controls), dict(parts.controlnets))
    return own | {name: _of_named(named) for name, named in _named(parts)}


def local_parts(model: str, parts: ModelParts) -> dict[str, str]:
    """Checksums of the model's folder and of the parts that are named by a file or folder which is here, by
    the part's name."""
    return {name: _of_named(str(path)) for name, path in _local(model, parts)}


def local_state(model: str, parts: ModelParts) -> tuple[tuple[str, int, int], ...]:
    """What changes when a file of them is written to."""
    return state_of(file for _, path in _local(model, parts) for file in _files_of(path))


def weight_hashes(pipe: Any) -> dict[str, str]:
    """SHA-256 of the weights of each model of a loaded pipeline, by the name of the model.

    Of models that were loaded from a folder it is that of their .safetensors file (of several, of their
    hashes in the order of their names); of others that of their tensors, in the order of their names.
    """
    return {name: _of_loaded(model) for name, model in _models(pipe)}


def _of_file(path: Path) -> str:
    """A snapshot of the hub links to files that are named by their hash: those are not read."""
    named = _SHA256.fullmatch(resolved(path).name)
    return named[0] if named else kept_sha256_of(path)


def _local(model: str, parts: ModelParts) -> Iterator[tuple[str, Path]]:
    known = model == EMBEDDED or model in model_presets()
    own = [] if parts.base or known else [("model", model)]
    named = [(name, user_path(told)) for name, told in (*own, *_named(parts))]
    yield from ((name, path) for name, path in named if path.exists())


def _files_of(path: Path) -> list[Path]:
    """A file, or what is read of a folder."""
    return sorted(p for p in path.rglob("*") if p.suffix in _READ) if path.is_dir() else [path]


def _of_folder(folder: Path) -> str:
    found = hashlib.sha256()
    for path in _files_of(folder):
        found.update(f"{path.relative_to(folder)}\0{_of_file(path)}\n".encode(errors=HALVES))
    return found.hexdigest()


def _of_preset(model: str) -> str:
    told = json.dumps(asdict(model_preset(model)), sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()


def _own(model: str, controls: tuple[str, ...], named: dict[str, str]) -> dict[str, str]:
    if model in model_presets():
        return {model: _of_preset(model)}
    folder = model_folder(model)
    kinds = tuple(kind for kind in controls if kind not in named)
    with collected_warnings():  # loading warns of the same
        nets = dict(zip(kinds, controlnet_folders(folder, kinds), strict=True))
    others = {net.name for net in folder.glob("controlnet*")}
    found = {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and p.name not in others}
    found |= {f"controlnet {kind}": net for kind, net in nets.items()}
    return {name: _of_folder(part) for name, part in found.items()}


def _named(parts: ModelParts) -> Iterator[tuple[str, str]]:
    for name in ("base", "base_config", "motion_adapter", "vae", "ip_adapter_model"):
        if getattr(parts, name):
            yield name, getattr(parts, name)
    yield from ((f"controlnet {kind}", net) for kind, net in parts.controlnets)
    yield from ((f"lora {number}", lora) for number, (lora, _) in enumerate(parts.loras, 1))


def _of_named(named: str) -> str:
    path = user_path(named)
    if not path.exists():
        return hashlib.sha256(named.encode(errors=HALVES)).hexdigest()
    return _of_folder(path) if path.is_dir() else _of_file(path)


def _models(pipe: Any) -> Iterator[tuple[str, Any]]:
    for name, part in sorted(pipe.components.items()):
        if hasattr(part, "state_dict") and hasattr(part, "parameters"):
            nets = getattr(part, "nets", None)  # several ControlNets
            if nets is None:
                yield name, part
            else:
                yield from ((f"{name}.{number}", net) for number, net in enumerate(nets))
    controlnet = getattr(pipe, "controlnet", None)
    if controlnet is not None and "controlnet" not in pipe.components:  # put beside the parts
        yield "controlnet", controlnet


def _of_loaded(model: Any) -> str:
    folder = Path(str(getattr(model.config, "_name_or_path", "") or ""))
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        return _of_tensors(model)
    told = [_of_file(file) for file in files]
    return told[0] if len(told) == 1 else hashlib.sha256("".join(told).encode()).hexdigest()


def _of_tensors(model: Any) -> str:
    import torch

    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        total.update(name.encode())
        total.update(flat.view(torch.uint8).numpy().data)
    return total.hexdigest()


def _hash_of_networks(model: str) -> str:
    """As calibrations and schedules told a model at first: the weight files of UNet and ControlNets, or the
    file of a preset."""
    if model in model_presets():
        return hashlib.sha256(preset_file(model).read_bytes()).hexdigest()[:16]
    digest = hashlib.sha256()
    for path in sorted(model_folder(model).glob("*/*.safetensors")):
        if path.parent.name.startswith(("unet", "controlnet")):
            digest.update(path.parent.name.encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:16]
