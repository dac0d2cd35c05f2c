"""Models that can be planned for without their weights: their configurations lie beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from ..errors import ModelError, nearest
from .probe import TEMPORAL_CONTROLNET, TEMPORAL_UNET


@dataclass(frozen=True)
class KnownModel:
    """Configurations of UNet and ControlNet (None: it takes none), and what a clip of it is like."""

    name: str
    height: int
    width: int
    num_frames: int
    num_tokens: int
    text_encoder_params: int
    unet: dict[str, Any]
    controlnet: dict[str, Any] | None

    latent_factor = 8

    def configurations(self, num_controlnets: int = 0) -> Configurations:
        """The models with so many ControlNets; ModelError where it does not take them."""
        if num_controlnets and self.controlnet is None:
            raise ModelError(f"{self.name} takes no ControlNet; plan it with none")
        net = {"_class_name": "ControlNetModel", **(self.controlnet or {})}
        if num_controlnets > 1 and net["_class_name"] != "ControlNetModel":
            raise ModelError(f"{self.name} follows one control at a time; plan it with one or none")
        temporal = self.unet["_class_name"] == TEMPORAL_UNET
        return Configurations(
            self.unet, (net,) * num_controlnets, _TEMPORAL_VAE if temporal else _VAE
        )

    def build(self, num_controlnets: int = 0) -> tuple[Any, Any]:
        """UNet and ControlNet (several, or None) on the meta device."""
        return self.configurations(num_controlnets).build()

    def build_vae(self) -> Any:
        """The VAE on the meta device."""
        return self.configurations().build_vae()


@dataclass(frozen=True)
class Configurations:
    """The configurations of a run's models, each with its `_class_name`; no weights. `picture` is the tokens
    of an IP-Adapter's picture and the width that its encoder gives."""

    unet: Mapping[str, Any]
    controlnets: tuple[Mapping[str, Any], ...]
    vae: Mapping[str, Any]
    picture: tuple[int, int] | None = None

    @property
    def temporal(self) -> bool:
        """Whether this is Stable Video Diffusion, which makes a clip whole and decodes frames together."""
        return self.unet_class == TEMPORAL_UNET

    @property
    def unet_class(self) -> str:
        """The UNet's class."""
        return str(self.unet["_class_name"])

    def build(self) -> tuple[Any, Any]:
        """UNet and ControlNet (several, or None) on the meta device."""
        from .image_prompt import add_image_prompt  # loads torch

        nets, unet = [_on_meta(net) for net in self.controlnets], _on_meta(self.unet)
        if self.picture is not None:
            add_image_prompt(unet, *self.picture)
        if len(nets) < 2:
            return unet, nets[0] if nets else None
        import diffusers

        return unet, diffusers.MultiControlNetModel(nets)

    def build_vae(self) -> Any:
        """The VAE on the meta device."""
        return _on_meta(self.vae)


_SHARED: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
}  # fmt: skip
# Stable Diffusion's VAE, which all known models have; SVD's decodes frames together.
_VAE = {
    "_class_name": "AutoencoderKL",
    **_SHARED,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
_TEMPORAL_VAE = {"_class_name": "AutoencoderKLTemporalDecoder", **_SHARED}


def _on_meta(config: Mapping[str, Any]) -> Any:
    import torch

    with torch.device("meta"):
        made = model_class(config["_class_name"]).from_config(dict(config))
    # SVD's blenders make CPU tensors whatever the device.
    return torch.nn.Module.to(made, "meta", torch.float32)


def model_class(name: str) -> Any:
    """A class of diffusers, or of ours where diffusers has none; the community's name of it too."""
    import diffusers

    if name in (TEMPORAL_CONTROLNET, "ControlNetSDVModel"):
        from .svd_controlnet import SpatioTemporalControlNetModel

        return SpatioTemporalControlNetModel
    try:
        return getattr(diffusers, name)
    except AttributeError as error:
        raise ModelError(
            f"this diffusers has no {name}; name a model of a class that it has"
        ) from error


def known_models() -> tuple[str, ...]:
    """Their names."""
    found = resources.files(__package__).joinpath("known").iterdir()
    return tuple(sorted(f.name.removesuffix(".yaml") for f in found if f.name.endswith(".yaml")))


def known_model(name: str) -> KnownModel:
    """A model by name; ModelError names the nearest."""
    if name not in known_models():
        raise ModelError(f'no configuration of "{name}" is known: {nearest(name, known_models())}')
    file = resources.files(__package__).joinpath("known").joinpath(f"{name}.yaml")
    return KnownModel(name=name, **yaml.safe_load(file.read_bytes()))
