"""What was measured of a model once, so that schedules can be searched: pure numbers in a YAML file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ..errors import InputError, PlanError, one_line
from ..files import write_text
from .plain_yaml import read_plain

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

    sensitivity: the error of the final latents for an error of 1 in a step's prediction, by finite
        differences on real runs: what holding one step does in the end.
    cfg_drop_error: error of dropping the unconditional branch at a step.
    reused: per depth (0 is the whole prediction), for older and newer key and the step: (a, b, q), the
        error a + 2 b c + q c^2 of reuse that adds c times the linear extrapolation. An older key of -1
        is none: only a.
    changes: relative L1 change of every layer from step to step (Block Caching eq. 6, 2312.03209).
    products: of the predictions of every two steps, the mean of their product; none in files before 0.4.
    angles: the noise angle of every step, atan(sigma / alpha), where the scheduler's noise levels are known.
    products_as: the same products as `products`, of the predictions stated as every type of diffusers
        ("epsilon", "v_prediction", "sample"): of two steps the one of the later one's row. None of both in
        files before 0.5.
    held_products: per depth above 0 and step, of the errors of holding what every two steps before it made,
        the mean of their product: row j has those of step j with 0 to j. None in files before 0.4.
    """

    setting: Setting
    clips: int
    num_frames: int
    sensitivity: tuple[float, ...]
    cfg_drop_error: tuple[float, ...]
    reused: dict[int, dict[Segment, tuple[float, float, float]]]
    changes: dict[str, tuple[float, ...]]
    products: tuple[tuple[float, ...], ...] = ()
    held_products: dict[int, tuple[tuple[tuple[float, ...], ...], ...]] = field(
        default_factory=dict
    )
    angles: tuple[float, ...] = ()
    products_as: dict[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The calibration as plain data, with four digits of every number."""
        reused = {
            depth: {" ".join(map(str, at)): _short(values) for at, values in table.items()}
            for depth, table in self.reused.items()
        }
        return {
            **asdict(self.setting), "clips": self.clips, "num_frames": self.num_frames,
            "sensitivity": _short(self.sensitivity),
            "cfg_drop_error": _short(self.cfg_drop_error), "reused": reused,
            "changes": {name: _short(values) for name, values in self.changes.items()},
            # Differences of neighbours are what counts of them: four digits would not do.
            "products": [_short(row, 12) for row in self.products],
            "held_products": {
                depth: [[_short(row, 8) for row in rows] for rows in steps]
                for depth, steps in self.held_products.items()
            },
            "angles": _short(self.angles, 8),
            "products_as": {
                kind: [_short(row, 10) for row in rows] for kind, rows in self.products_as.items()
            },
        }  # fmt: skip

    def save(self, path: Path) -> None:
        """Writes the YAML file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(self.to_dict(), sort_keys=False, width=120, default_flow_style=None)
        write_text(path, text)


def _short(values: tuple[float, ...], digits: int = 4) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in values]


@dataclass(frozen=True)
class Changes:
    """How much each layer changes from step to step: a calibration's `changes` alone, which is all that
    Block Caching and `hgc:threshold=...` read."""

    model: str
    num_inference_steps: int
    changes: dict[str, tuple[float, ...]]

    def of(self, layer: str) -> tuple[float, ...]:
        """A layer's changes; PlanError when they were measured on another model."""
        if layer not in self.changes:
            raise PlanError(
                f"the calibration of {self.model} knows no layer {layer}; make one of this model with "
                "hgc-video calibrate"
            )
        return self.changes[layer]


def refresh_steps(changes: tuple[float, ...], threshold: float) -> tuple[int, ...]:
    """Steps at which the change accumulated since the last refresh exceeds `threshold`; step 0 always
    (Block Caching eq. 7, 2312.03209)."""
    steps, accumulated = [0], 0.0
    for step, change in enumerate(changes[1:], 1):
        accumulated += change
        if accumulated > threshold:
            steps.append(step)
            accumulated = 0.0
    return tuple(steps)


def load_changes(path: Path, num_inference_steps: int) -> Changes:
    """The measured changes in a calibration file; PlanError says why they cannot be used."""
    data = _read(path)
    named = {f.name: data[f.name] for f in fields(Changes) if f.name in data}
    found: Changes = _validated(path, Changes, named)
    if num_inference_steps != found.num_inference_steps:
        raise PlanError(
            f"the calibration was made for {found.num_inference_steps} steps and the run has "
            f"{num_inference_steps}; make one for that many with hgc-video calibrate"
        )
    return found


def load_products(path: Path) -> tuple[tuple[float, ...], ...]:
    """The measured products of predictions in a calibration file; PlanError says why they cannot be used."""
    found = load_calibration(path).products
    if not found:
        raise _unusable(path, "it holds no products of predictions")
    return found


def load_calibration(path: Path) -> Calibration:
    """The file's content; PlanError says why it cannot be used."""
    return calibration_of(_read(path), path)


def calibration_of(data: dict[str, Any], path: Path) -> Calibration:
    """The calibration that plain data hold, read from a file; PlanError says why they do not."""
    setting = {f.name: data[f.name] for f in fields(Setting) if f.name in data}
    data = {name: value for name, value in data.items() if name not in setting}
    named = {f.name: data[f.name] for f in fields(Calibration) if f.name in data}
    named["reused"] = _segments(path, data.get("reused"))
    named["setting"] = _validated(path, Setting, setting)
    found: Calibration = _validated(path, Calibration, named)
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        data = read_plain(path)
    except InputError as error:
        raise _unusable(path, str(error)) from error
    if not isinstance(data, dict):
        raise _unusable(path, "it holds no fields")
    return {_OLD_NAMES.get(str(name), str(name)): value for name, value in data.items()}


_OLD_NAMES = {"gains": "sensitivity", "gate": "cfg_drop_error"}  # of files written before 0.2


def _segments(path: Path, tables: Any) -> dict[int, dict[Segment, Any]]:
    """The file writes a segment as a text of three numbers, which no YAML key can be otherwise."""
    try:
        return {
            int(depth): {_segment(at): values for at, values in table.items()}
            for depth, table in tables.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise _unusable(path, f"its segments cannot be read ({error})") from error


def _segment(at: str) -> Segment:
    older, newer, step = map(int, at.split())
    return older, newer, step


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _validated(path: Path, kind: type, data: dict[str, Any]) -> Any:
    try:
        return _adapter(kind).validate_python(data)
    except ValidationError as error:
        raise _unusable(path, one_line(error, "a calibration", data)) from error


def _unusable(path: Path, reason: str) -> PlanError:
    return PlanError(
        f'calibration "{path}" cannot be used: {reason}; write one with hgc-video calibrate'
    )


def mean(parts: list[Calibration]) -> Calibration:
    """One calibration of several made with the same setting, each weighted by its clips."""
    weights = [part.clips / sum(p.clips for p in parts) for part in parts]

    def over(lists: list[tuple[float, ...]]) -> tuple[float, ...]:
        columns = zip(*lists, strict=True)
        return tuple(sum(w * v for w, v in zip(weights, c, strict=True)) for c in columns)

    def rows_over(
        tables: list[tuple[tuple[float, ...], ...]],
    ) -> tuple[tuple[float, ...], ...]:
        return tuple(over(list(rows)) for rows in zip(*tables, strict=True))

    first = parts[0]
    reused: dict[int, dict[Segment, tuple[float, float, float]]] = {}
    for depth, table in first.reused.items():
        rows = {at: over([part.reused[depth][at] for part in parts]) for at in table}
        reused[depth] = {at: (a, b, q) for at, (a, b, q) in rows.items()}
    return Calibration(
        first.setting, sum(p.clips for p in parts), first.num_frames, reused=reused,
        changes={name: over([p.changes[name] for p in parts]) for name in first.changes},
        sensitivity=over([p.sensitivity for p in parts]),
        cfg_drop_error=over([p.cfg_drop_error for p in parts]),
        products=rows_over([part.products for part in parts]),
        held_products={
            depth: tuple(
                rows_over(list(steps))
                for steps in zip(*(part.held_products[depth] for part in parts), strict=True)
            )
            for depth in first.held_products
        },
        angles=first.angles,
        products_as={
            kind: rows_over([part.products_as[kind] for part in parts]) for kind in first.products_as
        },
    )  # fmt: skip
