"""Schedulers by the names that users know, on the settings of a model's own."""

from __future__ import annotations

from typing import Any

_CLASSES = {
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
}


def scheduler_of(name: str | None, own: Any) -> Any:
    """The scheduler of a name (see `hgc_video.options.SCHEDULERS`), with the betas, prediction and spacing
    that the model's own has; a fresh one of its own where no name is given."""
    import diffusers

    kind = type(own) if name is None else getattr(diffusers, _CLASSES[name])
    return kind.from_config(own.config)
