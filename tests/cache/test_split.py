"""The exact split gives what whole layers give, for every chunk size and under every kind of reuse."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from torch import nn

from hgc_video.cache.engine import attach
from hgc_video.cache.split import split
from hgc_video.measure.live_bytes import LiveBytes
from hgc_video.measure.macs import MacCounter
from hgc_video.plan.graph import BlockGraph, Layer
from hgc_video.plan.memory.budget import Chunks
from hgc_video.plan.presets import resolve
from tests.tiny_models import Clip, controlnet, graph_of, image_unet, motion_unet

KINDS = {
    "controlnet": {"hint": "hint", "zero": "zero_conv", "deep": "attention"},
    "unet": {
        "first": "conv_in", "res": "resnet", "deep": "attention", "motion": "motion", "up": "sampler",
        "skip": "join", "time": "time", "last": "conv_out",
    },
}  # fmt: skip
NUMBERS = torch.arange(10.0).reshape(5, 2)


def small_graph(frames_axis=2):
    """A layer of each kind, which reads nothing; the ControlNet's come first and last."""
    kinds = [(f"{part}.{name}", kind) for part in KINDS for name, kind in KINDS[part].items()]
    kinds.append(("controlnet.end", "zero_conv"))
    layers = tuple(Layer(name, kind, ()) for name, kind in kinds)
    return BlockGraph(layers, ("unet.deep",), 2, 3, frames_axis=frames_axis)


class Module(nn.Module):
    """Gives what is made of its first argument, and notes what it is called with."""

    def __init__(self, give=lambda first: 2 * first):
        super().__init__()
        self.give, self.calls = give, []

    def forward(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        return self.give(next(v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)))


def small_model(part):
    """A module for each layer, but for joins, which are none; transformers have two blocks."""
    model, kinds = nn.Module(), dict(KINDS[part])
    kinds |= {"end": "zero_conv"} if part == "controlnet" else {}
    for name, kind in kinds.items():
        if kind == "join":
            continue
        module = Module()
        if kind in ("attention", "motion"):
            blocks = [{inner: Module() for inner in ("attn1", "attn2", "ff")} for _ in range(2)]
            module.transformer_blocks = nn.ModuleList(nn.ModuleDict(block) for block in blocks)
            for block in module.transformer_blocks:
                for inner, child in block.items():
                    setattr(block, inner, child)
        model.add_module(name, module)
    return model


def wrapped(model):
    return {path for path, module in model.named_modules() if "forward" in vars(module)}


def inside(name, *kinds):
    return {f"{name}.transformer_blocks.{i}.{kind}" for i in range(2) for kind in kinds}


PER_FRAME = {"first", "res", "up", "last"} | inside("deep", "attn1", "ff")
PER_POSITION = inside("motion", "attn1", "attn2", "ff")
OF_THE_NET = {"hint", "zero", "end"} | inside("deep", "attn1", "ff")


@pytest.mark.parametrize(
    ("chunks", "unets", "nets"),
    [
        (Chunks(), set(), set()),
        (Chunks(frames=2), PER_FRAME, OF_THE_NET),
        (Chunks(positions=2), PER_POSITION, set()),
        (Chunks(2, 3), PER_FRAME | PER_POSITION, OF_THE_NET),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_per_frame_layers_and_the_insides_of_transformers_are_split_where_it_is_asked_for(
    chunks, unets, nets, compiled
):
    unet, net = small_model("unet"), small_model("controlnet")
    given = (torch.compile(unet), torch.compile(net)) if compiled else (unet, net)
    before = [vars(m).copy() for m in (*unet.modules(), *net.modules())]
    with split(chunks, graph=small_graph(), unet=given[0], controlnet=given[1]):
        assert (wrapped(unet), wrapped(net)) == (unets, nets)
    with split(chunks, graph=small_graph(), unet=given[0]):
        assert (wrapped(unet), wrapped(net)) == (unets, set())
    assert before == [vars(m) for m in (*unet.modules(), *net.modules())]


def test_layers_that_mix_frames_inside_are_not_split():
    unet = small_model("unet")
    with split(Chunks(1, 1), graph=small_graph(frames_axis=1), unet=unet):
        assert wrapped(unet) == set()


def test_models_are_as_they_were_after_an_error():
    unet, net = small_model("unet"), small_model("controlnet")
    graph = small_graph()
    with (
        pytest.raises(ZeroDivisionError),
        split(Chunks(1, 1), graph=graph, unet=unet, controlnet=net),
    ):
        assert wrapped(unet) and wrapped(net)
        raise ZeroDivisionError
    assert wrapped(unet) == wrapped(net) == set()
    del net.end  # the last one to be wrapped
    with pytest.raises(AttributeError), split(Chunks(1), graph=graph, unet=unet, controlnet=net):
        raise AssertionError("the block is entered")
    assert wrapped(unet) == wrapped(net) == set()


@pytest.mark.parametrize(("rows", "parts"), [(1, [1] * 5), (2, [2, 2, 1]), (4, [4, 1])])
def test_so_many_rows_go_at_a_time_and_are_put_together(rows, parts):
    unet = small_model("unet")
    unet.res.give = lambda rows: torch.cat(
        [rows, rows + 0.5], 1
    ).double()  # another shape and dtype
    with split(Chunks(rows, 3), graph=small_graph(), unet=unet):
        out = unet.res(NUMBERS)
    assert [len(args[0]) for args, _ in unet.res.calls] == parts
    assert torch.equal(torch.cat([args[0] for args, _ in unet.res.calls]), NUMBERS)
    assert torch.equal(out, torch.cat([NUMBERS, NUMBERS + 0.5], 1).double())
    assert out.dtype == torch.float64


@pytest.mark.parametrize("rows", [5, 6])
def test_what_has_no_more_rows_than_may_go_at_once_is_not_touched(rows):
    unet, beside = small_model("unet"), torch.ones(5)
    unet.res.give = lambda states: (states, "beside")
    with split(Chunks(rows), graph=small_graph(), unet=unet):
        out = unet.res(NUMBERS, beside, scale=beside)
    ((args, kwargs),) = unet.res.calls
    assert args[0] is out[0] is NUMBERS and args[1] is kwargs["scale"] is beside
    assert out[1] == "beside" and len(out) == 2


def test_frames_and_positions_have_their_own_number_of_rows():
    unet = small_model("unet")
    with split(Chunks(2, 4), graph=small_graph(), unet=unet):
        for name in ("deep", "motion"):
            block = unet.get_submodule(name).transformer_blocks[1]
            assert torch.equal(block.ff(NUMBERS), 2 * NUMBERS)
            rows = [len(args[0]) for args, _ in block.ff.calls]
            assert rows == ([2, 2, 1] if name == "deep" else [4, 1])


def test_what_has_a_row_for_each_is_cut_with_the_states_and_nothing_else_is():
    unet, rows = small_model("unet"), torch.arange(5.0)
    others = [torch.tensor(5.0), torch.ones(4), torch.ones(2, 5), None, "words", [rows]]
    with split(Chunks(3), graph=small_graph(), unet=unet):
        unet.res(NUMBERS, rows, *others, temb=rows, one=others[0], none=None)
    first, second = unet.res.calls
    for (args, kwargs), part in ((first, rows[:3]), (second, rows[3:])):
        assert args[1].tolist() == kwargs["temb"].tolist() == part.tolist()
        assert all(given is other for given, other in zip(args[2:], others, strict=True))
        assert kwargs["one"] is others[0] and kwargs["none"] is None and len(kwargs) == 3


def test_states_may_be_given_by_name_behind_what_is_no_tensor():
    unet = small_model("unet")
    with split(Chunks(2), graph=small_graph(), unet=unet):
        out = unet.res(scale=2, none=None, hidden_states=NUMBERS)
    assert torch.equal(out, 2 * NUMBERS)
    assert [len(kwargs["hidden_states"]) for _, kwargs in unet.res.calls] == [2, 2, 1]
    assert all(kwargs["scale"] == 2 and args == () for args, kwargs in unet.res.calls)


def test_a_module_that_gives_a_tuple_gives_one_of_all_rows():
    unet = small_model("unet")
    unet.res.give = lambda rows: (2 * rows,)
    with split(Chunks(2), graph=small_graph(), unet=unet):
        out = unet.res(NUMBERS)
    assert isinstance(out, tuple) and len(out) == 1 and torch.equal(out[0], 2 * NUMBERS)


@pytest.fixture(params=["motion", "image"])
def clip(request):
    return Clip(motion_unet() if request.param == "motion" else image_unet(), controlnet())


def run(clip, chunks, policy=None):
    graph = graph_of(clip)
    models = {"graph": graph, "unet": clip.unet, "controlnet": clip.controlnet}
    with ExitStack() as stack:
        stack.enter_context(split(chunks, **models))
        engine = None
        if policy is not None:
            schedule = resolve(policy).schedule(graph, len(clip.timesteps))
            engine = stack.enter_context(attach(schedule, **models))
        return clip.run(engine)


@pytest.mark.parametrize(
    ("frames", "positions"), [(1, 1), (1, 64), (2, 7), (4, 1000), (5, 7), (6, 64)]
)  # 6 rows of frames, 64 positions: one by one, with and without a rest, all, and more than there are
def test_every_chunk_size_gives_the_whole_layers_result(frames, positions):
    clip = Clip(motion_unet(), controlnet())
    clip.timesteps = clip.timesteps[:1]
    for ours, stock in zip(run(clip, Chunks(frames, positions)), clip.run(), strict=True):
        torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "policy",
    ["full", "lossless", "deepcache:interval=2", "hgc:interval=2,cut=1,gate=0.6,slope=0.5,dense=0.4",
     "tgate:gate=3,warm_up=0,sp_interval=2", "pab:skip_first=0,skip_last=0", "faster-diffusion:mod=2",
     "hgc:interval=2,lambda_intra=0.5,cut=2,anchor_stride=2"],
)  # fmt: skip
def test_under_every_grain_of_reuse(clip, policy):
    whole = run(clip, Chunks(), policy)
    for ours, expected in zip(run(clip, Chunks(2, 5), policy), whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_the_split_costs_no_macs_and_comes_off(clip):
    before = [set(m.__dict__) for m in (*clip.unet.modules(), *clip.controlnet.modules())]
    peaks, macs = [], []
    for chunks in (Chunks(), Chunks(1, 8)):
        with MacCounter() as counter:
            run(clip, chunks)
        with LiveBytes() as live:
            run(clip, chunks)
        macs.append(counter.macs)
        peaks.append(live.peak)
    assert macs[0] == macs[1] and peaks[1] <= peaks[0]
    assert before == [set(m.__dict__) for m in (*clip.unet.modules(), *clip.controlnet.modules())]
