"""Puts a stock AnimateDiff pipeline together from a base and the parts that a user names.

Everything is found, and fetched where it is on the hub, before anything is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .adapters import add_ip_adapter, add_loras
from .building import loading
from .catalog import ModelPreset, load_image_pipeline
from .config_file import check_configs, read_config, read_index
from .hub import fetch, loading_options, weights_variant
from .parts import (
    MOTION_ADAPTERS,
    Base,
    ModelParts,
    configs_of_parts,
    family,
    find_base,
    locate,
    own_controlnets,
    refuse_parts,
)
from .single_file import load_checkpoint, load_motion_adapter, load_single

_LIBRARIES = ("diffusers", "transformers")
_LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder", "controlnet", "motion_adapter")
_READ_WHOLE_NBYTES = 64 * 2**20  # a file up to so large is in memory twice for a moment


@dataclass(frozen=True)
class _Found:
    """Where every part of a pipeline lies; `adapter` is None where the base's UNet has motion modules,
    `vae` where the base's own is taken; `configs` are for parts in single files."""

    base: Base
    configs: Path
    adapter: Path | None
    vae: Path | None
    nets: tuple[Path, ...]
    loras: tuple[tuple[Path, float], ...]


def load_preset(
    preset: ModelPreset, kinds: tuple[str, ...], *, device: str, dtype: Any, offline: bool,
    parts: ModelParts | None = None,
) -> Any:  # fmt: skip
    """The stock pipeline of a preset, with one ControlNet, several or none: AnimateDiff, or
    StableVideoDiffusionPipeline with one beside it, for our own loop. ModelError says what cannot be had."""
    parts = parts or ModelParts()
    named = dict(parts.controlnets)
    preset.check_controls(tuple(kind for kind in kinds if kind not in named))
    if preset.motion_adapter is None:
        refuse_parts(preset.name, parts)
        path = fetch(preset.base, offline=offline)
        nets = [fetch(preset.controlnets[kind], offline=offline) for kind in kinds]
        return load_image_pipeline(path, nets, device=device, dtype=dtype)
    if parts.base:
        base = find_base(parts, offline)
    else:
        path = fetch(preset.base, offline=offline)
        base = Base(path, path, family(path))
    own = {kind: preset.controlnets[kind] for kind in kinds if kind not in named}
    nets = [
        locate(named[kind], offline) if kind in named else fetch(own[kind], offline=offline)
        for kind in kinds
    ]
    adapter = _named_adapter(parts, offline) or fetch(preset.motion_adapter, offline=offline)
    loras = [(fetch(preset.lora, offline=offline), preset.lora_scale)] if preset.lora else []
    found = _found(base, adapter, nets, loras, parts, offline)
    return _load(found, parts, loading_options(device, dtype), device, offline, preset.scheduler)


def load_folder(
    folder: Path | None, kinds: tuple[str, ...], *, device: str, dtype: Any, offline: bool,
    parts: ModelParts,
) -> Any:  # fmt: skip
    """The stock AnimateDiff pipeline of a model's folder, or of a base alone (None), with ControlNets for
    these kinds."""
    if parts.base:
        base = find_base(parts, offline)
    else:
        assert folder is not None  # a model is a folder or a base
        base = Base(folder, folder, family(folder))
    named = dict(parts.controlnets)
    unnamed = tuple(kind for kind in kinds if kind not in named)
    own = dict(zip(unnamed, own_controlnets(folder or base.path, unnamed), strict=True))
    nets = [locate(named[kind], offline) if kind in named else own[kind] for kind in kinds]
    adapter = _named_adapter(parts, offline) or _own_adapter(base, offline)
    found = _found(base, adapter, nets, [], parts, offline)
    return _load(found, parts, loading_options(device, dtype), device, offline, {})


def _found(
    base: Base, adapter: Path | None, nets: list[Path], loras: list[tuple[Path, float]],
    parts: ModelParts, offline: bool,
) -> _Found:  # fmt: skip
    loras = [*loras, *((locate(file, offline), scale) for file, scale in parts.loras)]
    vae = locate(parts.vae, offline) if parts.vae else None
    return _Found(base, configs_of_parts(base.configs), adapter, vae, tuple(nets), tuple(loras))


def _load(
    found: _Found, parts: ModelParts, options: dict[str, Any], device: str, offline: bool,
    scheduler: dict[str, Any],
) -> Any:  # fmt: skip
    with loading():
        return _built(found, parts, options, device, offline, scheduler)


def _built(
    found: _Found, parts: ModelParts, options: dict[str, Any], device: str, offline: bool,
    scheduler: dict[str, Any],
) -> Any:  # fmt: skip
    for path in {found.base.configs, found.configs, found.adapter, found.vae, *found.nets}:
        if path is not None and path.is_dir():
            check_configs(path)
    made = _components(found.base, options)
    if scheduler:
        made["scheduler"] = _scheduler(found.base, scheduler)
    if found.vae is not None:
        made["vae"] = _part("AutoencoderKL", found.vae, found, "vae", options)
    nets = [_part("ControlNetModel", net, found, "controlnet", options) for net in found.nets]
    adapter = None if found.adapter is None else _load_adapter(found.adapter, found, options)
    pipe = _join(made, nets, adapter)
    add_loras(pipe, found.loras)
    if parts.ip_adapter:
        add_ip_adapter(pipe, parts.ip_adapter_model, found.base.family, offline)
    pipe.set_progress_bar_config(disable=True)
    pipe = pipe.to(device)
    if pipe.controlnet is not None:
        pipe.controlnet.to(device)
    return pipe


def _named_adapter(parts: ModelParts, offline: bool) -> Path | None:
    return locate(parts.motion_adapter, offline) if parts.motion_adapter else None


def _own_adapter(base: Base, offline: bool) -> Path | None:
    """The motion adapter of a base: none where its UNet has motion modules, the usual one of its family."""
    kind = read_config(base.configs / "unet").get("_class_name")
    if kind == "UNetMotionModel":
        return None
    if base.family in MOTION_ADAPTERS:
        return locate(MOTION_ADAPTERS[base.family], offline)
    index = read_index(base.configs)
    raise ModelError(
        f"{base.path} holds a {index['_class_name']} with a {kind}, which makes no video by itself; name a "
        "motion adapter that fits it (--motion-adapter FILE), give an AnimateDiff or Stable Video Diffusion "
        "pipeline, or use hgc_video.enable_cache on it"
    )


def _components(base: Base, options: dict[str, Any]) -> dict[str, Any]:
    """The models, tokenizers and scheduler of a base, by name."""
    if base.path.is_file():
        return load_checkpoint(base.path, base.configs, options)
    import diffusers
    import transformers

    libraries = {"diffusers": diffusers, "transformers": transformers}
    made = _text_encoders(base.path, options)
    for name, of in read_index(base.path).items():
        if name in made or name in _LEFT_OUT or not isinstance(of, list) or of[0] not in _LIBRARIES:
            continue
        part, kind = base.path / name, getattr(libraries[of[0]], of[1])
        if (part / "config.json").is_file():
            reading = _reading(part, of[0])
            made[name] = kind.from_pretrained(part, **reading, **options)
        else:  # a tokenizer or a scheduler
            made[name] = kind.from_pretrained(part, local_files_only=True)
    return made


def _text_encoders(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The text encoders of a folder. A transformers that names their weights otherwise fills them with
    random ones and says so in a log alone; that is a ModelError here."""
    import transformers

    index = read_index(folder)
    made = {}
    for name, of in index.items():
        if name.startswith("text_encoder") and of[0] == "transformers":
            made[name], told = getattr(transformers, of[1]).from_pretrained(
                folder / name,
                output_loading_info=True,
                variant=weights_variant(folder / name),
                **options,
            )
            missing = sorted(told["missing_keys"])
            if missing:
                raise ModelError(
                    f"{name} in {folder} does not fit the {of[1]} of transformers "
                    f"{transformers.__version__}: {len(missing)} weights are missing, {missing[0]} is one; "
                    "save it with this version, or install the one that it was saved with or a newer one"
                )
    return made


def _scheduler(base: Base, told: dict[str, Any]) -> Any:
    """A scheduler with the settings of the base's own but those that are given."""
    import diffusers

    others = dict(told)
    kind = getattr(diffusers, others.pop("_class_name"))
    return kind.from_pretrained(
        base.configs, subfolder="scheduler", local_files_only=True, **others
    )


def _part(kind: str, path: Path, found: _Found, part: str, options: dict[str, Any]) -> Any:
    """A model of a folder or of a file alone."""
    import diffusers

    cls = getattr(diffusers, kind)
    if path.is_file():
        configs = found.base.configs if part == "vae" else found.configs
        return load_single(cls, path, configs, part, options)
    inside = path / part  # of a whole pipeline's folder
    path = inside if inside.is_dir() else path
    return cls.from_pretrained(path, **_reading(path), **options)


def _load_adapter(path: Path, found: _Found, options: dict[str, Any]) -> Any:
    if path.is_file():
        return load_motion_adapter(path, found.configs, options)
    import diffusers

    return diffusers.MotionAdapter.from_pretrained(path, **_reading(path), **options)


def _reading(part: Path, library: str = "diffusers") -> dict[str, Any]:
    """How the weights of a part in a folder are read. Small ones of diffusers are read as bytes: by mapped
    files, safetensors 0.8 loses memory with every tensor, 0.1 MB with every loading of `puppet`."""
    told: dict[str, Any] = {"variant": weights_variant(part)}
    if library == "diffusers":
        sizes = [file.stat().st_size for file in part.glob("*.safetensors")]
        told["disable_mmap"] = max(sizes) <= _READ_WHOLE_NBYTES
    return told


def _with_motion(unet: Any, adapter: Any) -> Any:
    """A UNet with the motion modules of an adapter; as it is without one."""
    import diffusers

    if adapter is None:
        return unet
    if type(unet).__name__ == "UNetMotionModel":
        unet.load_motion_modules(adapter)
        return unet
    made = diffusers.UNetMotionModel.from_unet2d(unet, adapter)
    if getattr(unet, "add_embedding", None) is not None:  # XL's, which diffusers 0.42 leaves random
        made.add_embedding.load_state_dict(unet.add_embedding.state_dict())
    return made.eval()


def _join(made: dict[str, Any], nets: list[Any], adapter: Any) -> Any:
    """The stock pipeline of these components. diffusers has none that joins AnimateDiff SDXL with a
    ControlNet: there it is put beside, for our own loop, and so is none at all."""
    import diffusers

    net = None
    if nets:
        net = nets[0] if len(nets) == 1 else diffusers.MultiControlNetModel(nets)
    made = {**made, "unet": _with_motion(made["unet"], adapter), "motion_adapter": None}
    if "text_encoder_2" in made:
        pipe = diffusers.AnimateDiffSDXLPipeline(**made)
    elif net is not None:
        return diffusers.AnimateDiffControlNetPipeline(**made, controlnet=net)
    else:
        pipe = diffusers.AnimateDiffPipeline(**made)
    pipe.controlnet = net
    return pipe
