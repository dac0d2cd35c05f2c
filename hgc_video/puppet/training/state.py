"""Training that outlives its machine: the averaged weights of the stages, kept small in the repository.

A stage that is taken up from there begins with the averaged weights and without the optimizer's moments.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from .progress import stored_step

KEPT = Path(__file__).parent / "state"
_FILE_BYTES = 15 * 10**6
_INDEX = "state.json"
_AVERAGED = "ema."


def keep(folder: Path, stages: dict[str, int], target: Path = KEPT) -> None:
    """Writes the averaged weights of stages (name to planned steps) of a run to `target`, in half precision.

    What is kept there of other stages goes: a later stage holds an earlier one's weights.
    """
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.safetensors"):
        old.unlink()
    index = {}
    for stage, planned in stages.items():
        path = folder / f"{stage}.safetensors"
        averaged = {k: v.half() for k, v in load_file(path).items() if k.startswith(_AVERAGED)}
        files = []
        for number, part in enumerate(_parts(averaged), 1):
            files.append(f"{stage}-{number}.safetensors")
            save_file(part, target / files[-1])
        index[stage] = {
            "step": stored_step(path),
            "of": planned,
            "loss": _last_loss(folder, stage),
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
        state = {k: v.float() for file in known["files"] for k, v in _load(source / file).items()}
        temporary = path.with_suffix(".partial")
        save_file(state, temporary, {"step": str(known["step"])})
        temporary.replace(path)
        restored.append(stage)
    return restored


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
