"""Hashes of a pipeline's weights, so that a clip can say what it was made with."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..files import kept_sha256_of

_SHA256 = re.compile(r"[0-9a-f]{64}")


def model_hashes(pipe: Any) -> dict[str, str]:
    """SHA-256 of the weights of each model of a pipeline, by the name of the model.

    Of models that were loaded from a folder it is that of their .safetensors file (of several, of their
    hashes in the order of their names); of others that of their tensors, in the order of their names.
    """
    return {name: _of_model(model) for name, model in _models(pipe)}


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


def _of_model(model: Any) -> str:
    folder = Path(str(getattr(model.config, "_name_or_path", "") or ""))
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        return _of_tensors(model)
    # A snapshot of the hub links to files that are named by their hash.
    each = [_SHA256.fullmatch(file.resolve().name) for file in files]
    told = [
        found[0] if found else kept_sha256_of(file) for file, found in zip(files, each, strict=True)
    ]
    return told[0] if len(told) == 1 else hashlib.sha256("".join(told).encode()).hexdigest()


def _of_tensors(model: Any) -> str:
    import torch

    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        total.update(name.encode())
        total.update(flat.view(torch.uint8).numpy().data)
    return total.hexdigest()
