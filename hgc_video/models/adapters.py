"""LoRAs and IP-Adapters on a loaded pipeline, by diffusers' own methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingExtraError, ModelError
from .config_file import check_configs
from .hub import weights_variant
from .parts import IP_ADAPTERS, locate


def add_loras(pipe: Any, loras: Sequence[tuple[Path, float]]) -> None:
    """Adds LoRAs, kohya's or diffusers', to the weights: they cost nothing in a step then.

    Raises:
        ModelError: a file changes nothing of this model.
        MissingExtraError: peft is not installed.
    """
    if not loras:
        return
    from importlib.util import find_spec

    if find_spec("peft") is None:
        raise MissingExtraError("a LoRA needs peft: pip install 'hgc-video[lora]'")
    names = []
    for number, (file, _) in enumerate(loras):
        name = f"lora_{number}"
        with _quiet():
            pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name=name)
        if not any(name in there for there in pipe.get_list_adapters().values()):
            raise ModelError(
                f"{file} changes nothing of this model: it is a LoRA of another kind of model"
            )
        names.append(name)
    pipe.set_adapters(names, [scale for _, scale in loras])
    pipe.fuse_lora(adapter_names=names)
    pipe.unload_lora_weights()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers from reporting all that a LoRA does not hold as weights that are made anew."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def add_ip_adapter(pipe: Any, named: str, base_family: str, offline: bool) -> None:
    """Loads an IP-Adapter and the image encoder that lies beside it.

    Raises:
        InputError: none is named, and none is known for this base.
        ModelError: it cannot be found or does not fit.
    """
    from transformers import CLIPVisionModelWithProjection

    named = named or IP_ADAPTERS.get(base_family, "")
    if not named:
        raise InputError(
            "no IP-Adapter is known for this base; name its weights with ip_adapter_model=FILE "
            "(--ip-adapter-model), with their image_encoder/ beside them"
        )
    file = locate(named, offline)
    encoder = file.parent / "image_encoder"
    if not encoder.is_dir():
        is_local = Path(named).exists()
        if is_local:
            raise ModelError(
                f"{encoder} is missing: an IP-Adapter needs its image encoder beside it"
            )
        encoder = locate(f"{named.rpartition('/')[0]}/image_encoder", offline)
    check_configs(encoder)
    sight = CLIPVisionModelWithProjection.from_pretrained(
        encoder, variant=weights_variant(encoder), dtype=pipe.unet.dtype, local_files_only=True,
        use_safetensors=True,
    )  # fmt: skip
    pipe.register_modules(image_encoder=sight.to(pipe.unet.device))
    pipe.load_ip_adapter(
        str(file.parent), subfolder="", weight_name=file.name, local_files_only=True
    )
