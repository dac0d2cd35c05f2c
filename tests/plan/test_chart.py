"""The chart of a plan: its cells are what is carried out, its steps say why, and it is a PNG or an SVG."""

from __future__ import annotations

import io
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from PIL import Image
from typer.testing import CliRunner

from hgc_video.cli import app
from hgc_video.errors import InputError
from hgc_video.forecast import forecast
from hgc_video.plan.chart import chart, check_chart, save_chart, step_line
from hgc_video.plan.graph import PREDICTION
from hgc_video.plan.liveness import CFG_DELTA
from hgc_video.plan.memory.windows import Windows
from hgc_video.plan.presets import resolve
from hgc_video.plan.run_plan import plan_run
from hgc_video.plan.schedule import Schedule, StepPlan
from hgc_video.plan.step_grid import (
    COMPUTED,
    PARTLY,
    REUSED,
    SKIPPED,
    StepGrid,
    in_words,
    step_grid,
)
from tests.plan.policies.test_policies import tower
from tests.plan.test_graph import ladder

pytest.importorskip("matplotlib", reason="the chart needs matplotlib, which is not installed")


@pytest.fixture(scope="module")
def planned():
    return forecast(preset="balanced", num_frames=16)


@pytest.mark.parametrize(
    "preset", ["off", "balanced", "turbo", "tgate", "hgc-online", "sada", "fastercache"]
)
def test_the_grid_is_what_each_step_explains(preset):
    made = forecast(preset=preset, num_frames=16, num_inference_steps=8)
    grid = step_grid(made.graph, made.plan)
    rows = dict(zip(grid.layers, grid.states, strict=True))
    for step in range(len(made.plan)):
        told = made.explain(step)
        assert {n for n, row in rows.items() if row[step] in (COMPUTED, PARTLY)} >= set(
            told.computed
        )
        skipped = {n for n, row in rows.items() if row[step] == SKIPPED}
        assert skipped - {"unet.guidance_difference"} == set(told.skipped)
        read = {name.removesuffix("+") for name in told.reused}
        assert {n for n, row in rows.items() if row[step] == REUSED} == read & set(rows)
        assert sum(grid.count(step).values()) == len(grid.layers)


def test_a_grid_by_hand_has_rows_for_the_whole_prediction_and_the_guidance_difference():
    """Computed; the prediction reused as a delta, and made of clean latents; the guidance difference added
    again, and dropped."""
    steps = (
        StepPlan(), StepPlan(deltas=frozenset({PREDICTION})), StepPlan(clean=((0, 1.0),)),
        StepPlan(branches=1, cfg_delta=(1.0, 1.0)), StepPlan(branches=1),
    )  # fmt: skip
    layers = ("controlnet.hint", "controlnet.zero", "unet.in", "unet.deep", "unet.up")
    own = (COMPUTED, SKIPPED, SKIPPED, COMPUTED, COMPUTED)
    whole = (COMPUTED, REUSED, REUSED, COMPUTED, COMPUTED)
    guidance = (COMPUTED, COMPUTED, COMPUTED, REUSED, SKIPPED)
    grid = step_grid(ladder(), Schedule("x", steps))
    assert grid == StepGrid((PREDICTION, CFG_DELTA, *layers), (whole, guidance, *[own] * 5))
    assert grid.count(1) == {COMPUTED: 1, PARTLY: 0, REUSED: 1, SKIPPED: 5}
    assert in_words(grid.count(1)) == "1 computed, 1 reused, 5 skipped"
    assert step_grid(ladder(), Schedule("x", (StepPlan(),))).layers == layers


@pytest.mark.parametrize("lossless", [True, False])
def test_what_nobody_reads_is_skipped_where_savings_are_made(lossless):
    reused = StepPlan(frozenset({"unet.up"}))
    grid = step_grid(ladder(), Schedule("x", (StepPlan(), reused), lossless=lossless))
    net = SKIPPED if lossless else COMPUTED
    assert [row[1] for row in grid.states] == [net, net, SKIPPED, SKIPPED, REUSED]


def test_attention_that_is_reused_inside_a_layer_is_seen():
    made = forecast(preset="tgate", num_frames=16)
    grid = step_grid(made.graph, made.plan)
    partly = {n for n, row in zip(grid.layers, grid.states, strict=True) if PARTLY in row}
    assert partly and all("attentions" in name for name in partly)


def test_blocks_cover_every_layer_once(planned):
    blocks = step_grid(planned.graph, planned.plan).blocks
    assert [start for _, start, _ in blocks[1:]] == [stop for *_, stop in blocks[:-1]]
    assert "unet.mid_block" in [name for name, *_ in blocks]


def test_every_step_of_the_svg_gives_its_reason(planned):
    tree = ElementTree.fromstring(chart(planned, "svg"))
    titles = [e.text for e in tree.iter("{http://www.w3.org/2000/svg}title")]
    for step, row in enumerate(planned.steps):
        (one, other) = [t for t in titles if t.startswith(f"step {step}: ")]
        assert one == other and row.reason in one and "GMACs" in one
    assert chart(planned, "svg") == chart(planned, "svg")
    assert planned._repr_svg_().encode() == chart(planned, "svg")


def small(text, steps):
    """A plan on the tower, whose chart is drawn in no time."""
    return plan_run(resolve(text), tower(), Windows(4, 4), evaluations=steps, asked=steps)


def words(planned):
    """The texts of a chart, as they stand in it."""
    tree = ElementTree.fromstring(chart(planned, "svg"))
    return [e.text for e in tree.iter("{http://www.w3.org/2000/svg}text")]


def test_a_chart_in_words_names_blocks_steps_shares_and_the_states_that_occur():
    planned = small("hgc:interval=3,depth=1,gate=0.6", 6)
    blocks = ["controlnet", "unet", *(f"unet.{part}" for part in (
        "down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1")), "unet"]  # fmt: skip
    spent = f"{100 * (1 - planned.macs_saved):.1f} % of the MACs of the uncached run"
    assert words(planned) == [
        *blocks, *"012345", "step", "0", "50", "100", "MACs, %",
        f"hgc:interval=3,depth=1,gate=0.6: 6 steps, {spent}", COMPUTED, PARTLY, REUSED, SKIPPED,
    ]  # fmt: skip


def test_a_long_chart_numbers_every_second_step_and_an_adaptive_one_says_at_most():
    long, adaptive = words(small("off", 52)), words(small("guard", 4))
    assert long[8:36] == [*map(str, range(0, 52, 2)), "step", "0"]
    assert long[-2:] == ["off: 52 steps, 100.0 % of the MACs of the uncached run", COMPUTED]
    (title,) = [text for text in adaptive if text.startswith("guard: ")]
    assert title.startswith("guard: 4 steps, at most ")


def test_a_step_says_its_reason_its_layers_and_its_macs(planned):
    grid = step_grid(planned.graph, planned.plan)
    row = planned.steps[1]
    assert step_line(planned, grid, 1).splitlines() == [
        f"step 1: {row.reason}",
        in_words(grid.count(1)),
        f"{row.macs / 1e9:.1f} GMACs, {100 * row.macs / row.macs_stock:.0f} % of a step without the cache",
    ]
    stock = replace(small("off", 2), plan=Schedule("x", (StepPlan(),) * 2, stock=True))
    first = step_line(stock, step_grid(stock.graph, stock.plan), 0).splitlines()
    assert first == [
        "step 0: nothing is reused here",
        "30 computed",
        "0.0 GMACs, 100 % of a step without the cache",
    ]


def test_a_chart_is_saved_under_its_name_whatever_the_letters(tmp_path):
    planned = small("off", 2)
    assert save_chart(planned, tmp_path / "a.SVG") == tmp_path / "a.SVG"
    assert (tmp_path / "a.SVG").read_bytes() == chart(planned) == chart(planned, "svg")
    picture = Image.open(save_chart(planned, str(tmp_path / "b.png")))
    # 3.2 + 5 by 2.2 + 30 * 0.075 inches of 110 dots, of few steps and thirty layers.
    assert picture.format == "PNG" and picture.size == (902, 489)
    for name in ("a.pdf", "a", "png"):
        with pytest.raises(
            InputError, match=r"is no chart; name a file that ends in \.png or \.svg"
        ):
            check_chart(tmp_path / name)


def test_the_png_shows_computed_and_skipped_cells(planned):
    pixels = Image.open(io.BytesIO(chart(planned, "png"))).convert("RGB").getcolors(10**6)
    found = {colour: count for count, colour in pixels}
    for colour in ((0xB5, 0x43, 0x2A), (0xE9, 0xEC, 0xEF), (0x4F, 0x9B, 0xC4)):
        near = sum(
            n
            for c, n in found.items()
            if max(abs(a - b) for a, b in zip(c, colour, strict=True)) < 4
        )
        assert near > 2000, colour


def test_the_command_writes_a_chart_for_each_preset(tmp_path):
    done = CliRunner().invoke(
        app, ["plan", "--preset", "off", "--preset", "fast", "--plot", str(tmp_path / "a.svg")]
    )
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-1.svg", "a-2.svg"]
    assert (tmp_path / "a-1.svg").read_bytes() != (tmp_path / "a-2.svg").read_bytes()


def test_another_file_is_refused_before_anything_is_planned(tmp_path, planned):
    done = CliRunner().invoke(app, ["plan", "--plot", str(tmp_path / "a.pdf")])
    assert done.exit_code == 2 and ".png or .svg" in done.stderr and not done.stdout
    with pytest.raises(InputError, match="create it first"):
        planned.plot(tmp_path / "absent" / "a.svg")
    assert not list(tmp_path.iterdir())
