"""What every training stage shares: resumable state in safetensors, EMA, a logged curve."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .optimizers import MuonAndAdamW

_CHECK_EVERY = 200  # steps between two looks at data apart


class Stage:
    """Runs a training stage: steps, learning rate, EMA, checkpoints, a curve in JSON lines.

    `loss_of(step)` returns the loss of one batch. The rate warms up, stays, and decays by a cosine
    over the last `decay` share. With `muon_rate` matrices and kernels are stepped by Muon at that rate,
    the rest by AdamW at `rate`; without it all by AdamW. A stage that was stopped goes on at its last
    checkpoint; where that holds the averaged weights alone, from those and with new moments.
    """

    def __init__(
        self, name: str, folder: Path, modules: dict[str, nn.Module], *, steps: int, rate: float,
        muon_rate: float | None = None, decay: float = 0.4, ema: float = 0.999,
        weight_decay: float = 0.01,
    ) -> None:  # fmt: skip
        self.name, self.folder, self.steps, self.decay = name, folder, steps, decay
        self.modules, self.ema_rate = modules, ema
        self.parameters = {
            f"{part}.{key}": value
            for part, module in modules.items()
            for key, value in module.named_parameters()
            if value.requires_grad
        }
        self.optimizer = MuonAndAdamW(
            self.parameters, rate=rate, muon_rate=muon_rate, weight_decay=weight_decay
        )
        self.ema = {key: value.detach().clone() for key, value in self.parameters.items()}
        self.step = 0
        self._resume()

    @property
    def path(self) -> Path:
        """Where the stage keeps its state."""
        return self.folder / f"{self.name}.safetensors"

    def run(
        self,
        loss_of: Callable[[int], Tensor],
        *,
        save_every_s: float = 120,
        until: float | None = None,
        held_out: Callable[[], Tensor] | None = None,
    ) -> bool:
        """Trains to the last step or to the time `until` (as of time.time()); True when finished.

        `held_out` gives the loss on data apart, which goes into the curve every 200 steps.

        Where there is no step to take nothing is written: a file that held what an unfinished stage
        before this one left would be taken up instead of that stage's final weights.
        """
        first = self.step
        saved, began, smooth = time.time(), time.time(), 0.0
        while self.step < self.steps and (until is None or time.time() < until):
            self.optimizer.scale(self._share_of_rate())
            loss = loss_of(self.step)
            self.optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
            if torch.isfinite(norm):
                self.optimizer.step()
            self._update_ema()
            self.step += 1
            value = float(loss.detach())
            smooth = value if smooth == 0 else 0.97 * smooth + 0.03 * value
            if self.step % 25 == 0:
                self._log(smooth, time.time() - began)
            if held_out is not None and self.step % _CHECK_EVERY == 0:
                with torch.no_grad():
                    self._write(held_out=round(float(held_out()), 5))
            if time.time() - saved > save_every_s:
                self.save()
                saved = time.time()
        if self.step > first:
            self.save()
        return self.step >= self.steps

    def save(self) -> None:
        """Writes weights, EMA and optimizer moments; whole or not at all."""
        state = {f"model.{k}": v.detach() for k, v in self.parameters.items()}
        state |= {f"ema.{k}": v for k, v in self.ema.items()}
        state |= self.optimizer.state()
        temporary = self.path.with_suffix(".partial")
        save_file(
            {k: v.contiguous() for k, v in state.items()}, temporary, {"step": str(self.step)}
        )
        temporary.replace(self.path)

    def use_ema(self) -> None:
        """Copies the averaged weights into the modules."""
        with torch.no_grad():
            for key, value in self.parameters.items():
                value.copy_(self.ema[key])

    def _resume(self) -> None:
        if not self.path.exists():
            return
        state = load_file(self.path)
        with torch.no_grad():
            for key, value in self.parameters.items():
                averaged = state[f"ema.{key}"]
                value.copy_(state.get(f"model.{key}", averaged))
                self.ema[key].copy_(averaged)
        self.step = stored_step(self.path)
        self.optimizer.load(state, self.step)

    def _share_of_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / 100)
        start = self.steps * (1 - self.decay)
        share = max(0.0, (self.step - start) / max(self.steps - start, 1))
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(share * math.pi)))

    @torch.no_grad()
    def _update_ema(self) -> None:
        rate = min(self.ema_rate, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.ema.values()), list(self.parameters.values()), 1 - rate)

    def _log(self, loss: float, seconds: float) -> None:
        self._write(loss=round(loss, 5), seconds=round(seconds, 1))

    def _write(self, **figures: float) -> None:
        """One line of the curve, also printed."""
        line = {"stage": self.name, "step": self.step, **figures}
        with (self.folder / "curve.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)


def finished(folder: Path, name: str, steps: int) -> bool:
    """Whether the stage of this name has taken all its steps in `folder`."""
    path = folder / f"{name}.safetensors"
    return path.exists() and stored_step(path) >= steps


def stored_step(path: Path) -> int:
    """The step at which a stage's file was written."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return int(file.metadata()["step"])


def averaged_weights(path: Path, part: str) -> dict[str, Tensor]:
    """The averaged weights of one part, as a stage's file keeps them."""
    prefix = f"ema.{part}."
    return {k.removeprefix(prefix): v for k, v in load_file(path).items() if k.startswith(prefix)}
