"""The parts of a model as the command line gives them: KIND=FILE, FILE:SCALE and IMAGE:SCALE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError


def parts_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options controlnet, lora and ip_adapter with its scale, of their texts."""
    told: dict[str, Any] = {
        "controlnet": _controlnets(given["controlnet"] or []) or None,
        "lora": _loras(given["lora"] or []) or None,
    }
    if given["ip_adapter"] is not None:
        image, scale = _scaled(given["ip_adapter"])
        told["ip_adapter"] = image
        if scale is not None:
            told["ip_adapter_scale"] = scale
    return told


def _controlnets(given: list[str]) -> dict[str, str]:
    nets: dict[str, str] = {}
    for text in given:
        kind, equals, file = text.partition("=")
        if not equals or not file:
            raise InputError(
                f'--controlnet "{text}" is not possible; write KIND=FILE, as pose=openpose.safetensors'
            )
        if kind.strip() in nets:
            raise InputError(f"--controlnet is given twice for {kind.strip()}; leave one out")
        nets[kind.strip()] = file
    return nets


def _loras(given: list[str]) -> dict[str, float]:
    loras: dict[str, float] = {}
    for text in given:
        file, scale = _scaled(text)
        if file in loras:
            raise InputError(f"--lora {file} is given twice; leave one out")
        loras[file] = 1.0 if scale is None else scale
    return loras


def _scaled(text: str) -> tuple[str, float | None]:
    """A file and the scale behind its last colon; a colon that no number follows is part of the name."""
    file, colon, number = text.rpartition(":")
    if colon and file:
        try:
            return file, float(number)
        except ValueError:
            pass
    return text, None
