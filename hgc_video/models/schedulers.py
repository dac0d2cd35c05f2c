"""Schedulers by the names that users know, on the settings of a model's own."""

from __future__ import annotations

from typing import Any

from .catalog import model_preset, model_presets

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
    return algorithm.startswith("sde") or _is_noisy(type(scheduler).__name__)


def would_add_noise(model: str, scheduler: str | None) -> bool:
    """The same of a model that is not loaded, with the scheduler of a name; None is the model's own, of which
    something is known where the model is known by name."""
    if scheduler is not None:
        return _is_noisy(_CLASSES[scheduler])
    own = model_preset(model).scheduler if model in model_presets() else {}
    return _is_noisy(own.get("_class_name", ""))


def _is_noisy(class_name: str) -> bool:
    return any(part in class_name for part in _NOISY)
