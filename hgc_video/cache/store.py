"""The one place where cached tensors lie, by key; a key or shape that does not match is an error."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import CacheStateError
from .combination import combined
from .nbytes import Count, Tally
from .offload import OffloadTier, Parked, host_for


class Key(NamedTuple):
    """Whose value it is: run, window of frames, and the plan's name for it."""

    run: int
    window: int
    name: str


class Value(NamedTuple):
    """A kept tensor (branches·frames …), with the guidance branches and frames it was made for."""

    tensor: Tensor
    branches: int
    frames: int

    def for_branches(self, branches: int) -> Tensor:
        """Its rows for both branches, or the prompt's alone, which come last."""
        if branches > self.branches:
            raise CacheStateError(
                f"a value made for {self.branches} branch is read for {branches}; "
                "let that step compute it"
            )
        return self.tensor if branches == self.branches else self.tensor.chunk(2)[1]


@dataclass(frozen=True)
class Offloaded:
    """In a saved state: a tensor that waits in the offload tier; `load` gives it, on the host."""

    load: Callable[[], Tensor]


@dataclass(frozen=True)
class Lasting:
    """In a saved state: plain data whose tensors nobody writes to, however long they are there."""

    state: Any


class _Kept:
    """A value wherever it lies: on the device, on its way back there, in the offload tier, or both."""

    def __init__(self, value: Value) -> None:
        self.branches, self.frames = value.branches, value.frames
        self.here: Tensor | None = value.tensor
        self.wait: Callable[[], None] | None = None  # until it has arrived
        self.parked: Parked | None = None


class Store:
    """The last values of everything kept, with exact accounting of their bytes on the device and in the
    offload tier, where values wait between `park` and `fetch`. Values are never written to, so that
    one that was parked before is not copied there again."""

    def __init__(self) -> None:
        self._values: dict[Key, tuple[_Kept, ...]] = {}
        self._host: OffloadTier | None = None
        self.device, self.host = Tally(), Count()
        self.to_host = self.to_device = 0

    def put(self, key: Key, value: Value, depth: int = 1) -> None:
        """Keeps a value and the `depth - 1` ones before it."""
        kept = self._values.get(key, ())
        self.device.hold(value.tensor)
        self._values[key] = (_Kept(value), *kept[: depth - 1])
        self._drop(kept[depth - 1 :])

    def get(
        self, key: Key, *, branches: int, frames: int, coefficients: tuple[float, ...] = (),
        progress: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The last value, or a linear combination of the last ones, for these branches; see `combined`.

        CacheStateError when there are too few, or they were made for other frames.
        """
        depth = max(1, len(coefficients))
        kept = self._values.get(key, ())[:depth]
        if len(kept) < depth:
            raise CacheStateError(
                f"nothing is stored for {key}; a step before this one must compute it"
                if not kept
                else f"{len(kept)} values are stored for {key} and {depth} are read; steps before this "
                "one must compute them"
            )
        for one in kept:
            if one.frames != frames:
                raise CacheStateError(
                    f"{key.name} was stored for {one.frames} rows and is read for {frames}; "
                    "start a new run when frames or batch change"
                )
        values = [self._value(one).for_branches(branches) for one in kept]
        return combined(values, coefficients, progress, branches)

    def values(self, key: Key) -> tuple[Value, ...]:
        """What is kept for a key, the newest first."""
        return tuple(self._value(kept) for kept in self._values.get(key, ()))

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    def keep_only(self, window: int, names: Mapping[str, int]) -> None:
        """Forgets all values of a window but the last so many of each name."""
        for key in [key for key in self._values if key.window == window]:
            kept = self._values[key]
            depth = names.get(key.name, 0)
            self._drop(kept[depth:])
            if depth:
                self._values[key] = kept[:depth]
            else:
                del self._values[key]

    def park(self, window: int, device: torch.device) -> None:
        """Sends a window's values to the offload tier; nobody waits for the copies."""
        for kept in self._of(window):
            self._park(kept, device)
            self._leave(kept)

    def fetch(self, window: int, names: Mapping[str, int] | None) -> None:
        """Begins to bring back a window's last so many values of each name (None: all that is kept)."""
        for key, kept in self._values.items():
            if key.window == window:
                for one in kept if names is None else kept[: names.get(key.name, 0)]:
                    self._bring(one)

    def only_windows(self, windows: Collection[int], always: Collection[str] = ()) -> None:
        """Forgets all values of other windows, but those of the names `always`."""
        for key in [key for key in self._values if key.window not in windows]:
            if key.name not in always:
                self._drop(self._values.pop(key))

    def clear(self) -> None:
        """Forgets everything; the counts stay until `begin`."""
        for kept in self._values.values():
            self._drop(kept)
        self._values.clear()
        self._host = None

    def begin(self) -> None:
        """Forgets everything and starts to count anew."""
        self.clear()
        self.device, self.host = Tally(), Count()
        self.to_host = self.to_device = 0

    def state(self) -> dict[str, Any]:
        """Everything kept, wherever it lies, and the counts; plain data and tensors, which are not copied."""
        return {
            "values": [
                {"window": key.window, "name": key.name, "kept": [_saved(one) for one in kept]}
                for key, kept in self._values.items()
            ],
            "peaks": [self.device.peak, self.host.peak],
            "copied": [self.to_host, self.to_device],
        }

    def restore(self, state: Mapping[str, Any], run: int, device: torch.device) -> None:
        """Keeps what `state` told, for a run, in the tier where it was."""
        for entry in state["values"]:
            key = Key(run, entry["window"], entry["name"])
            self._values[key] = tuple(self._restored(saved, device) for saved in entry["kept"])
        self.device.peak, self.host.peak = state["peaks"]
        self.to_host, self.to_device = state["copied"]

    def _restored(self, saved: Mapping[str, Any], device: torch.device) -> _Kept:
        told = saved["tensor"]
        there = told.load().to(device) if isinstance(told, Offloaded) else told
        kept = _Kept(Value(there, saved["branches"], saved["frames"]))
        self.device.hold(there)
        if saved["parked"]:
            self._park(kept, device)
        if isinstance(told, Offloaded):
            self._leave(kept)
        return kept

    @property
    def nbytes(self) -> int:
        """Bytes kept now, each value once, wherever it lies; a storage that two share counts once."""
        parked = (k.parked for kept in self._values.values() for k in kept if k.here is None)
        return self.device.now + sum(p.nbytes for p in parked if p is not None)

    def _park(self, kept: _Kept, device: torch.device) -> None:
        """Has the offload tier hold a copy, if it does not yet."""
        if kept.here is None or kept.parked is not None:
            return
        if self._host is None:
            self._host = host_for(device)
        kept.parked = self._host.park(kept.here)
        self.host.add(kept.parked.nbytes)
        self.to_host += kept.parked.nbytes

    def _of(self, window: int) -> Iterator[_Kept]:
        for key, kept in self._values.items():
            if key.window == window:
                yield from kept

    def _value(self, kept: _Kept) -> Value:
        self._bring(kept)
        if kept.wait is not None:
            kept.wait()
            kept.wait = None
        assert kept.here is not None
        return Value(kept.here, kept.branches, kept.frames)

    def _bring(self, kept: _Kept) -> None:
        if kept.here is None:
            assert kept.parked is not None
            kept.here, kept.wait = kept.parked.bring()
            self.device.hold(kept.here)
            self.to_device += kept.parked.nbytes

    def _leave(self, kept: _Kept) -> None:
        """Frees what is on the device."""
        if kept.here is not None:
            self.device.let_go(kept.here)
            kept.here = kept.wait = None

    def _drop(self, values: Iterable[_Kept]) -> None:
        """Frees values wherever they lie."""
        for kept in values:
            self._leave(kept)
            if kept.parked is not None:
                self.host.remove(kept.parked.nbytes)
                kept.parked.free()
                kept.parked = None


def _saved(kept: _Kept) -> dict[str, Any]:
    """A value for a saved state, without a copy."""
    parked = kept.parked
    if kept.here is None:
        assert parked is not None
        tensor: Tensor | Offloaded = Offloaded(lambda: parked.tensor)
    else:
        if kept.wait is not None:
            kept.wait()
        tensor = kept.here
    told = {"branches": kept.branches, "frames": kept.frames, "parked": parked is not None}
    return {"tensor": tensor, **told}
