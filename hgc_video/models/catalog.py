"""Models by name: which repositories they are made of, with which scheduler, steps and guidance.

Data in configs/models; a new model is a new file there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError, nearest
from ..files import package_data
from .building import loading
from .config_file import check_configs
from .hub import Part, loading_options, variant_parts, weights_variant


@dataclass(frozen=True)
class ModelPreset:
    """One file of configs/models. Without a `motion_adapter` the base is a whole pipeline that begins with
    an image, and brings its own scheduler."""

    name: str
    about: str
    base: Part
    motion_adapter: Part | None
    controlnets: dict[str, Part]
    scheduler: dict[str, Any]
    num_inference_steps: int
    guidance_scale: float
    height: int
    width: int
    max_frames: int
    lora: Part | None = None
    lora_scale: float = 1.0
    configuration: str = (
        ""  # of `known_models`, which it is planned by; empty where its files alone tell
    )

    @property
    def from_image(self) -> bool:
        """Whether it begins with an image and reads no prompt."""
        return self.motion_adapter is None

    multiple = 64  # pixels: the VAE's factor times the UNet's

    def check_controls(self, kinds: tuple[str, ...]) -> None:
        """InputError where one of these controls is not there."""
        for kind in kinds:
            if kind not in self.controlnets:
                raise InputError(
                    f'{self.name} has no control "{kind}": {nearest(kind, self.controlnets)}'
                )


def model_presets() -> tuple[str, ...]:
    """Their names."""
    return tuple(sorted(path.stem for path in package_data("models").glob("*.yaml")))


def preset_file(name: str) -> Path:
    """The file of a preset."""
    return package_data("models") / f"{name}.yaml"


def model_preset(name: str) -> ModelPreset:
    """The preset of a name that `model_presets` lists."""
    fields = yaml.safe_load(preset_file(name).read_bytes())
    lora = fields.pop("lora", None)
    scale = float(lora.pop("scale", 1.0)) if lora else 1.0
    adapter = fields.pop("motion_adapter", None)
    return ModelPreset(
        name=name, base=_part(fields.pop("base")), motion_adapter=_part(adapter) if adapter else None,
        controlnets={kind: _part(part) for kind, part in fields.pop("controlnets").items()},
        lora=_part(lora) if lora else None, lora_scale=scale, **{"scheduler": {}, **fields},
    )  # fmt: skip


def _part(fields: dict[str, Any]) -> Part:
    return Part(**{**fields, "folders": tuple(fields.get("folders", ()))})


def load_image_pipeline(base: Path, nets: Sequence[Path], *, device: str, dtype: Any) -> Any:
    """A stock StableVideoDiffusionPipeline of a folder, and at `controlnet` what steers it; diffusers has no
    pipeline that takes both. InputError for more than one ControlNet."""
    import diffusers

    from .svd_controlnet import SpatioTemporalControlNetModel

    if len(nets) > 1:
        raise InputError(f"{len(nets)} controls are given; this model follows one at a time")
    for path in (base, *nets):
        check_configs(path)
    options = loading_options(device, dtype)
    with loading():
        made = [
            SpatioTemporalControlNetModel.from_pretrained(
                net, variant=weights_variant(net), **options
            )
            for net in nets
        ]
        parts = variant_parts(base, options)
        pipe = diffusers.StableVideoDiffusionPipeline.from_pretrained(base, **parts, **options)
    pipe.controlnet = made[0].to(device) if made else None
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)
