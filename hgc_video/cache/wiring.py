"""All sites of a graph, and the patches that put them into live models and take them off again."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from ..errors import CacheStateError
from ..plan.graph import BlockGraph, Layer
from .patch import Around, Patch, is_wrapped, undo_all
from .shared import TextSite
from .sites import AttentionSite, LayerSite


class Wiring:
    """Sites by the names of their layers and attentions; `of` lists those of each wrapped model."""

    def __init__(self, graph: BlockGraph, *, lossless: bool) -> None:
        self.graph, self.lossless = graph, lossless
        self.layers = {
            la.name: LayerSite(la) for la in graph.layers if la.kind not in ("join", "hint")
        }
        self.attentions = {name: AttentionSite(a) for name, a in graph.attentions.items()}
        self.of: dict[str, tuple[list[LayerSite], list[AttentionSite]]] = {}
        self._texts: dict[str, TextSite] = {}
        self._patches: list[Patch] = []
        self._worn: dict[int, Patch] = {}  # the last one of each module, by its id

    def put(
        self, part: str, model: nn.Module, around_model: Callable[[nn.Module, str], Any],
        around_hint: Callable[[Layer], Any],
    ) -> None:  # fmt: skip
        """Wraps a part's models and their layers; CacheStateError if one carries another cache."""
        inner = getattr(model, "_orig_mod", model)  # torch.compile wraps a model in another
        for prefix in self._models(part):
            net = inner if prefix == part else _module(inner, prefix)
            top = model if prefix == part else net
            if is_wrapped(net) or is_wrapped(top):
                raise CacheStateError(
                    f"this {type(net).__name__} already has a cache attached; disable that one first, "
                    "a model carries out one schedule at a time"
                )
            self._wrap(top, around_model(net, prefix))
            layers = [la for la in self.graph.layers if la.name.startswith(f"{prefix}.")]
            for layer in layers:
                if layer.kind == "hint":
                    self._wrap(_module(inner, layer.name), around_hint(layer))
                elif layer.kind != "join":
                    self._put_layer(inner, layer)
            self.of[prefix] = (
                [self.layers[la.name] for la in layers if la.name in self.layers],
                [self.attentions[a.name] for la in layers for a in la.attentions],
            )

    def take_off(self) -> None:
        """Puts the models back exactly as they were."""
        try:
            undo_all(self._patches)
        finally:
            self.of.clear()

    def forget(self) -> None:
        """Lets go of all tensors."""
        for sites in (self.layers, self.attentions):
            for site in sites.values():
                site.forget()
        for text in self.texts:
            text.forget()

    def at_window(self, window: int) -> None:
        """Tells the sites that keep what a window's frames share."""
        for text in self.texts:
            text.window = window

    @property
    def texts(self) -> Collection[TextSite]:
        """The projections of the text."""
        return self._texts.values()

    @property
    def nbytes(self) -> int:
        """Bytes of projected text."""
        return sum(site.nbytes for site in self.texts)

    def _models(self, part: str) -> list[str]:
        """The names of a part's models: its own, or those of several ControlNets."""
        several = {
            la.name.split(".nets.")[1].split(".")[0]
            for la in self.graph.layers
            if la.name.startswith(f"{part}.nets.")
        }
        return [f"{part}.nets.{k}" for k in sorted(several, key=int)] or [part]

    def _put_layer(self, model: nn.Module, layer: Layer) -> None:
        self._wrap(_module(model, layer.name), self.layers[layer.name])
        for attention in layer.attentions:
            module = _module(model, attention.name)
            self._wrap(module, self.attentions[attention.name])
            if attention.text_macs and self.lossless:
                self._put_texts(module, attention.name)

    def _put_texts(self, attention: nn.Module, name: str) -> None:
        for projection in ("to_k", "to_v", "to_kv"):  # the last where both were fused into one
            module = getattr(attention, projection, None)
            if module is not None:
                self._wrap(module, self._texts.setdefault(f"{name}.{projection}", TextSite()))

    def _wrap(self, module: nn.Module, around: Around) -> None:
        """Wraps a module, with its wrapper of before where nothing has changed since."""
        patch = self._worn.get(id(module))
        if patch is None or not patch.redo():
            patch = self._worn[id(module)] = Patch(module, around)
        self._patches.append(patch)


def _module(model: nn.Module, name: str) -> nn.Module:
    """The module of a layer's name, which begins with the part."""
    return model.get_submodule(name.partition(".")[2])
