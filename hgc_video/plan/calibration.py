"""What was measured of a model once, so that schedules can be searched: pure numbers in a YAML file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from ..errors import PlanError

Segment = tuple[int, int, int]  # older key, newer key, step at which what they made is reused


@dataclass(frozen=True)
class Setting:
    """What a calibration holds for: a run with any other of these is another run."""

    model: str
    model_hash: str
    num_inference_steps: int
    scheduler: str
    guidance_scale: float

    def check(self, run: Setting) -> None:
        """PlanError where a run is not the one that was measured."""
        for name, measured in asdict(self).items():
            given = getattr(run, name)
            if given != measured:
                raise PlanError(
                    f"the calibration was made for {name}={measured} and this run has {given}; "
                    "make one for it with hgc-video calibrate"
                )


@dataclass(frozen=True)
class Calibration:
    """Mean squares over clips, of the guided prediction unless said.

    gains: the error of the final latents for an error of 1 in a step's prediction, by finite
        differences on real runs: what holding one step does in the end.
    gate: error of dropping the prompt-free branch at a step.
    reused: per cut (0 is the whole prediction), for older and newer key and the step: (a, b, q), the
        error a + 2 b c + q c^2 of reuse that adds c times the linear extrapolation. An older key of -1
        is none: only a.
    changes: relative L1 change of every layer from step to step (Block Caching eq. 6, 2312.03209).
    drift: relative L1 change of the guidance difference from step to step.
    magnitude: mean ratio of a prediction's norm to that of the step before (MagCache 2506.09045).
    """

    setting: Setting
    clips: int
    num_frames: int
    gains: tuple[float, ...]
    gate: tuple[float, ...]
    reused: dict[int, dict[Segment, tuple[float, float, float]]]
    changes: dict[str, tuple[float, ...]]
    drift: tuple[float, ...]
    magnitude: tuple[float, ...]

    def save(self, path: Path) -> None:
        """Writes the YAML file."""
        reused = {
            cut: {" ".join(map(str, at)): _short(values) for at, values in table.items()}
            for cut, table in self.reused.items()
        }
        data = {
            **asdict(self.setting), "clips": self.clips, "num_frames": self.num_frames,
            "gains": _short(self.gains), "gate": _short(self.gate), "drift": _short(self.drift),
            "magnitude": _short(self.magnitude), "reused": reused,
            "changes": {name: _short(values) for name, values in self.changes.items()},
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(data, sort_keys=False, width=120, default_flow_style=None))


def _short(values: tuple[float, ...]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def load_calibration(path: Path) -> Calibration:
    """The file's content; PlanError says why it cannot be used."""
    try:
        data = yaml.safe_load(path.expanduser().read_text())
        setting = Setting(*(data[name] for name in Setting.__dataclass_fields__))
        reused = {int(cut): _segments(table) for cut, table in data["reused"].items()}
        lists = {name: tuple(map(float, data[name])) for name in _LISTS}
        changes = {str(k): tuple(map(float, v)) for k, v in data["changes"].items()}
        return Calibration(
            setting,
            int(data["clips"]),
            int(data["num_frames"]),
            reused=reused,
            changes=changes,
            **lists,
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise PlanError(
            f'calibration "{path}" cannot be used: {error!r}; write one with hgc-video calibrate'
        ) from error


_LISTS = ("gains", "gate", "drift", "magnitude")


def _segments(table: dict[str, list[float]]) -> dict[Segment, tuple[float, float, float]]:
    found = {}
    for at, (hold, both, line) in table.items():
        older, newer, step = map(int, at.split())
        found[older, newer, step] = (float(hold), float(both), float(line))
    return found


def mean(parts: list[Calibration]) -> Calibration:
    """One calibration of several made with the same setting, each weighted by its clips."""
    weights = [part.clips / sum(p.clips for p in parts) for part in parts]

    def over(lists: list[tuple[float, ...]]) -> tuple[float, ...]:
        columns = zip(*lists, strict=True)
        return tuple(sum(w * v for w, v in zip(weights, c, strict=True)) for c in columns)

    first = parts[0]
    reused: dict[int, dict[Segment, tuple[float, float, float]]] = {}
    for cut, table in first.reused.items():
        rows = {at: over([part.reused[cut][at] for part in parts]) for at in table}
        reused[cut] = {at: (a, b, q) for at, (a, b, q) in rows.items()}
    return Calibration(
        first.setting, sum(p.clips for p in parts), first.num_frames, reused=reused,
        changes={name: over([p.changes[name] for p in parts]) for name in first.changes},
        **{name: over([getattr(p, name) for p in parts]) for name in _LISTS},
    )  # fmt: skip
