"""Models that can be planned for without their weights: their configurations lie beside this file."""

from __future__ import annotations

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

    def build(self, num_controlnets: int = 0) -> tuple[Any, Any]:
        """UNet and ControlNet (several, or None) on the meta device."""
        import diffusers
        import torch

        if num_controlnets and self.controlnet is None:
            raise ModelError(f"{self.name} takes no ControlNet; plan it with none")
        unet, config = dict(self.unet), dict(self.controlnet or {})
        name = config.pop("_class_name", "ControlNetModel")
        with torch.device("meta"):
            made = getattr(diffusers, unet.pop("_class_name"))(**unet).to("meta")
            nets = [model_class(name)(**config).to("meta") for _ in range(num_controlnets)]
        if len(nets) < 2:
            return made, nets[0] if nets else None
        if name != "ControlNetModel":
            raise ModelError(f"{self.name} follows one control at a time; plan it with one or none")
        return made, diffusers.MultiControlNetModel(nets)

    def build_vae(self) -> Any:
        """Stable Diffusion's VAE on the meta device, which all known models have; SVD's decodes frames
        together."""
        import diffusers
        import torch

        shared: dict[str, Any] = {
            "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
            "down_block_types": ("DownEncoderBlock2D",) * 4,
        }  # fmt: skip
        with torch.device("meta"):
            if self.unet["_class_name"] == TEMPORAL_UNET:
                return diffusers.AutoencoderKLTemporalDecoder(**shared).to("meta")
            return diffusers.AutoencoderKL(**shared, up_block_types=("UpDecoderBlock2D",) * 4)


def model_class(name: str) -> Any:
    """A class of diffusers, or of ours where diffusers has none; the community's name of it too."""
    import diffusers

    if name in (TEMPORAL_CONTROLNET, "ControlNetSDVModel"):
        from .svd_controlnet import SpatioTemporalControlNetModel

        return SpatioTemporalControlNetModel
    return getattr(diffusers, name)


def known_models() -> tuple[str, ...]:
    """Their names."""
    found = resources.files(__package__).joinpath("known").iterdir()
    return tuple(sorted(f.name.removesuffix(".yaml") for f in found if f.name.endswith(".yaml")))


def known_model(name: str) -> KnownModel:
    """A model by name; ModelError names the nearest."""
    if name not in known_models():
        raise ModelError(f'no configuration of "{name}" is known: {nearest(name, known_models())}')
    file = resources.files(__package__).joinpath("known").joinpath(f"{name}.yaml")
    return KnownModel(name=name, **yaml.safe_load(file.read_text()))
