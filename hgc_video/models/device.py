"""Which device a run goes to, and in which precision."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..options import dtype_name
from .building import importing


def choose_device(device: str | None) -> str:
    """The device to run on: the one asked for if it is there, else the first of CUDA, MPS and the CPU."""
    with importing():
        import torch

    if device is None:
        return _devices()[0]
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        allowed = ", ".join(reversed(_devices()))
        raise InputError(f'device "{device}" cannot be used here; use {allowed}') from error
    return str(device)


def choose_dtype(dtype: Any) -> Any:
    """torch's dtype of a name or a dtype; None, the device's own, as it is."""
    import torch

    name = dtype_name(dtype)
    return None if name is None else getattr(torch, name)


def _devices() -> list[str]:
    """The kinds of device that are here, the fastest first."""
    import torch

    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [*(name for name, here in found.items() if here), "cpu"]
