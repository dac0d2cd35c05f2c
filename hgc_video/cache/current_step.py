"""The step that is computed now: what is done at it, and its access to the store."""

from __future__ import annotations

from threading import get_ident
from typing import Any

import torch
from torch import Tensor

from ..errors import CacheStateError
from .overflow import OverflowGuard
from .prepared import PreparedStep
from .store import Key, Store, Value


class CurrentStep:
    """One step on one window of frames; keys of the store are those of this run and window.

    prepared: what is done, set when the step's first model is called.
    calls: by model, the forward that was called and its arguments by name.
    frames: rows of one guidance branch: the frames of all clips. zero: a scalar of the calls' dtype and
    device, which stand-ins are expanded from. progress: how far the latents of every clip have come (b),
    where the plan extrapolates by that; None before the UNet has them.
    whole_stand_ins: stand-ins must have all rows. guess_mode: a ControlNet got the prompt's branch alone.
    inputs_changed: a model got another prompt, control or embedding than at the step before. thread: that of
    the run.
    """

    def __init__(
        self, store: Store, run: int, index: int, window: int, overflow: OverflowGuard
    ) -> None:
        self._store, self._run, self._overflow = store, run, overflow
        self.index, self.window, self.thread = index, window, get_ident()
        self.prepared: PreparedStep | None = None
        self.calls: dict[str, tuple[Any, dict[str, Any]]] = {}
        self.frames = 0
        self.zero = torch.empty(0)
        self.progress: Tensor | None = None
        self.whole_stand_ins = self.guess_mode = self.inputs_changed = False

    @property
    def work(self) -> PreparedStep:
        """What is done at the step; CacheStateError before its first model is called."""
        if self.prepared is None:
            raise CacheStateError(f"no model was called yet at step {self.index}")
        return self.prepared

    @property
    def branches(self) -> int:
        """The guidance branches that the models compute."""
        return self.work.step.branches

    @property
    def stand_in_rows(self) -> int:
        """The rows of stand-ins: none, unless a block joins them with tensors that are computed."""
        whole = self.work.mixed or self.whole_stand_ins
        return self.frames * self.branches if whole else 0

    def key(self, name: str) -> Key:
        """The store's key for a name of the plan."""
        return Key(self._run, self.window, name)

    def holds(self, name: str) -> bool:
        """Whether a value is kept for a name."""
        return self.key(name) in self._store

    def values(self, name: str) -> tuple[Value, ...]:
        """What is kept for a name, the newest first."""
        return self._store.values(self.key(name))

    def put(self, name: str, tensor: Tensor, branches: int | None = None) -> None:
        """Keeps a value, of the step's branches or of so many."""
        value = Value(tensor, branches or self.branches, self.frames)
        self._store.put(self.key(name), value, self.work.keep[name])
        self._overflow.put(self.window, name, tensor)

    def read(self, name: str, layer: str | None = None) -> Tensor:
        """What is kept for a name, extrapolated where the plan says so of the layer (None: of that name)."""
        extrapolated = (layer or name) in self.work.step.extrapolate
        return self._store.get(
            self.key(name), branches=self.branches, frames=self.frames,
            coefficients=self.work.step.coefficients if extrapolated else (),
            progress=self.progress,
        )  # fmt: skip

    def read_one_branch(self, name: str) -> Tensor:
        """What is kept for a name of which all branches have one value."""
        return self._store.get(self.key(name), branches=1, frames=self.frames)
