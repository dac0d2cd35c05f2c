"""A planned run as a whole, on a graph worked out by hand: its figures, its words, its data and its chart."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from hgc_video.errors import InputError, PlanError
from hgc_video.plan.checkpoints import CheckpointPlan
from hgc_video.plan.cost import cost, full_cost
from hgc_video.plan.devices import DevicePlan
from hgc_video.plan.explain import explain, summaries
from hgc_video.plan.graph import BlockGraph, Layer
from hgc_video.plan.memory.budget import Chunks, MemoryPlan, Peak
from hgc_video.plan.memory.placement import HOST, RECOMPUTE, RunCost, recomputed, work_of
from hgc_video.plan.memory.throughput import Throughput
from hgc_video.plan.memory.windows import Windows
from hgc_video.plan.presets import resolve
from hgc_video.plan.run_plan import RunPlan, plan_run
from tests.plan.policies.test_policies import tower

T, MIB, GIB = 10**12, 2**20, 2**30
# Three windows of four frames, from 0, 3 and 6, and where they are moved four, from 0, 1, 4 and 6.
WINDOWS = Windows(10, 4, 1)
CACHE = "deepcache:interval=2"  # its windows move at steps 2 and 3
RATES = Throughput(float(T), 1e9, "by hand")


def graph() -> BlockGraph:
    """Of a window and a step the ControlNet has 2.4 T MACs, the UNet 22.2 T, its upper part 2.2 T."""
    layers = (
        Layer("controlnet.hint", "hint", (), T // 2, 4),
        Layer("controlnet.zero", "zero_conv", ("controlnet.hint",), 7 * T // 10, 4),
        Layer("unet.in", "conv_in", (), T // 10, MIB),
        Layer("unet.skip", "join", ("unet.in", "controlnet.zero")),
        Layer("unet.deep", "resnet", ("unet.in",), 10 * T, 3 * MIB),
        Layer("unet.up", "resnet", ("unet.deep", "unet.skip"), T, MIB),
    )
    return BlockGraph(layers, depths=("unet.deep",), branches=2, num_frames=4, blocks=(1,))


def planned(text=CACHE, windows=WINDOWS, evaluations=4, asked=5, **more):
    return plan_run(
        resolve(text), graph(), windows, evaluations=evaluations, asked=asked, **more
    )  # fmt: skip


def memory_plan(idle="device", works=None, rates=None):
    return MemoryPlan(2, 4, Chunks(idle=idle), Peak(3 * GIB, GIB, GIB), 4 * GIB, works or {}, rates)


def device_plan():
    return DevicePlan(2, (1, 2), (MIB, MIB), MIB, 6 * T, 0.5, 2.5, 5.0, "4 TMACs/s")


def test_a_run_is_planned_for_its_windows_and_compared_with_the_steps_that_were_asked_for():
    made = planned()
    assert made == RunPlan(
        CACHE, resolve(CACHE).schedule(graph(), 4), graph(), full_cost(graph(), 5), WINDOWS, None,
        (False, False, True, True), None, None,
    )  # fmt: skip
    assert planned(windows=Windows(4, 4)).moves == ()
    least = RunPlan("x", made.plan, graph(), made.baseline, WINDOWS)
    assert (least.memory_plan, least.moves) == (None, ())
    assert (least.checkpoints, least.devices) == (None, None)


def test_macs_are_those_of_all_windows_where_they_stand_at_each_step():
    made = planned()
    assert made.spent == cost(graph(), made.plan)
    assert made.spent is made.spent, "counted once"
    assert [step["unet"] for step in made.spent.macs] == [222 * T // 10, 22 * T // 10] * 2
    # 3, 3, 4 and 4 windows; without the cache a fifth step of 3 windows that do not move.
    assert made.macs_by_part == {"unet": 1708 * T // 10, "controlnet": 24 * T}
    assert made.macs_baseline_by_part == {"unet": 3774 * T // 10, "controlnet": 30 * T}
    assert made.macs_saved == 1 - 1948 / 4074
    assert made.macs_least == 1948 * T // 10 and made.computed_steps is None
    fewer = planned(asked=3)
    assert fewer.macs_baseline_by_part == {"unet": 222 * T, "controlnet": 18 * T}
    assert planned("off", asked=4).macs_saved == 0


def test_several_devices_run_the_controlnet_on_shared_frames_again():
    alone, made = planned(), replace(planned(), devices=device_plan())
    assert made.macs_by_part == {"unet": 1708 * T // 10, "controlnet": 30 * T}
    assert made.macs_baseline_by_part == alone.macs_baseline_by_part
    assert made.macs_saved == 1 - 2008 / 4074 and made.macs_least == 2008 * T // 10
    assert made.macs_by_part == {"unet": 1708 * T // 10, "controlnet": 30 * T}, "added once"


def test_a_controlnet_that_adds_nothing_at_a_step_is_left_out_there():
    made = planned("lossless", inactive={1: ["controlnet"]})
    # The hint is encoded for one branch, once.
    assert [10 * step["controlnet"] // T for step in made.spent.macs] == [19, 0, 14, 14]
    assert planned(inactive={}) == planned(inactive=None) == planned()


def test_where_idle_caches_are_computed_again_the_plan_computes_everything():
    plain = planned()
    again = planned(memory_plan=memory_plan(RECOMPUTE))
    assert again.plan == recomputed(plain.plan) != plain.plan
    assert again.memory_plan == memory_plan(RECOMPUTE)
    assert again.moves == (False, True, False, True), "as nothing is held"
    assert again.macs_by_part == {"unet": 14 * 222 * T // 10, "controlnet": 24 * T}
    for idle in ("device", HOST):
        made = planned(memory_plan=memory_plan(idle))
        assert made == replace(plain, memory_plan=memory_plan(idle))


def test_an_adaptive_plan_is_told_from_its_least_to_its_most():
    """Of 4 steps one may be forecast: that leaves 3 of the UNet, and as many of the ControlNet, whose hint is
    encoded for one branch and once. Windows decide by themselves, and run the ControlNet on 12 frames."""
    made = planned("guard", asked=4)
    assert made.moves == () and made.computed_steps == (3, 4)
    assert made.macs_by_part == {"unet": 4 * 666 * T // 10, "controlnet": 3 * 61 * T // 10}
    zero = (19, 14, 14)  # of the ControlNet, for a window, in 0.1 T
    least = 3 * 666 * T // 10 + sum(3 * n * T // 10 for n in zero)
    assert made.macs_least == least


def test_steps_are_told_in_short_and_in_full():
    made = planned()
    assert made.steps == summaries(graph(), made.plan) and len(made.steps) == 4
    assert made.explain(1) == explain(graph(), made.plan, 1)
    assert made.explain(1).computed == ("controlnet.hint", "controlnet.zero", "unet.in", "unet.up")
    for absent in (-1, 4):
        with pytest.raises(
            PlanError, match=f"step {absent} is not in this plan; it has steps 0 to 3"
        ):
            made.explain(absent)


HEAD = [
    "  0  key            both branches  controlnet  1/1   24600.0 GMACs  100.0 %      6.0 MiB stored",
    "  1  depth 1        both branches  controlnet  1/1    4600.0 GMACs   18.7 %      0.0 MiB stored",
    "  2  key            both branches  controlnet  1/1   24600.0 GMACs  100.0 %      6.0 MiB stored",
    "  3  depth 1        both branches  controlnet  1/1    4600.0 GMACs   18.7 %      0.0 MiB stored",
    "MACs   195 of 407 T: 52.2 % saved (unet 171 of 377, controlnet 24 of 30)",
    "cache  6.0 MiB at most for a window",
]


def test_a_fixed_plan_in_words():
    assert str(planned()) == "\n".join(HEAD)


def test_an_adaptive_plan_in_words_says_its_range():
    lines = str(planned("guard", asked=4)).splitlines()
    assert lines[:4] == list(map(str, planned("guard", asked=4).steps))
    assert lines[4:] == [
        "MACs   285 of 290 T: 2.0 % saved (unet 266 of 266, controlnet 18.3 of 24)",
        "range  3 to 4 of 4 steps are computed, as measured in the run; the above is the most, the least is "
        "214 T: 26.3 % saved",
        "cache  0.0 MiB at most for a window",
    ]


def test_memory_checkpoints_and_devices_follow_where_they_were_asked_for():
    works = {"device": RunCost(8 * T, 2 * T)}
    memory = memory_plan(works=works, rates=RATES)
    kept = CheckpointPlan((1, 3), (MIB, MIB), every_s=2.0, run_s=3.0)
    made = replace(planned(memory_plan=memory), checkpoints=kept)
    assert str(made).splitlines() == [
        *HEAD,
        f"memory {memory}",
        *(f"       {line}" for line in memory.explain()),
        f"kept   {kept}",
    ]
    assert len(memory.explain()) == 2
    over_two = str(replace(planned(), devices=device_plan())).splitlines()
    assert over_two == [
        *HEAD[:4],
        "MACs   201 of 407 T: 50.7 % saved (unet 171 of 377, controlnet 30 of 30)",
        HEAD[5],
        f"devices {device_plan()}",
    ]


def test_a_plan_as_data_has_the_names_of_a_report():
    made = planned()
    text = made.to_json()
    told = {
        "preset": CACHE,
        "macs": 1948 * T // 10,
        "macs_baseline": 4074 * T // 10,
        "macs_saved": 1 - 1948 / 4074,
        "macs_least": 1948 * T // 10,
        "computed_steps": None,
        "macs_by_part": {"unet": 1708 * T // 10, "controlnet": 24 * T},
        "macs_baseline_by_part": {"unet": 3774 * T // 10, "controlnet": 30 * T},
        "cache_peak_nbytes": 6 * MIB,
        "schedule": made.plan.to_dict(),
        "steps": [asdict(step) for step in made.steps],
    }
    assert json.loads(text) == json.loads(json.dumps(told))
    assert list(json.loads(text)) == list(told), "in this order"
    assert text.splitlines()[1] == f'  "preset": "{CACHE}",'
    adaptive = json.loads(planned("guard", asked=4).to_json())
    assert adaptive["computed_steps"] == [3, 4] and adaptive["macs_least"] < adaptive["macs"]
    assert len(adaptive["schedule"]["steps"]) == 4, "of the run that costs most"


def test_a_plan_as_data_has_what_else_was_planned():
    memory = memory_plan(works={"device": RunCost(8 * T, 2 * T)}, rates=RATES)
    kept = CheckpointPlan((1, 3), (MIB, MIB), every_s=2.0, run_s=3.0)
    bare = json.loads(planned().to_json())
    made = replace(planned(memory_plan=memory), checkpoints=kept)
    told = json.loads(made.to_json())
    more = {name: told[name] for name in told.keys() - bare.keys()}
    assert {name: told[name] for name in bare} == bare
    assert more == json.loads(
        json.dumps(
            {
                "memory": str(memory),
                "predicted_peak_nbytes": 3 * GIB,
                "checkpoints": kept.to_dict(),
                "idle_caches": "device",
                "predicted_host_nbytes": GIB,
                "rates": asdict(RATES),
                "works": {"device": asdict(RunCost(8 * T, 2 * T))},
            }
        )
    )
    over_two = json.loads(replace(planned(), devices=device_plan()).to_json())
    assert over_two.keys() - bare.keys() == {"devices"}
    assert over_two["devices"] == json.loads(json.dumps(device_plan().to_dict()))


def test_a_chart_is_written_where_it_is_told_and_shown_in_a_notebook(tmp_path):
    pytest.importorskip("matplotlib", reason="the chart needs matplotlib, which is not installed")
    made = planned(windows=Windows(4, 4))
    assert made.plot(tmp_path / "a.svg") == tmp_path / "a.svg"
    assert made._repr_svg_() == (tmp_path / "a.svg").read_text()
    assert "depth 1" not in made._repr_svg_() and f"{CACHE}: 4 steps" in made._repr_svg_()
    with pytest.raises(InputError, match="is no chart"):
        made.plot(tmp_path / "a.txt")


def test_without_matplotlib_a_notebook_shows_the_words(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert planned()._repr_svg_() is None


def test_a_policy_of_ones_own_is_planned_under_its_name():
    """What is planned is what the preset says for this graph, this number of steps and what is inactive."""
    asked = []

    def schedule(*given):
        asked.append(given)
        return resolve(CACHE).schedule(*given)

    made = plan_run(
        SimpleNamespace(name="mine", schedule=schedule), graph(), WINDOWS, evaluations=3, asked=2
    )
    assert asked == [(graph(), 3, None)] and made.preset == "mine" and len(made.plan) == 3


def test_macs_are_those_that_the_memory_plan_tells():
    for preset in ("lossless", "deepcache:interval=2+lossless", "off"):
        made = plan_run(resolve(preset), tower(), Windows(16, 4, 0), evaluations=10, asked=10)
        told = work_of(made.plan, made.graph, made.windows, "device").macs
        assert sum(made.macs_by_part.values()) == told
