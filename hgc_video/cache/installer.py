"""All sites of a graph, and the patches that put them into live models and take them off again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

from torch import nn

from ..errors import CacheStateError
from ..plan.graph import BlockGraph, Layer
from .compiled import is_compiled
from .model_sites import ModelSites
from .patch import Around, Patch, is_wrapped, undo_all
from .shared_rows import HintSite, TextProjectionCache
from .wrappers import AttentionSite, LayerSite


class Wiring:
    """Sites by the names of their layers and attentions; `of` lists those of each wrapped model."""

    def __init__(self, graph: BlockGraph, *, lossless: bool) -> None:
        self.graph, self.lossless = graph, lossless
        self.layers = {
            la.name: LayerSite(la) for la in graph.layers if la.kind not in ("join", "hint")
        }
        self.attentions = {name: AttentionSite(a) for name, a in graph.attentions.items()}
        self.hints = {
            name: HintSite(name, graph.by_name[name].macs) for name in graph.names("hint")
        }
        self.of: dict[str, ModelSites] = {}
        self._texts: dict[str, TextProjectionCache] = {}
        self._patches: list[Patch] = []
        self._worn: dict[int, Patch] = {}  # the last one of each module, by its id

    def put(
        self, part: str, model: nn.Module, around_model: Callable[[nn.Module, str], Any]
    ) -> None:
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
            sites = self.of[prefix] = ModelSites(is_compiled(top), self.lossless)
            for layer in self.graph.layers:
                if layer.name.startswith(f"{prefix}.") and layer.kind != "join":
                    self._put_layer(inner, layer, sites)

    def off(self) -> None:
        """Puts the models back exactly as they were, for a while."""
        for patch in reversed(self._patches):
            patch.undo()

    def on(self) -> bool:
        """Wraps the models again; False, and nothing is done, where one of them has changed since."""
        for i, patch in enumerate(self._patches):
            if not patch.in_place and not patch.redo():
                undo_all(self._patches[:i])
                return False
        return True

    def take_off(self) -> None:
        """Puts the models back exactly as they were."""
        self._worn = {id(patch.module): patch for patch in self._patches}
        undo_all(self._patches)
        self.of.clear()

    def forget(self) -> None:
        """Frees all tensors."""
        every = (self.layers, self.attentions, self._texts, self.hints)
        for site in chain.from_iterable(sites.values() for sites in every):
            site.forget()
        for sites in self.of.values():
            sites.prompts.forget()

    def state(self) -> dict[str, Any]:
        """What sites know of earlier steps: projected texts, and what layers gave; plain data and tensors."""
        return {
            "layers": [[name, *site.seen()] for name, site in self.layers.items()],
            "texts": [[name, site.state()] for name, site in self._texts.items()],
            "prompts": [[name, sites.prompts.state()] for name, sites in self.of.items()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Has the sites know what `state` told; the models are wrapped."""
        for name, *seen in state["layers"]:
            self.layers[name].have_seen(*seen)
        for name, texts in state["texts"]:
            self._texts[name].restore(texts)
        for name, prompts in state["prompts"]:
            self.of[name].prompts.restore(prompts)

    @property
    def nbytes(self) -> int:
        """Bytes of projected text."""
        return sum(site.nbytes for site in self._texts.values())

    def _models(self, part: str) -> list[str]:
        """The names of a part's models: its own, or those of several ControlNets."""
        several = {
            la.name.split(".nets.")[1].split(".")[0]
            for la in self.graph.layers
            if la.name.startswith(f"{part}.nets.")
        }
        return [f"{part}.nets.{k}" for k in sorted(several, key=int)] or [part]

    def _put_layer(self, model: nn.Module, layer: Layer, sites: ModelSites) -> None:
        module = _module(model, layer.name)
        if layer.kind == "hint":
            sites.hints.append(self.hints[layer.name])
            self._wrap(module, self.hints[layer.name])
            return
        sites.layers.append(self.layers[layer.name])
        self._wrap(module, self.layers[layer.name])
        for attention in layer.attentions:
            module, site = _module(model, attention.name), self.attentions[attention.name]
            sites.attentions.append(site)
            self._wrap(module, site)
            if attention.text_macs and self.lossless:
                self._put_texts(module, attention.name, sites)

    def _put_texts(self, attention: nn.Module, name: str, sites: ModelSites) -> None:
        macs = self.graph.attentions[name].text_macs // self.graph.num_frames
        for projection in ("to_k", "to_v", "to_kv"):  # the last where both were fused into one
            module = getattr(attention, projection, None)
            if module is not None:
                path, share = f"{name}.{projection}", 1 if projection == "to_kv" else 2
                site = self._texts.setdefault(path, TextProjectionCache(path, macs // share))
                sites.texts.append(site)
                self._wrap(module, site)

    def _wrap(self, module: nn.Module, around: Around) -> None:
        """Wraps a module, with its wrapper of before where nothing has changed since."""
        patch = self._worn.get(id(module))
        if patch is None or not patch.redo():
            patch = self._worn[id(module)] = Patch(module, around)
        self._patches.append(patch)


def _module(model: nn.Module, name: str) -> nn.Module:
    """The module of a layer's name, which begins with the part."""
    return model.get_submodule(name.partition(".")[2])
