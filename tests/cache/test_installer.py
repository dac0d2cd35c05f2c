"""Sites put into models and taken off again: which modules are wrapped, by what, and what is left of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from hgc_video.cache.installer import Wiring
from hgc_video.cache.shared_rows import Prompt
from hgc_video.cache.wrappers import GIVE
from hgc_video.errors import CacheStateError
from hgc_video.plan.graph import BlockGraph, Layer
from tests.plan.test_graph import ladder

TEXT = torch.arange(2 * 4 * 3.0).reshape(2, 4, 3)
DEEP, CROSS = "unet.deep", "unet.deep.attn2"


class Attention(nn.Module):
    """Keys and values of a text, or, fused into one, both."""

    def __init__(self, fused):
        super().__init__()
        for name in ("to_kv",) if fused else ("to_k", "to_v"):
            self.add_module(name, nn.Identity())
        self.to_q = nn.Identity()


def module(**children):
    made = nn.Identity()
    for name, child in children.items():
        made.add_module(name, child)
    return made


def unet_of(fused=False):
    """A module for every layer of the ladder, and one that is none."""
    deep = module(attn1=Attention(fused), attn2=Attention(fused), ff=nn.Identity())
    return module(**{"in": nn.Identity(), "deep": deep, "up": nn.Identity()})


def net_of():
    return module(hint=nn.Identity(), zero=nn.Identity())


def straight(forward, *args, **kwargs):
    return forward(*args, **kwargs)


def around(model, name):
    return straight


def put(wiring=None, *, unet=None, net=None, lossless=True):
    """A wiring of the ladder on a UNet and a ControlNet."""
    wiring, unet, net = (
        wiring or Wiring(ladder(), lossless=lossless),
        unet or unet_of(),
        net or net_of(),
    )
    wiring.put("unet", unet, around)
    wiring.put("controlnet", net, around)
    return wiring, unet, net


def wrapped(model):
    """The paths of the modules that carry a forward of their own."""
    return {path for path, inner in model.named_modules() if "forward" in vars(inner)}


OWN = {"", "in", "deep", "up", "deep.attn1", "deep.attn2"}


@pytest.mark.parametrize(
    ("lossless", "texts"), [(True, {"deep.attn2.to_k", "deep.attn2.to_v"}), (False, set())]
)
def test_models_layers_and_attentions_are_wrapped_and_the_texts_projections(lossless, texts):
    wiring, unet, net = put(lossless=lossless)
    assert wrapped(unet) == OWN | texts
    assert wrapped(net) == {"", "hint", "zero"}
    own, theirs = wiring.of["unet"], wiring.of["controlnet"]
    assert [site.name for site in own.layers] == ["unet.in", DEEP, "unet.up"]
    assert [site.name for site in own.attentions] == ["unet.deep.attn1", CROSS]
    assert {site.name for site in own.texts} == {f"unet.{path}" for path in texts}
    assert [site.name for site in theirs] == ["controlnet.zero", "controlnet.hint"]
    assert own.hints == [] and theirs.hints == [wiring.hints["controlnet.hint"]]
    assert {own.lossless, theirs.lossless} == {lossless}


@pytest.mark.parametrize(
    ("fused", "macs"), [(False, {"to_k": 5, "to_v": 5}), (True, {"to_kv": 10})]
)
def test_a_projection_has_its_share_of_the_texts_macs_of_one_frame(fused, macs):
    graph = ladder()
    deep = graph.by_name[DEEP]
    cross = replace(deep.attentions[1], text_macs=40)  # of 4 frames, for keys and values
    layers = [replace(la, attentions=(cross,)) if la is deep else la for la in graph.layers]
    wiring, *_ = put(
        Wiring(replace(graph, layers=tuple(layers)), lossless=True), unet=unet_of(fused)
    )
    found = {site.name: site.macs for site in wiring.of["unet"].texts}
    assert found == {f"{CROSS}.{name}": share for name, share in macs.items()}
    assert all(type(share) is int for share in found.values())
    assert wiring.hints["controlnet.hint"].macs == 5


def test_each_site_stands_before_the_module_of_its_name():
    wiring, unet, net = put()
    x = torch.ones(2, 3)
    sites = {**wiring.layers, **wiring.attentions}
    for i, (name, site) in enumerate(sites.items()):
        site.in_tuple = False
        site.give(torch.full((2, 3), float(i)))
        model = unet if name.startswith("unet") else net
        assert torch.equal(model.get_submodule(name.partition(".")[2])(x), site.value)
    hint = wiring.hints["controlnet.hint"]
    hint.hand_on(torch.full((2, 3), 9.0), dead=True)
    assert net.hint(x) is hint.value
    for text in wiring.of["unet"].texts:
        text.give(torch.full((2, 3), 7.0))
        assert float(unet.deep.attn2.get_submodule(text.name[-4:])(x)[0, 0]) == 7
    assert unet.deep.ff(x) is x


def test_a_models_own_wrapper_is_made_for_it_and_its_name():
    told = []

    def around_model(model, name):
        told.append((model, name))
        return lambda forward, x: (name, forward(x))

    unet, wiring = unet_of(), Wiring(ladder(), lossless=True)
    wiring.put("unet", unet, around_model)
    assert told == [(unet, "unet")] and unet(5) == ("unet", 5)


def nets(*numbers):
    """The ladder's ControlNet several times."""
    made = [Layer(f"controlnet.nets.{k}.zero", "zero_conv", (), 7, 4) for k in numbers]
    return BlockGraph((*made, Layer("unet.up", "resnet", ())), (), 2, 4)


def test_several_controlnets_are_models_of_their_own_in_their_order():
    graph = nets(*range(12))
    several = module(nets=nn.ModuleList(module(zero=nn.Identity()) for _ in range(12)))
    wiring, told = Wiring(graph, lossless=True), []
    wiring.put("controlnet", several, lambda net, name: told.append((net, name)) or straight)
    assert told == [(net, f"controlnet.nets.{k}") for k, net in enumerate(several.nets)]
    assert list(wiring.of) == [name for _, name in told]
    assert [[s.name for s in sites] for sites in wiring.of.values()] == [
        [f"controlnet.nets.{k}.zero"] for k in range(12)
    ]
    assert wrapped(several) == {f"nets.{k}{end}" for k in range(12) for end in ("", ".zero")}


class Compiled(nn.Module):
    """As torch.compile wraps a model."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model

    def forward(self, x):
        return self._orig_mod(x)


def test_of_a_compiled_model_what_is_called_is_wrapped_and_its_layers():
    unet = unet_of()
    compiled, told = Compiled(unet), []
    wiring = Wiring(ladder(), lossless=False)
    wiring.put("unet", compiled, lambda net, name: told.append(net) or straight)
    assert wrapped(compiled) == {"", *(f"_orig_mod.{path}" for path in OWN - {""})}
    assert told == [unet], "whose configuration is asked for"
    assert wiring.of["unet"].compiled and not put()[0].of["unet"].compiled


def test_a_model_that_carries_a_cache_is_refused_by_its_kind():
    _, unet, _ = put()
    for model in (unet, Compiled(unet)):
        with pytest.raises(
            CacheStateError, match=r"this Identity already has a cache attached; disable"
        ):
            Wiring(ladder(), lossless=True).put("unet", model, around)
    compiled = Compiled(unet_of())
    Wiring(ladder(), lossless=True).put("unet", compiled, around)
    with pytest.raises(CacheStateError, match="already has a cache"):
        Wiring(ladder(), lossless=True).put("unet", compiled, around)


def wrappers(*models):
    """What stands in place of the forwards of all modules; None where nothing does."""
    return [vars(inner).get("forward") for model in models for inner in model.modules()]


def attributes(*models):
    return [dict(vars(inner)) for model in models for inner in model.modules()]


def test_models_are_as_they_were_while_it_is_off_and_wrapped_the_same_afterwards():
    unet, net = unet_of(), net_of()
    before = attributes(unet, net)
    wiring, *_ = put(unet=unet, net=net)
    on = wrappers(unet, net)
    wiring.off()
    assert attributes(unet, net) == before
    assert wiring.on() and all(a is b for a, b in zip(wrappers(unet, net), on, strict=True))
    assert wiring.on(), "it is on already"
    assert wrapped(unet) > OWN
    wiring.take_off()
    assert attributes(unet, net) == before and wiring.of == {}


def test_it_does_not_go_on_where_a_module_was_changed_since():
    wiring, unet, net = put()
    wiring.off()
    theirs = unet.up.forward = lambda x: x + 1
    assert not wiring.on()
    assert wrapped(unet) == {"up"} and wrapped(net) == set() and unet.up.forward is theirs
    wiring.take_off()
    assert unet.up.forward is theirs


def test_a_model_that_is_wrapped_again_has_the_wrappers_that_compiled_code_knows():
    wiring, unet, net = put()
    first = wrappers(unet, net)
    wiring.take_off()
    put(wiring, unet=unet, net=net)
    assert all(a is b for a, b in zip(wrappers(unet, net), first, strict=True))
    wiring.take_off()
    unet.up.forward = lambda x: x + 1
    put(wiring, unet=unet, net=net)
    now = wrappers(unet, net)
    assert [a is b for a, b in zip(now, first, strict=True)].count(False) == 1
    wiring.layers["unet.up"].in_tuple = False
    assert unet.up(torch.ones(1)) == 2
    wiring.layers["unet.up"].give(torch.zeros(1))
    assert unet.up(torch.ones(1)) == 0, "ours is outermost"


def projected(wiring, unet):
    """The wiring after a call with a text, of which keys and values are kept."""
    sites = wiring.of["unet"]
    prompt = sites.prompts.at(3, TEXT, 2)
    for site, name in zip(sites.texts, ("to_k", "to_v"), strict=True):
        site.read(prompt, 2)
        unet.deep.attn2.get_submodule(name)(TEXT)
        site.collect()
    return prompt


def test_projected_texts_are_counted_until_they_are_forgotten():
    wiring, unet, _ = put()
    assert wiring.nbytes == 0
    projected(wiring, unet)
    assert wiring.nbytes == 2 * TEXT.nbytes, "keys and values"
    wiring.take_off()
    assert wiring.nbytes == 2 * TEXT.nbytes, "the models are given back first"
    wiring.forget()
    assert wiring.nbytes == 0


def test_all_tensors_are_forgotten():
    wiring, unet, _ = put()
    projected(wiring, unet)
    some = torch.ones(2, 3)
    every = [*wiring.of["unet"], *wiring.of["controlnet"]]
    for site in every:
        site.give(some)
        site.made = some
    wiring.forget()
    assert all(site.made is None and site.value is not some for site in every)
    assert wiring.of["unet"].prompts.state() == []


def test_what_sites_know_of_earlier_steps_goes_on():
    wiring, unet, _ = put()
    prompt = projected(wiring, unet)
    wiring.layers[DEEP].in_tuple = True
    wiring.layers["unet.up"].have_seen(False, [8, 5])
    other, theirs, _ = put()
    other.restore(wiring.state())
    assert other.layers[DEEP].in_tuple and other.layers["unet.up"].shape == (8, 5)
    assert other.layers["unet.in"].shape is None
    known = other.of["unet"].prompts.at(3, TEXT, 2)
    assert isinstance(known, Prompt) and known.number == prompt.number
    assert other.of["controlnet"].prompts.state() == []
    for site, name in zip(other.of["unet"].texts, ("to_k", "to_v"), strict=True):
        site.read(known, 2)
        assert site.mode == GIVE
        assert torch.equal(theirs.deep.attn2.get_submodule(name)(TEXT), TEXT)
