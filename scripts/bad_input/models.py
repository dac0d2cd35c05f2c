"""Models in files: good ones, damaged ones, and loading them."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from hgc_video.models.load import load_pipeline, read_facts
from hgc_video.models.parts import ModelParts

from .mutate import mutated, mutated_data


def good_models(folder: Path) -> list[Path]:
    """A model in single files: checkpoint, motion adapter, ControlNet, VAE, LoRA; and as a folder."""
    from tests.models.test_own_models import Files

    own = Files(folder)
    check_model(folder)  # what is loaded here is there in every fork
    names = (own.checkpoint, own.motion, own.controlnets["pose"], own.lora)
    configs = [path for path in own.configs.rglob("*.json") if path.is_file()]
    return [*map(Path, names), *configs]


def damaged_model(good: Path, folder: Path, random_: random.Random) -> tuple[str, Path]:
    """The files of a model, one of them damaged: its bytes, its header, or a value of its configuration."""
    root = next(parent for parent in good.parents if (parent / "style.safetensors").is_file())
    own = folder / good.relative_to(root)
    shutil.copytree(root, folder, dirs_exist_ok=True, copy_function=_linked)
    own.unlink()
    if good.suffix == ".json" and random_.random() < 0.7:
        how, data = mutated_data(json.loads(good.read_text()), random_)
        own.write_text(json.dumps(data))
    elif good.suffix == ".safetensors" and random_.random() < 0.6:
        how = _damaged_header(good, own, random_)
    else:
        how, data = mutated(good.read_bytes(), random_)
        own.write_bytes(data)
    return f"{good.name}: {how}", folder


def _linked(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _damaged_header(good: Path, path: Path, random_: random.Random) -> str:
    """Changes the header of a safetensors file as data: names, shapes, types, offsets."""
    data = good.read_bytes()
    length = int.from_bytes(data[:8], "little")
    how, header = mutated_data(json.loads(data[8 : 8 + length]), random_)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return f"header {how}"


def check_model(folder: Path) -> None:
    """Loads the pipeline that the files are."""
    base = str(folder / "style.safetensors")
    parts = ModelParts(
        base=base, base_config=str(folder / "configs"), motion_adapter=str(folder / "mm.safetensors"),
        controlnets=(("pose", str(folder / "pose.safetensors")),),
        loras=((str(folder / "lora.safetensors"), 0.5),),
    )  # fmt: skip
    read_facts(base, parts, offline=True)
    pipe = load_pipeline(base, "pose", parts=parts, offline=True)
    assert not pipe.unet.training
