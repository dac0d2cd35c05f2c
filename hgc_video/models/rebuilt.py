"""Whether a model is what its configuration says: MACs and bytes are those of a copy rebuilt from it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import nn

from ..errors import AdapterError
from .dry_run import Build, on_meta
from .layout import controlnets, read_layout
from .windowed import is_split

_MAX_SHAPES = 64  # models; of a large one a few hundred KiB

# By a module's path: the names and shapes of its weights.
_Shapes = dict[str, list[tuple[str, torch.Size]]]


def probe_rebuilt(unet: Any, controlnet: Any = None) -> None:
    """AdapterError where a layer's weights have other shapes than those that the configuration gives."""
    models = {"unet": unet, **controlnets(controlnet)}
    expected = {name: _shapes(Build.of(model)) for name, model in models.items()}
    for node in read_layout(unet, controlnet).nodes:
        if node.path is not None:
            _compare(node.name, expected[node.model][node.path], models[node.model], node.path)


@lru_cache(_MAX_SHAPES)
def _shapes(build: Build) -> _Shapes:
    """What a model's weights are by its configuration, for every module of it; made once."""
    copy = on_meta(build.model())
    found: _Shapes = {path: [] for path, _ in copy.named_modules()}
    for name, weight in copy.named_parameters():
        words = name.split(".")
        for at in range(1, len(words)):
            inner = ".".join(words[at:])
            found[".".join(words[:at])].append((inner, weight.shape))
    return found


def _compare(name: str, shapes: list[tuple[str, torch.Size]], live: Any, path: str) -> None:
    for inner, expected in shapes:
        *parents, last = f"{path}.{inner}".split(".")
        found = getattr(_find(live, parents), last, None)
        # Quantised weights lie in memory in another way.
        if found is None or (found.is_floating_point() and found.shape != expected):
            shape = "nothing" if found is None else f"a weight of {tuple(found.shape)}"
            raise AdapterError(
                f"{type(live).__name__} has {shape} at {name}.{inner}, and {tuple(expected)} by its "
                "config: it was changed after it was made, and what it costs cannot be told; load it from a "
                "config that fits"
            )


def _find(model: Any, path: list[str]) -> nn.Module | None:
    """The module at a path, beneath what split inference and adapters (LoRA) put around it."""
    found: Any = getattr(model, "_orig_mod", model)
    for name in path:
        found = getattr(_inner(found), name, None)
        if found is None:
            return None
    inner: nn.Module = _inner(found)
    return inner


def _inner(module: Any) -> Any:
    while True:
        if is_split(module):
            module = module.module
        elif isinstance(base := getattr(module, "base_layer", None), nn.Module):
            module = base
        else:
            return module
