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


# Parts of the names of schedulers of diffusers that add fresh noise at their steps.
_NOISY = ("Ancestral", "LCM", "TCD", "DDPM", "SDE", "SASolver", "CMStochastic", "CosineDPM")


def adds_noise(scheduler: Any) -> bool:
    """Whether a scheduler adds fresh noise at its steps, so that they do not resemble one another."""
    algorithm = str(getattr(scheduler, "config", {}).get("algorithm_type", ""))
    name = type(scheduler).__name__
    return algorithm.startswith("sde") or any(part in name for part in _NOISY)
