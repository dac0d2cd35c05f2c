"""The configurations of a run on a base that a user names, without weights: for a plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .config_file import read_config
from .configurations import Configurations
from .parts import ModelParts, configs_of_parts, find_base, locate
from .single_file import motion_layout, shapes_of

_USUAL = (4, {2048: 1280})  # tokens of h94's IP-Adapter, and the width of its picture for XL
_PICTURE = 1024


def base_configurations(parts: ModelParts, num_controlnets: int) -> Configurations:
    """UNet with motion modules, ControlNets and VAE of the base that the parts name; it and the adapter
    must be on this machine. ModelError where they are not, or do not fit."""
    base = find_base(parts, offline=True)
    beside = configs_of_parts(base.configs)
    net = {"_class_name": "ControlNetModel", **read_config(beside / "controlnet")}
    unet = _with_motion(read_config(base.configs / "unet"), _motion(beside, parts.motion_adapter))
    vae = {"_class_name": "AutoencoderKL", **read_config(base.configs / "vae")}
    return Configurations(unet, (net,) * num_controlnets, vae)


def _motion(configs: Path, named: str) -> dict[str, Any]:
    """The configuration of a motion adapter: of its folder, or that of its base and what its file tells."""
    path = locate(named, offline=True) if named else None
    if path is not None and path.is_dir():
        return read_config(path)
    told = {} if path is None else motion_layout(path, shapes_of(path))
    return {**read_config(configs / "motion_adapter"), **told}


def _with_motion(unet: Mapping[str, Any], motion: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a motion UNet, as diffusers makes it of an image UNet and an adapter."""
    if unet.get("_class_name") == "UNetMotionModel":
        return dict(unet)
    import diffusers
    import torch

    try:
        with torch.device("meta"):
            made = diffusers.UNetMotionModel.from_unet2d(
                diffusers.UNet2DConditionModel.from_config(dict(unet)),
                diffusers.MotionAdapter.from_config(dict(motion)), load_weights=False,
            )  # fmt: skip
    except ValueError as error:
        raise ModelError(f"the motion adapter does not fit the base: {error}") from error
    return {**made.config, "_class_name": "UNetMotionModel"}


def picture_size(unet: Mapping[str, Any], named: str) -> tuple[int, int]:
    """Tokens of a picture and the width that its encoder gives, of an IP-Adapter's file, or of the usual
    one. ModelError where it projects the picture in another way than the usual ones do."""
    wide = unet.get("cross_attention_dim", 768)
    if not named:
        tokens, widths = _USUAL
        return tokens, widths.get(wide, _PICTURE)
    file = locate(named, offline=True)
    shape = shapes_of(file).get("image_proj.proj.weight")
    if shape is None:
        raise ModelError(
            f"{file} projects its picture in a way that is not planned for; leave it out"
        )
    return shape[0] // wide, shape[1]
