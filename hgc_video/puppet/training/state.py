"""Training that outlives its machine: the averaged weights of the stages, kept small in the repository.

A stage that is taken up from there begins with the averaged weights and without the optimizer's moments. What
is in the package's own weights is not kept a second time.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .progress import stored_step

KEPT = Path(__file__).parent / "state"
_WEIGHTS = Path(__file__).parents[1] / "weights"
_FILE_BYTES = 15 * 10**6
_INDEX = "state.json"
_AVERAGED = "ema."


def keep(folder: Path, stages: dict[str, int], target: Path = KEPT) -> None:
    """Writes the averaged weights of stages (name to planned steps) of a run to `target`, in half precision.

    What is kept there of other stages goes: a later stage holds an earlier one's weights.
    """
    target.mkdir(parents=True, exist_ok=True)
    before = json.loads((target / _INDEX).read_text()) if (target / _INDEX).exists() else {}
    for old in target.glob("*.safetensors"):
        old.unlink()
    index = {}
    for stage, planned in stages.items():
        path = folder / f"{stage}.safetensors"
        averaged = {k: v.half() for k, v in load_file(path).items() if k.startswith(_AVERAGED)}
        shipped = _shipped(stage)
        is_shipped = averaged.keys() == shipped.keys() and all(
            torch.equal(value, shipped[key].half()) for key, value in averaged.items()
        )
        files = []
        for number, part in enumerate([] if is_shipped else _parts(averaged), 1):
            files.append(f"{stage}-{number}.safetensors")
            save_file(part, target / files[-1])
        index[stage] = {
            "step": stored_step(path),
            "of": planned,
            "loss": _last_loss(folder, stage) or before.get(stage, {}).get("loss"),
            "files": files,
        }
    (target / _INDEX).write_text(json.dumps(index, indent=2) + "\n")


def restore(folder: Path, source: Path = KEPT) -> list[str]:
    """Puts the kept stages into a run's folder where it has none of its own that is as far; their names."""
    if not (source / _INDEX).exists():
        return []
    restored = []
    for stage, known in json.loads((source / _INDEX).read_text()).items():
        path = folder / f"{stage}.safetensors"
        if path.exists() and stored_step(path) >= known["step"]:
            continue
        kept = {k: v for file in known["files"] for k, v in _load(source / file).items()}
        state = {k: v.float() for k, v in (kept or _shipped(stage)).items()}
        temporary = path.with_suffix(".partial")
        save_file(state, temporary, {"step": str(known["step"])})
        temporary.replace(path)
        restored.append(stage)
    return restored


def _shipped(stage: str) -> dict[str, Tensor]:
    """A stage's averaged weights by their names in training, of those that the package has; else none."""
    if stage == "clips":
        named = {f"{part}.": part for part in ("unet", "controlnet_pose", "controlnet_depth")}
    else:
        named = {"": "vae"} if stage == "decoder" else {}
    found = {
        f"{_AVERAGED}{prefix}{key}": value
        for prefix, part in named.items()
        for file in sorted((_WEIGHTS / part).glob("*.safetensors"))
        for key, value in _load(file).items()
        if not key.endswith("pos_embed.pe")  # a buffer, which is computed
    }
    if stage == "decoder":
        own = (f"{_AVERAGED}decoder.", f"{_AVERAGED}post_quant_conv.")
        return {key: value for key, value in found.items() if key.startswith(own)}
    return found


def _load(path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(path)
    return found


def _parts(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors in their order, in as many parts as keep each file small."""
    parts: list[dict[str, Tensor]] = [{}]
    filled = 0
    for key, value in tensors.items():
        if parts[-1] and filled + value.nbytes > _FILE_BYTES:
            parts.append({})
            filled = 0
        parts[-1][key] = value.contiguous()
        filled += value.nbytes
    return parts


def _last_loss(folder: Path, stage: str) -> float | None:
    """The newest smoothed loss of a stage in the run's curve."""
    curve = folder / "curve.jsonl"
    lines = map(json.loads, curve.read_text().splitlines()) if curve.exists() else ()
    losses = [x["loss"] for x in lines if x["stage"] == stage and "loss" in x]
    return float(losses[-1]) if losses else None
