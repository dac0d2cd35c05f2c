"""A gate for every layer and step, learned through the frozen model: which contributions can be held.

At every second step the contribution of each attention and motion layer is mixed from the fresh one and
that of the step before; the shares are trained so that the prediction stays and the MACs fall, and are
then rounded to a schedule. After Learning-to-Cache (2406.01733), which does so for transformers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..measure.similarity import Recorder
from ..plan.exact import add_exact
from ..plan.graph import BlockGraph
from ..plan.schedule import Schedule, StepPlan
from .record import moments_of
from .trials import Source, Trial, kept_trials, trials


@dataclass(frozen=True)
class Lesson:
    """How gates are learned: passes over random steps, the learning rate, and what a MAC weighs against
    the relative error of the prediction."""

    source: Source
    num_inference_steps: int
    passes: int = 150
    learning_rate: float = 0.15
    price: float = 0.05
    seed: int = 0


class Gates(nn.Module):
    """The share of each layer's contribution that is fresh, per held step: (steps, layers) in 0..1."""

    def __init__(self, graph: BlockGraph, num_inference_steps: int) -> None:
        super().__init__()
        self.layers = [la for la in graph.layers if la.part == "unet" and la.has_contribution]
        self.steps = list(range(1, num_inference_steps, 2))
        self.logits = nn.Parameter(torch.full((len(self.steps), len(self.layers)), 2.0))
        macs = torch.tensor([float(la.macs) for la in self.layers])
        self.register_buffer(
            "costs", macs / sum(la.macs for la in graph.layers if la.part == "unet")
        )

    def fresh(self, step: int) -> Tensor:
        """The shares (layers) of a step."""
        return self.logits[self.steps.index(step)].sigmoid()

    def cost(self, step: int) -> Tensor:
        """What the shares of a step cost, as a part of the UNet."""
        costs: Tensor = self.costs  # type: ignore[assignment]
        return (self.fresh(step) * costs).sum()

    def schedule(self, graph: BlockGraph, num_inference_steps: int) -> Schedule:
        """The shares rounded: below a half a contribution is held."""
        steps = []
        for step in range(num_inference_steps):
            held: frozenset[str] = frozenset()
            if step in self.steps:
                shares = self.fresh(step).tolist()
                held = frozenset(
                    la.name for la, share in zip(self.layers, shares, strict=True) if share < 0.5
                )
            label = f"{len(held)} held" if held else "full"
            steps.append(StepPlan(contributions=held, branches=graph.branches, label=label))
        return add_exact(Schedule("learned", tuple(steps)), graph)


def learn(lesson: Lesson, log: Callable[[str], None] = print) -> Schedule:
    """The schedule that the gates come to; the same from the same seed."""
    with kept_trials():
        return _learned(lesson, log)


def _learned(lesson: Lesson, log: Callable[[str], None]) -> Schedule:
    draw, made = random.Random(lesson.seed), trials(lesson.source)
    all_trials = [made(index, lesson.num_inference_steps) for index in range(lesson.source.count)]
    with torch.no_grad():
        seen = [list(moments_of(trial)) for trial in all_trials]
    graph = all_trials[0].graph
    gates = Gates(graph, lesson.num_inference_steps)
    optimizer = torch.optim.Adam(gates.parameters(), lr=lesson.learning_rate)
    for index in range(lesson.passes):
        clip, step = draw.randrange(len(all_trials)), draw.choice(gates.steps)
        error = _error(all_trials[clip], gates, seen[clip], step)
        loss = error + lesson.price * gates.cost(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if index % 25 == 24:
            cost = float(gates.cost(step))
            log(f"{index + 1:4d} passes: relative error {float(error):.4f}, cost {cost:.3f}")
    return gates.schedule(graph, lesson.num_inference_steps)


def _error(trial: Trial, gates: Gates, seen: list[Any], step: int) -> Tensor:
    """The relative error of the guided prediction where a step's contributions are mixed."""
    models, *_ = trial.start()
    before, now = seen[step - 1], seen[step]
    kept: dict[str, Tensor] = {}
    parts = {"unet": trial.pipe.unet}
    with (
        torch.no_grad(),
        Recorder(trial.graph, parts, lambda name, _, made: kept.update({name: made})),
    ):
        models.at(step - 1)
        models(before.model_input, before.t)
    with _mixed(trial.pipe.unet, gates, gates.fresh(step), kept):
        models.at(step)
        made = models(now.model_input, now.t)
    error: Tensor = (made - now.prediction).square().mean() / now.prediction.square().mean()
    return error


@contextmanager
def _mixed(
    unet: nn.Module, gates: Gates, shares: Tensor, kept: dict[str, Tensor]
) -> Iterator[None]:
    """Layers give their input plus a mixture of the fresh and the kept contribution; parameters rest."""
    trained = [p for p in unet.parameters() if p.requires_grad]
    handles = []
    for layer, share in zip(gates.layers, shares, strict=True):
        module = unet.get_submodule(layer.name.removeprefix("unet."))
        hook = _mixing(share, kept[layer.name])
        handles.append(module.register_forward_hook(hook, with_kwargs=True))
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter in trained:
            parameter.requires_grad_(True)


def _mixing(share: Tensor, kept: Tensor) -> Any:
    def mix(module: Any, args: Any, kwargs: Any, out: Any) -> Any:
        first = out[0] if isinstance(out, tuple) else out
        given = args[0] if args else kwargs["hidden_states"]
        mixed = given + share * (first - given) + (1 - share) * kept
        return (mixed, *out[1:]) if isinstance(out, tuple) else mixed

    return mix
