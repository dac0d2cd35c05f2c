"""The one dial: off, lossless, quality, balanced, fast, turbo; and policies by name with fields.

`resolve("balanced")`, `resolve("hgc:balanced")`, `resolve("hgc:interval=3,cut=1")`,
`resolve("deepcache:interval=3")`, `resolve("fewer-steps:steps=13")`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from ..errors import PresetError, nearest
from .graph import BlockGraph
from .policies.deepcache import DeepCache
from .policies.hgc import HGC
from .policies.plain import full, lossless
from .schedule import Schedule

Fill = Callable[[BlockGraph, int], Schedule]

# The dial's positions; figures of each on the embedded model are in the README.
PRESETS: dict[str, HGC | None] = {
    "off": None,
    "lossless": None,
    "quality": HGC(dense=0.24, interval=2, cut=1, gate=1.0),
    "balanced": HGC(dense=0.16, interval=3, cut=1, gate=0.88),
    "fast": HGC(dense=0.12, interval=3, cut=1, gate=0.8),
    "turbo": HGC(dense=0.08, interval=4, cut=1, gate=0.8),
}
_POLICIES: dict[str, type[HGC] | type[DeepCache]] = {"hgc": HGC, "deepcache": DeepCache}
_PLAIN: dict[str, Fill] = {"full": full, "lossless": lossless}


@dataclass(frozen=True)
class Preset:
    """A chosen position of the dial or a policy; `fill` is None where nothing is wrapped at all."""

    name: str
    fill: Fill | None
    steps: int | None = None

    def schedule(self, graph: BlockGraph, num_inference_steps: int) -> Schedule | None:
        """The checked schedule for this graph and length."""
        return None if self.fill is None else self.fill(graph, num_inference_steps).check(graph)


def resolve(text: str) -> Preset:
    """The preset or policy that `text` names; PresetError names the nearest one."""
    name, _, options = text.strip().partition(":")
    if name == "hgc" and options in PRESETS:
        name, options = options, ""
    if name == "fewer-steps":
        values = _parse(name, options, {"steps": int})
        if values.get("steps", 0) < 1:
            raise PresetError("fewer-steps needs steps=N, at least 1, as in fewer-steps:steps=13")
        return Preset(text, None, steps=int(values["steps"]))
    if name in _POLICIES:
        policy = _POLICIES[name]
        kinds = {f.name: type(f.default) for f in fields(policy)}
        return Preset(text, policy(**_parse(name, options, kinds)))
    if options:
        raise PresetError(
            f'"{name}" takes no fields, got "{options}"; fields belong to {", ".join(_POLICIES)}'
        )
    if name in PRESETS:
        return Preset(name, PRESETS[name] or _PLAIN.get(name))
    if name in _PLAIN:
        return Preset(name, _PLAIN[name])
    raise PresetError(
        f'unknown preset "{text}": {nearest(name, [*PRESETS, *_PLAIN, *_POLICIES, "fewer-steps"])}'
    )


def _parse(name: str, options: str, kinds: dict[str, type]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for option in filter(None, options.split(",")):
        key, equals, value = (part.strip() for part in option.partition("="))
        if key not in kinds:
            raise PresetError(f'{name} has no field "{key}": {nearest(key, kinds)}')
        try:
            values[key] = kinds[key](value)
        except ValueError:
            kind = "a whole number" if kinds[key] is int else "a number"
            raise PresetError(f'{name}: {key} must be {kind}, got "{value}"') from None
        if not equals:
            raise PresetError(f"{name}: write {key}=VALUE")
    return values
