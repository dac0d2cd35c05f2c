"""The configurations of a model's parts, read from config.json. Loads nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..files import refuse_stream
from ..plain_data import parse_json

# Of a block, and blocks of a part: more than any model has. All are built before weights are looked for.
MOST_LAYERS = 1000


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration in a part's folder. ModelError where it cannot be read, or counts more layers than
    `MOST_LAYERS`."""
    path = folder / "config.json"
    config = _read(path)
    for name, count in _layers(config):
        if not count <= MOST_LAYERS:  # nor is NaN
            raise ModelError(f"{path} has {name}={count}; at most {MOST_LAYERS} are possible")
    return config


def read_index(folder: Path) -> dict[str, Any]:
    """The parts of a pipeline in a folder, and its class, by model_index.json. ModelError where it cannot be
    read."""
    return _read(folder / "model_index.json")


def _read(path: Path) -> dict[str, Any]:
    try:
        refuse_stream(path, ModelError)
        config: dict[str, Any] = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds no configuration, but a {type(config).__name__}")
    return config


def check_configs(folder: Path) -> None:
    """Reads the configurations of a model's folder, or of a part's, for what `read_config` refuses."""
    for path in sorted([*folder.glob("config.json"), *folder.glob("*/config.json")]):
        read_config(path.parent)


def _layers(told: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of layers and of blocks, by the name that they have or lie under."""
    if isinstance(told, dict):
        for key, value in told.items():
            yield from _layers(value, f"{key}")
    elif isinstance(told, list):
        for value in told:
            yield from _layers(value, name)
    elif isinstance(told, int | float) and ("layers" in name or "blocks" in name):
        yield name, told
