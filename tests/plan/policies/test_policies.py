"""Every policy against what its publication or release does, and on graphs of every kind."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from hgc_video.errors import PlanError, PresetError
from hgc_video.files import shipped_schedule
from hgc_video.plan.calibration import load_changes, refresh_steps
from hgc_video.plan.coefficients import slope_of
from hgc_video.plan.graph import Attention, BlockGraph, Layer
from hgc_video.plan.liveness import live
from hgc_video.plan.policies.deepcache import DeepCache
from hgc_video.plan.policies.faster_diffusion import FasterDiffusion
from hgc_video.plan.policies.fastercache import FasterCache
from hgc_video.plan.policies.guidance_gate import GuidanceGate
from hgc_video.plan.policies.hgc import HGC
from hgc_video.plan.policies.pab import PAB
from hgc_video.plan.policies.registry import POLICIES
from hgc_video.plan.policies.tgate import TGate
from hgc_video.plan.presets import resolve


def attentions(name, *kinds):
    return tuple(
        Attention(f"{name}.{kind}", kind, macs=4, nbytes=8, text_macs=kind == "cross")
        for kind in kinds
    )


def tower() -> BlockGraph:
    """Two down layers, a middle, two up blocks of two layers, with motion modules and a ControlNet."""
    layers = [
        Layer("controlnet.hint", "hint", (), 5, 4),
        Layer("controlnet.conv_in", "conv_in", (), 3, 4),
    ]
    layers += [
        Layer(f"controlnet.zero.{k}", "zero_conv", ("controlnet.hint", "controlnet.conv_in"), 2, 4)
        for k in range(4)
    ]
    layers += [
        Layer("unet.time", "time", (), 1, 1),
        Layer("unet.conv_in", "conv_in", ("unet.time",), 2, 8),
    ]
    last, skips = "unet.conv_in", ["unet.conv_in"]
    for k in range(2):
        last = add(layers, f"unet.down_blocks.{k}", 0, last)
        skips.append(last)
    last = add(layers, "unet.mid_block", 0, last)
    for k, skip in enumerate([*skips, skips[-1]]):
        layers.append(Layer(f"unet.skip.{k}", "join", (skip, f"controlnet.zero.{k}")))
    depths = []
    for k, skip in enumerate((3, 2, 1, 0)):
        depths.append(last)
        last = add(layers, f"unet.up_blocks.{k // 2}", k % 2, last, f"unet.skip.{skip}")
    layers.append(Layer("unet.conv_out", "conv_out", (last, "unet.time"), 2, 8))
    return BlockGraph(tuple(layers), tuple(depths[::-1]), 2, 4, (2, 2))


def add(layers, block, index, last, *more):
    resnet, attention, motion = (
        f"{block}.{kind}.{index}" for kind in ("resnets", "attentions", "motion_modules")
    )
    layers.append(Layer(resnet, "resnet", (last, *more), 10, 8))
    layers.append(
        Layer(attention, "attention", (resnet,), 20, 8, attentions(attention, "spatial", "cross"))
    )
    layers.append(Layer(motion, "motion", (attention,), 12, 8, attentions(motion, "temporal")))
    return motion


@pytest.fixture
def calibration(tmp_path):
    changes = {la.name: (0.0, *[0.1] * 24) for la in tower().layers}
    path = write_changes(tmp_path / "changes.yaml", "tower", changes)
    whole = yaml.safe_load(path.read_text()) | {
        "model_hash": "x", "scheduler": "DDIMScheduler", "guidance_scale": 7.5, "clips": 1,
        "num_frames": 4, "sensitivity": [1.0] * 25, "cfg_drop_error": [0.0] * 25, "reused": {},
        "products": [[1.0 / (1 + abs(i - j)) for j in range(25)] for i in range(25)],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(whole))
    return path


def write_changes(path, model, changes):
    data = {"model": model, "num_inference_steps": 25}
    data["changes"] = {name: list(values) for name, values in changes.items()}
    path.write_text(yaml.safe_dump(data))
    return path


def needs_file(name, calibration):
    if name == "fewer-steps":
        return "fewer-steps:steps=9"
    if name == "searched":
        return f"searched:file={shipped_schedule('fast')}"
    needs = name in ("block-caching", "l2p", "fitted")
    return f"{name}:calibration={calibration}" if needs else name


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_makes_a_valid_plan(name, calibration):
    plan = resolve(needs_file(name, calibration)).schedule(tower(), 25)
    assert len(plan) == 25
    assert plan.name == {"searched": "fast"}.get(name, name)
    assert plan.lossless is name.startswith(("hgc", "lossless", "searched", "guard"))
    assert plan.is_stock == (name in ("off", "fewer-steps"))
    assert plan.is_adaptive == (name in ("easycache", "ucache", "sada", "hgc-online", "guard"))
    if not plan.is_adaptive:
        assert all(step.reason for step in plan.steps)


@pytest.mark.parametrize(
    "name",
    [n for n in POLICIES if "hgc" not in n and n not in ("searched", "lossless", "off", "guard")],
)
def test_lossless_can_be_added_to_any_published_policy(name, calibration):
    from hgc_video.plan.cost import cost

    text = needs_file(name, calibration)
    graph = tower()
    plain = cost(graph, resolve(text).schedule(graph, 25)).total
    exact = cost(graph, resolve(f"{text}+lossless").schedule(graph, 25)).total
    assert exact < plain


@pytest.mark.parametrize(
    ("steps", "interval", "center", "power", "keys"),
    [
        (50, 5, 15, 1.4, [0, 5, 9, 13, 17, 21, 26, 31, 37, 43]),
        (50, 5, 10, 1.5, [0, 4, 7, 10, 14, 19, 24, 30, 36, 43]),
        (50, 3, 15, 1.3, [0, 3, 6, 8, 11, 13, 15, 17, 20, 23, 26, 29, 32, 35, 39, 42, 46]),
        (20, 3, 6, 1.4, [0, 3, 5, 7, 10, 13, 16]),
        (25, 3, 8, 1.4, [0, 3, 5, 8, 9, 12, 15, 18, 21]),
    ],
)
def test_deepcache_has_the_released_uneven_key_steps(steps, interval, center, power, keys):
    policy = DeepCache(interval=interval, pow=power, center=center)
    assert policy.key_steps(steps) == keys


def test_deepcache_runs_what_its_plug_in_runs():
    """One up layer, its motion module's neighbour again on a kept tensor, and the whole ControlNet."""
    schedule = DeepCache(interval=3)(tower(), 6)
    alive = live(tower(), schedule.steps[1], lossless=False)
    unet = {name for name in alive.computed if name.startswith("unet.up")}
    assert unet == {
        "unet.up_blocks.1.motion_modules.0",
        *(f"unet.up_blocks.1.{kind}.1" for kind in ("resnets", "attentions", "motion_modules")),
    }
    assert alive.held == {"unet.up_blocks.1.attentions.0"}
    assert all(f"controlnet.zero.{k}" in alive.computed for k in range(4))
    assert [step.label for step in schedule.steps] == ["key", "depth 1", "depth 1"] * 2
    assert schedule.steps[0].reason == "deepcache: key step, every 3 steps"
    assert schedule.steps[1].reason == "deepcache: between key steps, skip branch 0 is reused"
    dense = DeepCache(interval=3, pow=1.4, center=8)(tower(), 25)
    assert dense.steps[0].reason == "deepcache: key step, denser around 8"
    one = dataclasses.replace(tower(), branches=1)
    assert {step.branches for step in DeepCache(interval=2)(one, 4).steps} == {1}
    with pytest.raises(PresetError, match="this model has branches 0 to 3, got 4"):
        DeepCache(branch=4)(tower(), 4)
    resting = DeepCache(interval=3, controlnet_interval=3)(tower(), 6)
    assert resting.steps[1].reason.endswith("; the ControlNet runs every 3 steps")
    assert "controlnet.zero.1" not in live(tower(), resting.steps[1], lossless=False).computed


def test_tgate_follows_the_released_table():
    """gate 10, warm-up 2, spatial attention every 5th step, of 25: T-GATE 1.0.0's defaults."""
    spatial, cross = (tower().attention_names(kind) for kind in ("spatial", "cross"))
    temporal = tower().attention_names("temporal")
    steps = TGate()(tower(), 25).steps
    assert [bool(spatial & s.reuse) for s in steps[:10]] == [False] * 3 + [True] * 2 + [False] + [
        True
    ] * 3 + [False]
    assert steps[9].average_branches == spatial | temporal | cross
    assert all(s.reuse == cross and s.branches == 1 for s in steps[10:])
    assert all(not temporal & s.reuse for s in steps)
    assert [s.label for s in steps[:4]] == ["full"] * 3 + ["attention held"]
    assert [s.label for s in steps[8:11]] == ["attention held", "gate", "gated"]
    rested = TGate(temporal_interval=3)(tower(), 25).steps
    # Step 9 computes all that is kept of both branches.
    assert [i for i in range(25) if temporal <= rested[i].reuse] == [4, 5, 7, 8]
    at_gate = TGate(gate=6, sp_interval=4, fi_interval=3)(tower(), 12).steps
    assert [i for i in range(12) if spatial <= at_gate[i].reuse] == [3, 7, 8, 10, 11]
    fixed = TGate(fi_interval=5)(tower(), 25).steps
    assert [spatial <= s.reuse for s in fixed[10:15]] == [False, True, True, True, True]


def test_faster_diffusion_has_the_published_key_steps():
    assert FasterDiffusion().key_steps(50) == {0, 1, 2, 3, 5, 10, 15, 25, 35}
    assert FasterDiffusion().key_steps(20) == {0, 1, 2, 3, 5, 10, 15}
    assert FasterDiffusion(mod=4).key_steps(9) == {0, 4, 8}
    alive = live(tower(), FasterDiffusion(mod=2)(tower(), 4).steps[1], lossless=False)
    assert not [n for n in alive.computed if "down" in n or "mid" in n or "controlnet" in n]
    assert len([n for n in alive.computed if "up_blocks" in n]) == 12


def test_clockwork_keeps_the_outermost_block():
    step = resolve("clockwork:clock=4").schedule(tower(), 8).steps[1]
    assert step.reuse == {tower().depths[1]}


def test_pab_leaves_the_ends_alone_and_keeps_cross_longest():
    steps = PAB()(tower(), 20).steps
    assert all(not s.reuse for s in (*steps[:3], *steps[17:]))
    kinds = {k: tower().attention_names(k) for k in ("spatial", "temporal", "cross")}
    fresh = {
        k: [i for i in range(3, 17) if not names & steps[i].reuse] for k, names in kinds.items()
    }
    assert fresh == {
        "spatial": [4, 6, 8, 10, 12, 14, 16],
        "temporal": [4, 8, 12, 16],
        "cross": [6, 12],
    }


def test_fastercache_computes_attention_wherever_both_branches_run():
    steps = FasterCache()(tower(), 30).steps
    assert [i for i, s in enumerate(steps) if i >= 10 and s.branches == 2] == [10, 15, 20, 25]
    assert all(not s.reuse for i, s in enumerate(steps) if i >= 10 and s.branches == 2)
    slopes = [slope_of(s.coefficients) for s in steps if s.coefficients]
    assert slopes == sorted(slopes) and slopes[-1] < 1
    assert steps[12].cfg_delta == (1.0, 1.2) and steps[29].cfg_delta == (1.2, 1.0)


def test_refresh_steps_sum_the_changes():
    assert refresh_steps((0, 0.2, 0.2, 0.2, 0.2, 0.9, 0.1), 0.5) == (0, 3, 5)
    assert refresh_steps((0, 0.2, 0.2), 0) == (0, 1, 2)


def test_block_caching_keeps_contributions_of_transformers_only(calibration):
    steps = (
        resolve(f"block-caching:calibration={calibration},threshold=0.25")
        .schedule(tower(), 25)
        .steps
    )
    assert steps[1].deltas == set(tower().names("attention"))
    assert [i for i, s in enumerate(steps) if not s.deltas][:3] == [0, 3, 6]


def test_a_calibration_of_something_else_is_refused(calibration, tmp_path):
    with pytest.raises(PlanError, match="made for 25 steps and the run has 20"):
        resolve(f"block-caching:calibration={calibration}").schedule(tower(), 20)
    write_changes(tmp_path / "other.yaml", "other", {"unet.x": (0.0,) * 25})
    with pytest.raises(PlanError, match="knows no layer"):
        resolve(f"block-caching:calibration={tmp_path / 'other.yaml'}").schedule(tower(), 25)
    (tmp_path / "spoilt.yaml").write_text("[1")
    for name in ("spoilt.yaml", "none.yaml"):
        with pytest.raises(PlanError, match="cannot be used"):
            load_changes(tmp_path / name, 25)
    with pytest.raises(PresetError, match="needs calibration=VALUE"):
        resolve("block-caching").schedule(tower(), 25)


def test_hgc_finds_its_moments_in_measured_changes(calibration):
    text = f"hgc:threshold=0.35,calibration={calibration},dense=0.12,gate=1,cut=1"
    steps = resolve(text).schedule(tower(), 25).steps
    assert [i for i, s in enumerate(steps) if s.label == "key"] == [0, 1, 2, 6, 10, 14, 18, 22]


def test_hgc_densities():
    """lambda_inter 0.5 of two blocks refreshes the last; lambda_intra 0.5 computes half of what is in it."""
    step = HGC(lambda_inter=0.5, lambda_intra=0.5, gate=1, dense=0, interval=3)(tower(), 4).steps[1]
    assert tower().depths[1] in step.reuse
    assert step.deltas == {
        "unet.up_blocks.1.attentions.0",
        "unet.up_blocks.1.motion_modules.0",
    }


def test_hgc_controlnet_moments_cross_interval_and_slope():
    policy = HGC(
        dense=0.3, interval=2, depth=1, gate=1, controlnet_interval=2, cross_interval=2, slope=0.5
    )
    steps = policy(tower(), 10).steps
    residuals = set(tower().residuals())
    assert [i for i, s in enumerate(steps) if not residuals & s.reuse] == [0, 2, 6]
    cross = tower().attention_names("cross")
    assert [i for i, s in enumerate(steps) if not cross & s.reuse] == [0, 2, 4, 6, 8]
    assert [slope_of(s.coefficients) for s in steps[3:7]] == [0.5, None, 0.25, None]


@pytest.mark.parametrize(
    ("at", "steps", "guided"), [(0.4, 10, 4), (0.4, 1, 1), (0.1, 2, 1), (0.0, 2, 0), (1.0, 2, 2)]
)
def test_the_gate_leaves_guidance_to_one_step_or_more(at, steps, guided):
    plan = GuidanceGate(at=at)(tower(), steps).steps
    assert [step.branches for step in plan] == [2] * guided + [1] * (steps - guided)


def test_hgc_guidance_difference():
    steps = HGC(dense=0, interval=4, gate=0.5, difference_interval=2)(tower(), 8).steps
    assert [s.branches for s in steps[4:]] == [2, 1, 2, 1]
    assert [s.cfg_delta for s in steps[4:]] == [None, (1.0, 1.0)] * 2


@pytest.mark.parametrize(
    "text",
    ["tgate:gate=0", "pab:spatial=0", "pab:skip_first=2", "clockwork:clock=0", "faster-diffusion:mod=-1",
     "fastercache:first=2", "easycache:warm_up=0", "gate:at=2", "deepcache:pow=0.5", "deepcache:interval=0",
     "hgc:lambda_inter=2", "hgc:anchor_stride=0", "hgc:threshold=0.5", "hgc-online:cut=9",
     "easycache+ucache", "guard:tolerance=0", "guard:longest=0", "net:bound=0"],
)  # fmt: skip
def test_impossible_numbers_are_refused(text):
    with pytest.raises(PresetError):
        resolve(text).schedule(tower(), 10)


def test_tgate_without_guidance_says_so():
    with pytest.raises(PresetError, match="guidance_scale above 1"):
        TGate()(dataclasses.replace(tower(), branches=1), 10)
