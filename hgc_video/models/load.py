"""Loads a pipeline by name: the embedded model, or a local folder in diffusers format.

Knows where models lie and which parts they need; does not know how they are run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import InputError, ModelError, nearest
from ..files import user_path
from ..options import CONTROL_KINDS
from .catalog import load_image_pipeline, load_preset, model_preset, model_presets
from .hub import Part, fetch, loading_options, variant_parts, weights_variant

EMBEDDED = "puppet"
EMBEDDED_CONTROLS = CONTROL_KINDS[:2]
_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_IMAGE_PARTS = ("unet", "vae", "image_encoder", "feature_extractor", "scheduler")
_IMAGE_PIPELINE = "StableVideoDiffusionPipeline"


@dataclass(frozen=True)
class ModelFacts:
    """What must be known of a model before it is loaded.

    `max_frames` is what its motion modules hold, `multiple` what sizes in pixels must be a multiple
    of, `default_area` the pixels of its own frame size; `from_image` says that it begins with an image
    and reads no prompt.
    """

    folder: Path
    max_frames: int
    multiple: int
    default_area: int
    guidance_scale: float
    num_inference_steps: int = 25
    from_image: bool = False


def model_folder(model: str) -> Path:
    """The folder of a model: `puppet`, or a path. ModelError says what is missing."""
    if model == EMBEDDED:
        folder = Path(str(resources.files("hgc_video.puppet").joinpath("weights")))
    else:
        folder = user_path(model)
        if not folder.is_dir():
            raise ModelError(
                f'model "{model}" is neither "{EMBEDDED}", nor one of {", ".join(model_presets())}, nor a '
                "folder; give the path of a model in diffusers format"
            )
    parts = _IMAGE_PARTS if _pipeline_class(folder) == _IMAGE_PIPELINE else _PARTS
    missing = [part for part in ("model_index.json", *parts) if not (folder / part).exists()]
    if missing:
        remedy = "reinstall hgc-video" if model == EMBEDDED else "save it with pipe.save_pretrained"
        raise ModelError(f"model folder {folder} lacks {', '.join(missing)}; {remedy}")
    return folder


def _pipeline_class(folder: Path) -> str:
    """The class that a folder's index names; nothing where it has none that can be read."""
    try:
        return str(json.loads((folder / "model_index.json").read_text())["_class_name"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def read_facts(model: str) -> ModelFacts:
    """The facts of a model, from its configuration files alone. ModelError where one is spoilt."""
    if model in model_presets():
        known = model_preset(model)
        return ModelFacts(
            Path(model), known.max_frames, known.multiple, known.height * known.width, known.guidance_scale,
            known.num_inference_steps, known.from_image,
        )  # fmt: skip
    folder = model_folder(model)
    from_image = _pipeline_class(folder) == _IMAGE_PIPELINE
    try:
        unet = json.loads((folder / "unet" / "config.json").read_text())
        vae = json.loads((folder / "vae" / "config.json").read_text())
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        return ModelFacts(
            folder=folder,
            max_frames=int(
                unet.get("num_frames", 25) if from_image else unet.get("motion_max_seq_length", 32)
            ),
            multiple=factor * 2 ** (len(unet["block_out_channels"]) - 1),
            default_area=_area(unet["sample_size"]) * factor**2,
            guidance_scale=3.0 if from_image else default_guidance_scale(model),
            from_image=from_image,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"config.json of unet or vae in {folder} cannot be used: {error}; save the model again"
        ) from error


def _area(sample_size: int | list[int]) -> int:
    """Latents of a frame, of a side or of both."""
    height, width = sample_size if isinstance(sample_size, list) else (sample_size, sample_size)
    return int(height) * int(width)


def default_guidance_scale(model: str) -> float:
    """The guidance scale that suits a model when the caller names none."""
    if model in model_presets():
        return model_preset(model).guidance_scale
    return 2.5 if model == EMBEDDED else 7.5


def load_pipeline(
    model: str, *controls: str, device: str = "cpu", dtype: Any = None, offline: bool = False
) -> Any:
    """A stock AnimateDiffControlNetPipeline with the ControlNets for these controls, one or several; or
    for models that begin with an image a StableVideoDiffusionPipeline with one beside it.

    `model` is the embedded one, a preset's name, a folder, or a repository of the hub that is laid out
    as such a folder. `dtype` is torch's; half precision on CUDA and single precision elsewhere when it is
    None. `offline` uses what is on this machine alone.
    """
    for control in controls:
        if control not in CONTROL_KINDS:
            raise InputError(f'unknown control "{control}": {nearest(control, CONTROL_KINDS)}')
    try:
        with _without_bars():
            if model in model_presets():
                preset = model_preset(model)
                return load_preset(preset, controls, device=device, dtype=dtype, offline=offline)
            return _load_folder(model_folder(local_model(model, offline)), controls, device, dtype)
    except (OSError, ValueError, KeyError, RuntimeError, _safetensor_error()) as error:
        if isinstance(error, InputError):
            raise
        raise ModelError(f"cannot load {model}: {str(error).splitlines()[0]}") from error


def local_model(model: str, offline: bool) -> str:
    """A model as a local folder; a repository of the hub, `owner/name`, is fetched."""
    is_repository = model.count("/") == 1 and not user_path(model).exists()
    if model == EMBEDDED or not is_repository or model.startswith((".", "~", "/")):
        return model
    folder = fetch(Part(model), offline=offline)
    if not list(folder.glob("unet/*.safetensors")):  # its weights may be in half precision alone
        folder = fetch(Part(model, variants=True), offline=offline)
    return str(folder)


def controlnet_folder(folder: Path, control: str) -> Path:
    """Where a model's ControlNet for a control lies; ModelError says what is there instead."""
    net = folder / f"controlnet_{control}"
    if net.is_dir():
        return net
    there = sorted(path.name for path in folder.glob("controlnet*") if path.is_dir())
    remedy = f"save a ControlNet for {control} there"
    if "controlnet" in there:  # as save_pretrained names it, whatever it was trained on
        remedy = f"if controlnet/ was trained on {control}, rename it to controlnet_{control}"
    has = f" but {', '.join(there)}" if there else ""
    raise ModelError(f"model folder {folder} has no controlnet_{control}{has}; {remedy}")


def _load_folder(folder: Path, controls: tuple[str, ...], device: str, dtype: Any) -> Any:
    nets = [controlnet_folder(folder, control) for control in controls]
    if _pipeline_class(folder) == _IMAGE_PIPELINE:
        return load_image_pipeline(folder, nets, device=device, dtype=dtype)
    _require_motion(folder)
    from diffusers import ControlNetModel, MultiControlNetModel

    options = loading_options(device, dtype)
    made = [
        ControlNetModel.from_pretrained(net, variant=weights_variant(net), **options)
        for net in nets
    ]
    pipe = _pipeline(folder, made[0] if len(made) == 1 else MultiControlNetModel(made), options)
    pipe.controlnet.to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def _require_motion(folder: Path) -> None:
    """ModelError where a folder's UNet makes images one by one."""
    kind = json.loads((folder / "unet" / "config.json").read_text()).get("_class_name")
    if kind != "UNetMotionModel":
        raise ModelError(
            f"model folder {folder} holds a {_pipeline_class(folder)} with a {kind}, which makes no video; "
            "give an AnimateDiff or Stable Video Diffusion pipeline, or use hgc_video.enable_cache on it"
        )


def _pipeline(folder: Path, controlnet: Any, options: dict[str, Any]) -> Any:
    """The pipeline of a folder with a ControlNet; diffusers has none that joins AnimateDiff SDXL with one,
    so there it is put beside the parts, for our own loop."""
    import diffusers

    name, texts = _pipeline_class(folder), _text_encoders(folder, options)
    parts = {**texts, **variant_parts(folder, options, but=texts)}
    if name == "AnimateDiffSDXLPipeline":
        pipe = diffusers.AnimateDiffSDXLPipeline.from_pretrained(
            folder, motion_adapter=None, **parts, **options
        )
        pipe.controlnet = controlnet
        return pipe
    return diffusers.AnimateDiffControlNetPipeline.from_pretrained(
        folder, controlnet=controlnet, motion_adapter=None, **parts, **options
    )


def _text_encoders(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The text encoders of a folder. A transformers that names their weights otherwise fills them with
    random ones and says so in a log alone; that is a ModelError here."""
    import transformers

    index = json.loads((folder / "model_index.json").read_text())
    made = {}
    for name, of in index.items():
        if name.startswith("text_encoder") and of[0] == "transformers":
            made[name], report = getattr(transformers, of[1]).from_pretrained(
                folder / name,
                output_loading_info=True,
                variant=weights_variant(folder / name),
                **options,
            )
            missing = sorted(report["missing_keys"])
            if missing:
                raise ModelError(
                    f"{name} in {folder} does not fit the {of[1]} of transformers "
                    f"{transformers.__version__}: {len(missing)} weights are missing, {missing[0]} is one; "
                    "save it with this version, or install the one that it was saved with or a newer one"
                )
    return made


def _safetensor_error() -> type[Exception]:
    from safetensors import SafetensorError

    return SafetensorError


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keeps the hosts' loading bars, a dozen lines for one second's work, off the screen."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    hosts = [h for h in (diffusers_logging, transformers_logging) if h.is_progress_bar_enabled()]
    for host in hosts:
        host.disable_progress_bar()
    try:
        yield
    finally:
        for host in hosts:
            host.enable_progress_bar()
