"""The form of the page as data, made from the list of options and the preprocessors."""

from __future__ import annotations

from typing import Any

from ..jobs.schema import shot_schema
from ..models.catalog import model_presets
from ..options import CONTROL_KINDS, DTYPES, PROMPT_SYNTAXES, SCHEDULERS
from ..options.panels import PANELS
from ..plan.policies.registry import POLICIES
from ..plan.presets import PRESETS
from ..preprocess.registry import listed
from .rows import ROWS, columns_of

FILES = {
    "control_video": "video", "video": "video", "image": "image", "ip_adapter": "image", "scenes_of": "video",
}  # fmt: skip
# Places that the page itself decides, and `extract`, which it makes of the chosen preprocessor.
_LEFT_OUT = {"out", "work", "checkpoint_every_s", "calibration_dir", "extract"}
# Fields of the page for options that take several values; each is told beside the option that it adds to.
_BESIDE = {"control": "more_controls", "prompt": "prompt_at"}
_FIRST = ("prompt", "model", "preset", "seed", "num_frames")
_CHOICES: dict[str, tuple[str, ...]] = {
    "control": CONTROL_KINDS, "scheduler": SCHEDULERS, "prompt_syntax": PROMPT_SYNTAXES, "dtype": DTYPES,
    "codec": ("h264", "hevc", "av1", "vp9"), "net": ("on", "off"),
}  # fmt: skip
_LABELS = {
    "control_video": "Control clip or video", "control": "Kind of control", "num_frames": "Frames",
    "prompt": "Prompt", "num_inference_steps": "Denoising steps", "audio": "Keep the sound",
    "conditioning_scale": "Strength of the control", "guidance_scale": "Strength of the prompt",
    "fidelity": "Measure how near the clip is to the control", "image": "First frame",
    "video": "Video to restyle", "ip_adapter": "Picture to look like", "crf": "Quality (CRF)",
    "force": "Go on with an unlikely control", "more_controls": "More controls",
    "prompt_at": "Other prompts from a frame on", "controlnet": "ControlNets", "lora": "LoRAs",
    "scenes_of": "Film to find scene cuts in", "vae": "VAE", "fps": "Frames per second",
    "source_fps": "Frames per second of a folder of images", "pix_fmt": "Pixel format",
    "ip_adapter_scale": "Strength of that picture", "ip_adapter_model": "IP-Adapter", "dtype": "Data type",
    "base_config": "Configurations of the base",
}  # fmt: skip

_HELP = {  # where the option's own words are for who writes Python
    "control_video": "a video to take the control from, or a ready clip of skeletons, depth or lines",
    "control": "what the clip shows, or what is taken from it", "prompt": "what the clip shows",
    "seed": "the same seed gives the same clip; left empty, one is drawn",
    "image": "the clip's first frame, of models that begin with one (svd)",
    "conditioning_scale": "1 is as the model was trained; 0 leaves the control out",
    "audio": "the sound of the video, cut to the frames that are taken",
    "more_controls": "further clips that the clip follows, each of another kind, as depth beside pose",
    "prompt_at": "what the clip shows from a later frame on; the prompt holds up to the first of them",
    "motion": "of models that begin with an image (svd)",
}  # fmt: skip


_NO_OPTION = {"default": None, "description": ""}


def form() -> dict[str, Any]:
    """Fields with their type, bounds, default, choices and help; the preprocessors; what uploads may be."""
    options = shot_schema()["properties"]
    return {
        "fields": [_field(name, options.get(name, _NO_OPTION), panel) for name, panel in _named()],
        "preprocessors": listed(),
        "presets": list(PRESETS),
    }


def field_names() -> frozenset[str]:
    """The options that the form has, and `extract`, which it makes of the chosen preprocessor."""
    return frozenset(name for name, _ in _named()) | {"extract"}


def _named() -> list[tuple[str, str]]:
    """Fields with the heading that they stand under; "" for those that come first."""
    every = [(name, panel) for panel, names in PANELS.items() for name in names]
    first = [(name, "") for name in ("control_video", "control", *_FIRST)]
    known = {name for name, _ in first} | _LEFT_OUT
    named = first + [(name, panel) for name, panel in every if name not in known]
    # Beside the options of one value, under their own heading.
    return named + [(beside, panel) for name, panel in every if (beside := _BESIDE.get(name))]


def _field(name: str, told: dict[str, Any], panel: str) -> dict[str, Any]:
    form = _plain_form(told)
    return {
        "name": name, "panel": panel, "label": _LABELS.get(name) or name.replace("_", " ").capitalize(),
        "help": _HELP.get(name) or told["description"], "kind": _kind(name, form, told),
        "default": told["default"], "columns": columns_of(name),
        "choices": list(_CHOICES.get(name, ())), "suggestions": _suggestions(name),
        "minimum": form.get("minimum", form.get("exclusiveMinimum")),
        "maximum": form.get("maximum", form.get("exclusiveMaximum")),
    }  # fmt: skip


def _plain_form(told: dict[str, Any]) -> dict[str, Any]:
    """The first form of an option that is a number, a text or a flag."""
    plain = ("number", "integer", "boolean", "string")
    forms: list[dict[str, Any]] = [told, *told.get("anyOf", ())]
    return next((form for form in forms if form.get("type") in plain), {"type": "string"})


def _kind(name: str, form: dict[str, Any], told: dict[str, Any]) -> str:
    if name in FILES:
        return FILES[name]
    if name in ROWS:
        return "rows"
    if name == "motion":
        return "group"
    if name in _CHOICES:
        return "choice"
    if name in ("prompt", "negative_prompt"):
        return "long text"
    if isinstance(told["default"], bool):
        return "flag"
    kinds = {"integer": "whole number", "number": "number", "boolean": "flag"}
    return kinds.get(form["type"], "text")


def _suggestions(name: str) -> list[str]:
    if name == "model":
        return ["puppet", *model_presets()]
    return list(dict.fromkeys([*PRESETS, *POLICIES])) if name == "preset" else []
