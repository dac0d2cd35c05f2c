"""Models in single files: checkpoints of Stable Diffusion 1.5 or XL, and a VAE, ControlNet or motion adapter.

diffusers converts them; it is given configuration folders of ours, or the user's, so that no hub is asked.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..files import package_data
from .config_file import read_config, read_index

SD15, SDXL = "sd15", "sdxl"  # the folders of configurations that are shipped
_OF_SD15 = "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"
_OF_SDXL = "conditioner.embedders.1.model.positional_embedding"
_MERGES = "clip-merges.txt.gz"  # OpenAI's, MIT: https://github.com/openai/CLIP
_PAD = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}


def shapes_of(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a file, of which only the header is read.

    Raises:
        ModelError: the file is no safetensors, or is cut short.
    """
    from safetensors import SafetensorError, safe_open

    if file.suffix != ".safetensors":
        raise ModelError(
            f"{file} is no .safetensors file: others can run code when they are loaded; convert it, or name "
            "another"
        )
    try:
        with safe_open(file, framework="numpy") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"cannot read {file}: {error}; download it again") from error


def family_of(file: Path) -> str:
    """Of which model a checkpoint is, by the names of its tensors: "sd15", "sdxl", or "" for others."""
    names = shapes_of(file)
    if _OF_SDXL in names:
        return SDXL
    return SD15 if _OF_SD15 in names else ""


def shipped_configs(family: str) -> Path:
    """The folder of configurations of "sd15" or "sdxl"."""
    return package_data("models") / family


def checkpoint_configs(file: Path, told: Path | None) -> Path:
    """The folder of configurations of a checkpoint: as told, or the shipped one of its family.

    Raises:
        ModelError: the checkpoint is of neither family, and no folder is given.
    """
    family = family_of(file)
    if told is not None:
        return told
    if not family:
        raise ModelError(
            f"{file} is a checkpoint of neither Stable Diffusion 1.5 nor XL; give base_config, the folder "
            "of configurations (model_index.json, unet/config.json ...) of the model that it was tuned from"
        )
    return shipped_configs(family)


def load_checkpoint(file: Path, configs: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The components of a checkpoint by name: unet, vae, text encoders, tokenizers, scheduler."""
    import diffusers

    index = read_index(configs)
    pipeline = getattr(diffusers, index["_class_name"])
    made = {name: clip_tokenizer(name) for name in _PAD if name in index and _ships(configs, name)}
    pipe = pipeline.from_single_file(
        str(file), config=str(configs), local_files_only=True, dtype=options["dtype"], **made
    )
    parts: dict[str, Any] = pipe.components
    return {
        name: part
        for name, part in parts.items()
        if part is not None and name not in ("safety_checker", "feature_extractor")
    }


def _ships(configs: Path, tokenizer: str) -> bool:
    """Whether a folder of configurations leaves its tokenizer to us, as the shipped ones do."""
    return not (configs / tokenizer).is_dir()


def clip_tokenizer(name: str) -> Any:
    """CLIP's tokenizer as Stable Diffusion has it, `tokenizer` or XL's `tokenizer_2`."""
    from transformers import CLIPTokenizer

    text = gzip.decompress((package_data("models") / _MERGES).read_bytes()).decode()
    merges = [tuple(line.split()) for line in text.split("\n")]
    letters = _letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocabulary, merges, pad_token=_PAD[name], model_max_length=77)


def _letters() -> list[str]:
    """A letter for each of the 256 bytes, in the order of CLIP's vocabulary: bytes that can be printed
    stand for themselves, the others for letters beyond."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printed += range(ord("®"), ord("ÿ") + 1)
    others = [byte for byte in range(256) if byte not in printed]
    return [*map(chr, printed), *(chr(256 + number) for number in range(len(others)))]


def load_single(kind: Any, file: Path, configs: Path, part: str, options: dict[str, Any]) -> Any:
    """A model of one file: `kind` is its class, `part` its folder in `configs` (vae, controlnet)."""
    shapes_of(file)
    config = configs / part
    if not (config / "config.json").is_file():
        raise ModelError(
            f"{configs} has no {part}/config.json, which {file} is loaded with; add it"
        )
    return kind.from_single_file(
        str(file), config=str(config), local_files_only=True, dtype=options["dtype"]
    )


def load_motion_adapter(file: Path, configs: Path, options: dict[str, Any]) -> Any:
    """A motion adapter of one file, with AnimateDiff's own names or diffusers'; what its tensors tell of
    its layout (frames, blocks, the module in the middle) goes before the configuration."""
    import diffusers
    from safetensors.torch import load_file

    shapes = shapes_of(file)
    config = read_config(configs / "motion_adapter")
    config |= motion_layout(file, shapes)
    made = diffusers.MotionAdapter.from_config(config)
    weights = load_file(file)
    if any("temporal_transformer." in name for name in weights):
        from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers

        weights = convert_animatediff_checkpoint_to_diffusers(weights)
    missing, unexpected = made.load_state_dict(weights, strict=False)
    missing = [name for name in missing if "pos_embed" not in name]  # sines, made anew
    if missing or unexpected:
        odd = (
            f"lacks {missing[0]}"
            if missing
            else f"holds {unexpected[0]}, which it has no place for"
        )
        raise ModelError(f"{file} is no motion adapter of this layout: it {odd}")
    return made.to(options["dtype"]).eval()


def motion_layout(file: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """What a motion adapter's tensors tell of its configuration. ModelError where it is none."""
    inputs = {
        int(name.split(".")[1]): shape[0]
        for name, shape in shapes.items()
        if name.startswith("down_blocks.") and name.endswith("proj_in.weight")
    }
    if not inputs:
        raise ModelError(f"{file} is no motion adapter: it has no down_blocks.*.motion_modules")
    told: dict[str, Any] = {
        "block_out_channels": [inputs[block] for block in sorted(inputs)],
        "use_motion_mid_block": any(name.startswith("mid_block.") for name in shapes),
    }
    frames = [shape[1] for name, shape in shapes.items() if name.endswith((".pe", "pos_embed.pe"))]
    if frames:
        told["motion_max_seq_length"] = frames[0]
    return told
