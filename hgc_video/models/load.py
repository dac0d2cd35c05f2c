"""Loads a pipeline by name: the embedded model, or a local folder in diffusers format.

Knows where models lie and which parts they need; does not know how they are run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import HGCVideoError, InputError, ModelError, collected_warnings, nearest
from ..files import user_path
from ..options import CONTROL_KINDS
from .building import garbage_waits, import_hosts
from .catalog import ModelPreset, load_image_pipeline, model_preset, model_presets
from .config_file import read_config, read_index
from .hub import fetch, named_part
from .parts import (
    ModelParts,
    controlnet_folders,
    find_base,
    locate,
    own_controlnets,
    refuse_parts,
)
from .single_file import motion_layout, shapes_of

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
        return str(read_index(folder).get("_class_name", ""))
    except ModelError:
        return ""


def read_facts(model: str, parts: ModelParts | None = None, offline: bool = False) -> ModelFacts:
    """The facts of a model, from its configuration files alone. ModelError where one is spoilt."""
    parts = parts or ModelParts()
    preset = model_preset(model) if model in model_presets() else None
    if parts.base:
        configs = find_base(parts, offline).configs
        facts = _facts_of(configs, model)
        frames = _frames_of(configs, parts.motion_adapter, offline)
        facts = replace(facts, max_frames=frames)
        if preset is None:
            return facts
        steps, pull = preset.num_inference_steps, preset.guidance_scale
        return replace(facts, num_inference_steps=steps, guidance_scale=pull)
    facts = _facts_of(model_folder(model), model) if preset is None else _preset_facts(preset)
    if parts.motion_adapter and not facts.from_image:
        frames = _frames_of(facts.folder, parts.motion_adapter, offline, facts.max_frames)
        facts = replace(facts, max_frames=frames)
    return facts


def _preset_facts(told: ModelPreset) -> ModelFacts:
    return ModelFacts(
        Path(told.name), told.max_frames, told.multiple, told.height * told.width, told.guidance_scale,
        told.num_inference_steps, told.from_image,
    )  # fmt: skip


def _frames_of(configs: Path, adapter: str, offline: bool, usual: int = 32) -> int:
    """The frames that a motion adapter holds: by its own file or folder, those of its base, or as usual."""
    if adapter:
        path = locate(adapter, offline)
        told = motion_layout(path, shapes_of(path)) if path.is_file() else read_config(path)
        if "motion_max_seq_length" in told:
            return int(told["motion_max_seq_length"])
    for folder in (configs / "motion_adapter", configs / "unet"):
        if (folder / "config.json").is_file():
            frames = read_config(folder).get("motion_max_seq_length")
            if frames is not None:
                return int(frames)
    return usual


def _facts_of(folder: Path, model: str) -> ModelFacts:
    """The facts of a folder of configurations."""
    from_image = _pipeline_class(folder) == _IMAGE_PIPELINE
    try:
        unet, vae = read_config(folder / "unet"), read_config(folder / "vae")
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        frames = unet.get("num_frames", 25) if from_image else unet.get("motion_max_seq_length", 32)
        return ModelFacts(
            folder=folder,
            max_frames=int(frames),
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


def check_controls(
    model: str, controls: tuple[str, ...], parts: ModelParts | None = None, offline: bool = False
) -> None:
    """Raises what loading a model would, which is no repository, where it has no ControlNet for one of these
    controls: a film need not be gone through to be told."""
    parts = parts or ModelParts()
    named = dict(parts.controlnets)
    unnamed = tuple(kind for kind in controls if kind not in named)
    if model in model_presets():
        model_preset(model).check_controls(unnamed)
        return
    where = find_base(parts, offline).path if model == parts.base else model_folder(model)
    with collected_warnings():  # loading warns of the same
        own_controlnets(where, unnamed)


@garbage_waits()
def load_pipeline(
    model: str, *controls: str, device: str = "cpu", dtype: Any = None, offline: bool = False,
    parts: ModelParts | None = None,
) -> Any:  # fmt: skip
    """A stock AnimateDiffControlNetPipeline with the ControlNets for these controls, one or several; or
    for models that begin with an image a StableVideoDiffusionPipeline with one beside it.

    `model` is the embedded one, a preset's name, a folder, or a repository of the hub that is laid out
    as such a folder. `dtype` is torch's; half precision on CUDA and single precision elsewhere when it is
    None. `offline` uses what is on this machine alone. `parts` stand in place of the model's own.
    """
    for control in controls:
        if control not in CONTROL_KINDS:
            raise InputError(f'unknown control "{control}": {nearest(control, CONTROL_KINDS)}')
    import_hosts()
    try:
        return _load(model, controls, parts or ModelParts(), device, dtype, offline)
    except (HGCVideoError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # of damaged files the hosts raise what they stumble over, of any kind
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ModelError(f"cannot load {model}: {said}") from error


def _load(
    model: str, controls: tuple[str, ...], parts: ModelParts, device: str, dtype: Any, offline: bool
) -> Any:
    from .assemble import load_folder, load_preset

    where: dict[str, Any] = {"device": device, "dtype": dtype, "offline": offline}
    if model in model_presets():
        return load_preset(model_preset(model), controls, parts=parts, **where)
    if model == parts.base:
        return load_folder(None, controls, parts=parts, **where)
    folder = model_folder(local_model(model, offline))
    if _pipeline_class(folder) == _IMAGE_PIPELINE:
        refuse_parts(model, parts)
        nets = controlnet_folders(folder, controls)
        return load_image_pipeline(folder, nets, device=device, dtype=dtype)
    return load_folder(folder, controls, parts=parts, **where)


def local_model(model: str, offline: bool) -> str:
    """A model as a local folder; a repository of the hub (`owner/name`, `owner/name@COMMIT`) is fetched."""
    is_repository = model.count("/") == 1 and not user_path(model).exists()
    if model == EMBEDDED or not is_repository or model.startswith((".", "~", "/")):
        return model
    folder = fetch(named_part(model), offline=offline)
    if not list(folder.glob("unet/*.safetensors")):  # its weights may be in half precision alone
        folder = fetch(named_part(model, variants=True), offline=offline)
    return str(folder)
