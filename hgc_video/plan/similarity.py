"""How much each layer changes from step to step, measured once, and the refresh moments that follow.

Pure numbers in a small YAML file; scripts/record_similarity.py writes one from real runs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from ..errors import PlanError


@dataclass(frozen=True)
class Similarity:
    """Mean relative L1 change of each layer's contribution (attention, motion) or output (the others)
    against the step before, per step: `changes[layer][step]`, step 0 being 0 (Block Caching eq. 6)."""

    model: str
    num_inference_steps: int
    changes: dict[str, tuple[float, ...]]

    def save(self, path: Path) -> None:
        """Writes the YAML file."""
        data = asdict(self)
        data["changes"] = {k: [round(v, 4) for v in vs] for k, vs in self.changes.items()}
        path.write_text(yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=100))

    def of(self, layer: str, num_inference_steps: int) -> tuple[float, ...]:
        """A layer's changes; PlanError when they were measured for other steps or another model."""
        if num_inference_steps != self.num_inference_steps:
            raise PlanError(
                f"the calibration was made for {self.num_inference_steps} steps and the run has "
                f"{num_inference_steps}; record it again with that many"
            )
        if layer not in self.changes:
            raise PlanError(
                f"the calibration of {self.model} knows no layer {layer}; record it again on this model"
            )
        return self.changes[layer]


def refresh_moments(changes: tuple[float, ...], threshold: float) -> tuple[int, ...]:
    """Steps at which the change accumulated since the last refresh exceeds `threshold`; step 0 always
    (Block Caching eq. 7, 2312.03209)."""
    moments, accumulated = [0], 0.0
    for step, change in enumerate(changes[1:], 1):
        accumulated += change
        if accumulated > threshold:
            moments.append(step)
            accumulated = 0.0
    return tuple(moments)


@lru_cache(maxsize=8)
def load_similarity(path: str) -> Similarity:
    """The file's content; PlanError says why it cannot be used."""
    try:
        data = yaml.safe_load(Path(path).expanduser().read_text())
        changes = {str(k): tuple(float(v) for v in vs) for k, vs in data["changes"].items()}
        return Similarity(str(data["model"]), int(data["num_inference_steps"]), changes)
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise PlanError(
            f'calibration "{path}" cannot be used: {error}; write one with scripts/record_similarity.py'
        ) from error
