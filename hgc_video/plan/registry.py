"""Policies by name, with their fields, defaults and sources; and the words they are called with.

`deepcache:interval=3,branch=0`, `tgate:gate=5+lossless`, `hgc:balanced`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from ..errors import PresetError, nearest
from .adaptive import AdaptivePlan
from .graph import BlockGraph
from .policies.block_caching import BlockCaching
from .policies.clockwork import Clockwork
from .policies.deepcache import DeepCache
from .policies.easycache import EasyCache
from .policies.faster_diffusion import FasterDiffusion
from .policies.fastercache import FasterCache
from .policies.hgc import HGC
from .policies.hgc_online import HGCOnline
from .policies.pab import PAB
from .policies.plain import Full, Gate, Learned, Lossless, Searched
from .policies.tgate import TGate
from .schedule import Schedule

Fill = Callable[[BlockGraph, int], "Schedule | AdaptivePlan"]


@dataclass(frozen=True)
class Entry:
    """A policy: its class, whose fields are its options, what it does, and where it was published."""

    policy: Callable[..., Fill]
    about: str
    source: str

    def options(self) -> dict[str, Any]:
        """Field names and defaults."""
        return {f.name: f.default for f in fields(self.policy)}  # type: ignore[arg-type]


POLICIES: dict[str, Entry] = {
    "hgc": Entry(HGC, "blocks, ControlNet, cross-attention and guidance together", "2511.11031"),
    "searched": Entry(
        Searched, "the schedule in a file that hgc-video search wrote", "this package"
    ),
    "learned": Entry(
        Learned, "contributions held by gates trained through the model", "2406.01733"
    ),
    "hgc-online": Entry(HGCOnline, "hgc with refresh moments found at run time", "2511.11031"),
    "deepcache": Entry(DeepCache, "outermost layers fresh, deeper ones at key steps", "2312.00858"),
    "block-caching": Entry(BlockCaching, "contributions kept by measured change", "2312.03209"),
    "tgate": Entry(TGate, "cross-attention and guidance fixed after a gate", "2404.02747"),
    "faster-diffusion": Entry(FasterDiffusion, "encoder at key steps", "2312.09608"),
    "clockwork": Entry(Clockwork, "low-resolution path at every n-th step", "2312.08128"),
    "pab": Entry(PAB, "attention outputs kept over ranges of steps", "2408.12588"),
    "easycache": Entry(EasyCache, "whole steps skipped, decided at run time", "2507.02860"),
    "fastercache": Entry(FasterCache, "attention and guidance difference kept", "2410.19355"),
    "gate": Entry(Gate, "guidance dropped after a share of the run", "2404.07724"),
    "lossless": Entry(Lossless, "only what changes nothing but rounding", "this package"),
    "full": Entry(Full, "everything, through the engine", "the host itself"),
}


def make_policy(text: str) -> Fill:
    """The policy that `name:field=value,…` names; PresetError says what is allowed."""
    name, _, options = text.strip().partition(":")
    if name not in POLICIES:
        raise PresetError(f'unknown policy "{name}": {nearest(name, POLICIES)}')
    entry = POLICIES[name]
    return entry.policy(**parse_fields(name, options, entry.options()))


def parse_fields(name: str, options: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """`field=value,…` as values of the defaults' types."""
    values: dict[str, Any] = {}
    for option in filter(None, options.split(",")):
        key, equals, value = (part.strip() for part in option.partition("="))
        if not defaults:
            raise PresetError(f'"{name}" takes no fields, got "{options}"')
        if key not in defaults:
            raise PresetError(f'{name} has no field "{key}": {nearest(key, defaults)}')
        values[key] = _convert(name, key, value, type(defaults[key]))
        if not equals:
            raise PresetError(f"{name}: write {key}=VALUE")
    return values


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _convert(name: str, key: str, value: str, kind: type) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[value.lower()]
        return kind(value)
    except (ValueError, KeyError):
        raise PresetError(f'{name}: {key} must be {_KINDS[kind]}, got "{value}"') from None
