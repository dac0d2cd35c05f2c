"""The sites of one wrapped model: made ready before its call, and what they made collected after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from ..plan.liveness import delta
from ..plan.schedule import Anchors
from .anchors import AnchorRows, anchor_rows
from .current_step import CurrentStep
from .execution_log import ExecutionLog
from .shared_rows import HintSite, Prompts, TextProjectionCache
from .wrappers import ADD, RUN, AttentionSite, LayerSite, Site


class ModelSites:
    """The sites of one model, and the texts that it has got. `lossless`: a control clip that is the same
    for all branches is encoded for one."""

    def __init__(self, compiled: bool, lossless: bool) -> None:
        self.compiled, self.lossless = compiled, lossless
        self.layers: list[LayerSite] = []
        self.attentions: list[AttentionSite] = []
        self.texts: list[TextProjectionCache] = []
        self.hints: list[HintSite] = []
        self.prompts = Prompts()

    def __iter__(self) -> Iterator[Site]:
        yield from (*self.layers, *self.attentions, *self.texts, *self.hints)

    def prepare(
        self, step: CurrentStep, anchors: Anchors | None, also_keep: str | None = None
    ) -> None:
        """Tells the layers and attentions what they do at a step; the output of the layer `also_keep` is
        held for `collect` too. With `anchors` the UNet's attentions run at these frames alone."""
        for site in self.layers:
            _prepare_layer(site, step, also_keep)
        rows = None
        if anchors is not None:
            rows = anchor_rows(anchors, step.branches, step.frames, step.zero.device)
        for attention in self.attentions:
            _prepare_attention(attention, step, rows)

    def prepare_shared(self, step: CurrentStep, call: Mapping[str, Any]) -> None:
        """Tells the sites of text and control, which are computed once for all steps, frames or branches,
        what the coming call brings (arguments by name)."""
        if self.texts:
            states = call.get("encoder_hidden_states")
            prompt = self.prompts.at(step.window, states, step.branches)
            for text in self.texts:
                text.read(prompt, step.branches)
        for hint in self.hints:
            _prepare_hint(hint, step, call["controlnet_cond"], share=self.lossless)

    def collect(
        self, step: CurrentStep, log: ExecutionLog, see: Callable[[str, Tensor], None]
    ) -> None:
        """Takes what a call made: MACs of what ran go to `log`, values that a later step reads to the
        store, every layer's output that was held to `see`."""
        work, frames = step.work, step.frames
        for site in self.layers:
            if site.ran:
                log.count(site.name, work.macs[site.name], frames)
            if site.made is not None:
                see(site.name, site.made)
                if site.name in work.keep:
                    step.put(site.name, site.made)
            if site.delta is not None:
                step.put(delta(site.name), site.delta)
            site.forget()
        for attention in self.attentions:
            if attention.ran:
                log.count(attention.name, work.macs[attention.name], frames)
            if attention.made is not None:
                step.put(attention.name, attention.made, 1 if attention.average_branches else None)
            attention.forget()
        for text in self.texts:
            log.add(text.name, text.collect() * text.macs)
        for hint in self.hints:
            if hint.ran:
                log.count(hint.name, hint.executed, frames)
            if hint.made is not None:
                step.put(hint.name, hint.made, 1)
            hint.forget()

    def run_all(self) -> None:
        """The coming call runs everything as the stock model does and keeps nothing."""
        for site in self:
            site.run()


def _prepare_layer(site: LayerSite, step: CurrentStep, also_keep: str | None) -> None:
    name, work = site.name, step.work
    site.ran, site.keep, site.keep_contribution = False, False, False
    site.copies = step.whole_stand_ins
    if name in work.live.computed:
        site.mode = RUN
        site.keep = name in work.keep or name == also_keep
        site.keep_contribution = delta(name) in work.keep
    elif name in work.live.held:
        site.give(step.read(name))
    elif name in work.live.added:
        site.mode, site.value = ADD, step.read(delta(name), name)
    else:
        site.give(site.stand_in(step.zero, step.stand_in_rows))


def _prepare_attention(site: AttentionSite, step: CurrentStep, anchors: AnchorRows | None) -> None:
    name, work = site.name, step.work
    site.ran, site.keep = False, name in work.keep
    if name in work.live.held:
        site.give(step.read(name))
        return
    if name not in work.live.attended:
        return
    site.mode, site.average_branches = RUN, name in work.step.average_branches
    if name.startswith("unet.") and site.attention.per_frame:
        site.anchors = anchors


def _prepare_hint(site: HintSite, step: CurrentStep, conditioning: Any, *, share: bool) -> None:
    name, work = site.name, step.work
    if name in work.live.held and step.holds(name):
        site.hand_on(step.values(name)[0].tensor, dead=False)
    elif name in work.live.computed | work.live.held:
        site.encode(conditioning, step.branches, share=share, keep=name in work.keep)
    else:
        site.hand_on(step.zero.expand(step.stand_in_rows, 1, 1, 1), dead=True)
