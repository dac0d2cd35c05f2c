"""Which device a run goes to."""

from __future__ import annotations

from .errors import InputError


def choose_device(device: str | None) -> str:
    """The device to run on: the one asked for if it is there, else CUDA where there is one."""
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        allowed = "cpu, cuda" if torch.cuda.is_available() else "cpu"
        raise InputError(f'device "{device}" cannot be used here; use {allowed}') from error
    return device
