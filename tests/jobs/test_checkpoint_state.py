"""A checkpoint holds all that a run reads: every scheduler, policy and place of caches goes on to the bit."""

from __future__ import annotations

import inspect
import sys
from contextlib import ExitStack, nullcontext

import diffusers
import pytest
import torch

from hgc_video.cache.engine import attach
from hgc_video.cache.finite import FiniteLatents
from hgc_video.cache.store import Offloaded
from hgc_video.errors import StateError
from hgc_video.jobs.checkpoint.work_folder import WorkFolder
from hgc_video.models.graph_builder import build_graph
from hgc_video.plan.clip_shape import ClipShape
from hgc_video.plan.memory.windows import Windows
from hgc_video.plan.policies.registry import POLICIES
from hgc_video.plan.presets import resolve
from hgc_video.sampling.conditioning import TextConditioning
from hgc_video.sampling.loop import ControlledUNet, denoise
from hgc_video.sampling.run_state import KeepNothing, Offers, RunState
from hgc_video.sampling.scheduler_state import SchedulerHistory
from tests.tiny_models import SIZE, TEXT_WIDTH, TOKENS, controlnet, motion_unet

CPU, STEPS, LENGTH, FRAMES = torch.device("cpu"), 5, 4, 9
SCHEDULERS = {
    "ddim": lambda: diffusers.DDIMScheduler(),
    "dpm++ 2m": lambda: diffusers.DPMSolverMultistepScheduler(algorithm_type="dpmsolver++"),
    "dpm++ sde 2m": lambda: diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"),
    "unipc": lambda: diffusers.UniPCMultistepScheduler(),
    "heun": lambda: diffusers.HeunDiscreteScheduler(),
    "pndm": lambda: diffusers.PNDMScheduler(),
    "euler ancestral": lambda: diffusers.EulerAncestralDiscreteScheduler(),
}


class Stopped(Exception):
    """The process ended."""


class Disk(KeepNothing):
    """Writes the state at the `stop`-th offer and ends the run; the next run goes on from there."""

    def __init__(self, folder, stop):
        self.folder, self.stop, self.offers, self.written = WorkFolder(folder), stop, 0, None

    def newest(self, device):
        return WorkFolder(self.folder.path).newest(device)

    def offer(self, position, state):
        self.offers += 1
        if self.offers == self.stop and self.written is None:
            self.written = state()
            self.folder.keep(self.folder.snapshot(self.written))
            raise Stopped


@pytest.fixture(scope="module")
def models():
    unet, net = motion_unet(), controlnet()
    return unet, net, build_graph(unet, net, ClipShape(LENGTH, SIZE, SIZE, TOKENS))


def run(models, keeper, scheduler="ddim", policy=None, spill=False, steps=STEPS):
    """The run as sampling/run.py has it, on tiny models; the latents and what was executed."""
    unet, net, graph = models
    generator = torch.Generator().manual_seed(11)
    noise = torch.randn(1, 4, FRAMES, SIZE, SIZE, generator=generator)
    text = torch.randn(2, TOKENS, TEXT_WIDTH, generator=generator).repeat_interleave(FRAMES, 0)
    cond = torch.rand(FRAMES, 3, 2 * SIZE, 2 * SIZE, generator=generator)
    guidance, windows = TextConditioning(text, (cond,), 2.0, (0.7,)), Windows(FRAMES, LENGTH, 1)
    sampler = SCHEDULERS[scheduler]()
    sampler.set_timesteps(steps)
    timesteps, own = sampler.timesteps, {}
    if "generator" in sampler.step.__code__.co_varnames:
        own["generator"] = generator
    with torch.no_grad(), ExitStack() as stack:
        engine = None
        if policy is not None:
            plan = resolve(policy).schedule(graph, len(timesteps))
            windows = windows.under(plan)
            wrapped = attach(
                plan, graph=graph, unet=unet, controlnet=net, spill=spill, scheduler=sampler,
                guidance_scale=2.0,
            )  # fmt: skip
            engine = stack.enter_context(wrapped)
        offers = Offers(keeper, lambda *_: None, FiniteLatents(len(timesteps), str))
        steered = ControlledUNet(
            unet, net, guidance, len(timesteps), windows=windows, on_window=offers.window,
            listeners=[engine] if engine else [],
        )  # fmt: skip
        offers.state = state = RunState(sampler, own.get("generator"), steered, engine, noise)
        state.go_on(keeper)
        latents = denoise(
            steered, sampler, state.latents, timesteps, first=state.step, on_step=offers.step, **own
        )
        told = engine and (engine.log.state(), engine.peak_nbytes, engine.store.to_host)
    return latents, told


def goes_on(models, tmp_path, stop, **options):
    """Whether a run that ended at an offer goes on to what one that did not end makes; its keeper."""
    whole, told = run(models, KeepNothing(), **options)
    disk = Disk(tmp_path, stop)
    with pytest.raises(Stopped):
        run(models, disk, **options)
    latents, again = run(models, disk, **options)
    assert torch.equal(latents, whole) and again == told
    return disk


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_goes_on_to_the_bit(models, tmp_path, scheduler):
    """With three windows a step, the 8th offer is within the third step."""
    goes_on(models, tmp_path, 8, scheduler=scheduler)


@pytest.mark.parametrize(
    ("policy", "spill", "stop"),
    [
        ("balanced", True, 9), ("hgc:interval=2,cut=1,gate=0.6", True, 5), ("tgate+lossless", False, 14),
        ("easycache:warm_up=2,threshold=1", False, 10), ("hgc-online:dense=0.3,threshold=0.5", True, 9),
        ("fastercache", True, 11), ("pab", True, 5),
    ],
)  # fmt: skip
def test_every_kind_of_cache_goes_on_to_the_bit(models, tmp_path, policy, spill, stop):
    """From the end of a step (the 9th offer) and from within one, with caches in the offload tier."""
    disk = goes_on(models, tmp_path, stop, scheduler="unipc", policy=policy, spill=spill)
    assert (disk.written["windows"] is not None) == (stop % 3 != 0)
    values = disk.written["engine"]["store"].state["values"]
    away = any(isinstance(kept["tensor"], Offloaded) for v in values for kept in v["kept"])
    assert away == spill


# Every policy that decides at run time, with fields by which it skips some of ten steps.
DECIDING = {
    "easycache": "easycache:warm_up=2,threshold=9", "guard": "guard:tolerance=9",
    "hgc-online": "hgc-online:dense=0.3,threshold=0.5", "net": "taylorseer:interval=3+net:bound=9",
    "sada": "sada", "ucache": "ucache:threshold=9",
}  # fmt: skip


def test_no_policy_that_decides_is_left_out():
    sources = {name: inspect.getsource(sys.modules[p.__module__]) for name, p in POLICIES.items()}
    assert {name for name, text in sources.items() if "AdaptivePlan(" in text} == set(DECIDING)


@pytest.mark.parametrize("name", DECIDING)
def test_every_policy_that_decides_goes_on_to_the_bit(models, tmp_path, name):
    """From within the 7th of ten steps, of three windows each."""
    disk = goes_on(models, tmp_path, 20, policy=DECIDING[name], steps=10)
    assert len(disk.written["engine"]["prepared"]["deciders"]) == 3
    executed = disk.written["engine"]["log"]["executed"][:6]
    assert len({sum(step.values()) for step in executed}) > 1, "some steps were left out"


def test_tensors_come_back_as_they_were_laid_out(tmp_path):
    base = torch.arange(24.0).reshape(2, 3, 4)
    told = {
        "same": [base[1], base], "strided": base.transpose(0, 2)[::2], "spread": base[:1, :1].expand(5, 3, 4),
        "half": torch.ones(3, dtype=torch.bfloat16), "none": torch.empty(0, 3), "pair": (1, None, "a", 0.1),
    }  # fmt: skip
    work = WorkFolder(tmp_path)
    work.keep(work.snapshot(told))
    back = WorkFolder(tmp_path).newest(CPU)
    part, whole = back["same"]
    assert part.untyped_storage()._cdata == whole.untyped_storage()._cdata
    for name in ("strided", "spread", "half", "none"):
        assert torch.equal(back[name], told[name]) and back[name].stride() == told[name].stride()
    assert back["pair"] == told["pair"]


def test_what_cannot_be_written_is_told():
    scheduler = diffusers.DPMSolverMultistepScheduler()
    history = SchedulerHistory(scheduler)
    assert history.state() == {}
    scheduler.noise_sampler = nullcontext()
    with pytest.raises(StateError, match=r"keeps a nullcontext .*noise_sampler"):
        history.state()
