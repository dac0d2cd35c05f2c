"""The chart of a plan: its cells are what is carried out, its steps say why, and it is a PNG or an SVG."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from PIL import Image
from typer.testing import CliRunner

from hgc_video.cli import app
from hgc_video.errors import InputError, MissingExtraError
from hgc_video.forecast import forecast
from hgc_video.plan.chart import _figure, chart, check_chart, save_chart, step_line
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

from matplotlib.colors import to_hex
from matplotlib.layout_engine import ConstrainedLayoutEngine


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


SVG = "{http://www.w3.org/2000/svg}"
RED, ORANGE, BLUE, GREY = "#b5432a", "#e8a075", "#4f9bc4", "#e9ecef"
CACHED = "hgc:interval=3,depth=1,gate=0.6"


def drawn(planned):
    """The figure of a plan, and the axes of its layers and of its MACs."""
    figure = _figure(planned, step_grid(planned.graph, planned.plan))
    return figure, *figure.axes


def spans(axes):
    """What lies over every step, by its name in the SVG."""
    return {patch.get_gid(): patch for patch in axes.patches if patch.get_gid()}


def test_the_layers_are_cells_of_their_states_with_lines_between_blocks_and_steps():
    planned = small(CACHED, 6)
    grid = step_grid(planned.graph, planned.plan)
    _, above, below = drawn(planned)
    (image,) = above.images
    states = [COMPUTED, PARTLY, REUSED, SKIPPED]
    assert image.get_array().tolist() == [[states.index(s) for s in row] for row in grid.states]
    assert image.get_clim() == (0, 3) and image.get_interpolation() == "none"
    assert [to_hex(colour) for colour in image.cmap.colors] == [RED, ORANGE, BLUE, GREY]
    assert above.get_aspect() == "auto" and (above.get_xlim(), above.get_ylim()) == (
        (-0.5, 5.5), (29.5, -0.5),
    )  # fmt: skip
    assert [(start, stop) for _, start, stop in grid.blocks] == [
        (0, 6), (6, 8), (8, 11), (11, 14), (14, 17), (17, 23), (23, 29), (29, 30),
    ]  # fmt: skip
    assert above.get_yticks().tolist() == [2.5, 6.5, 9, 12, 15, 19.5, 25.5, 29]
    assert {label.get_fontsize() for label in above.get_yticklabels()} == {7}
    lines = [(line.get_xdata(), line.get_ydata(), line) for line in above.lines]
    across = [(y[0], line.get_linewidth()) for x, y, line in lines if list(x) == [0, 1]]
    down = [(x[0], line.get_linewidth()) for x, y, line in lines if list(y) == [0, 1]]
    assert across == [(at - 0.5, 1.2) for at in (6, 8, 11, 14, 17, 23, 29)]
    assert down == [(at - 0.5, 0.6) for at in range(1, 6)]
    assert {to_hex(line.get_color()) for line in above.lines} == {"#ffffff"}
    # Steps are numbered below, under the MACs, and no tick stands out.
    for axis in (above.xaxis, above.yaxis):
        assert {tick.tick1line.get_markersize() for tick in axis.get_major_ticks()} == {0}
    assert not above.xaxis.get_tick_params()["labelbottom"]
    assert below.xaxis.get_tick_params()["labelbottom"]
    assert above.get_shared_x_axes().joined(above, below)


def test_the_macs_are_bars_of_shares_of_a_step_without_the_cache():
    planned = small(CACHED, 6)
    _, above, below = drawn(planned)
    bars = [patch for patch in below.patches if not patch.get_gid()]
    centres = [patch.get_x() + patch.get_width() / 2 for patch in bars]
    assert centres == pytest.approx(range(6)) and {p.get_width() for p in bars} == {0.8}
    shares = [100 * step.macs / step.macs_stock for step in planned.steps]
    assert [patch.get_height() for patch in bars] == shares and max(shares) < 100 > 5 * min(shares)
    assert {to_hex(patch.get_facecolor()) for patch in bars} == {RED}
    assert (below.get_xlim(), below.get_ylim()) == ((-0.5, 5.5), (0, 105))
    assert {name: spine.get_visible() for name, spine in below.spines.items()} == {
        "left": True, "bottom": True, "top": False, "right": False,
    }  # fmt: skip
    boxes = [axes.get_gridspec().get_height_ratios() for axes in (above, below)]
    assert boxes == [[30 * 0.075, 1.0]] * 2


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (25, 1), (49, 1), (50, 2), (75, 3)])
def test_about_twenty_five_steps_are_numbered(steps, every):
    _, _, below = drawn(small("off", steps))
    assert below.get_xticks().tolist() == list(range(0, steps, every))


def test_a_figure_grows_with_its_steps_and_its_layers():
    for steps, width in ((2, 5.0), (20, 5.0), (21, 0.24 * 21), (50, 12.0)):
        figure, *_ = drawn(small("off", steps))
        assert tuple(figure.get_size_inches()) == pytest.approx((3.2 + width, 2.2 + 30 * 0.075))
        assert isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine)


def test_what_the_pointer_rests_on_covers_a_step_of_both_parts_and_is_not_seen():
    _, above, below = drawn(small(CACHED, 3))
    for axes, part in ((above, "layers"), (below, "macs")):
        found = spans(axes)
        assert list(found) == [f"step-{index}-{part}" for index in range(3)]
        for index, span in enumerate(found.values()):
            box = span.get_extents().transformed(axes.transData.inverted())
            assert (box.x0, box.x1) == pytest.approx((index - 0.5, index + 0.5))
            assert span.get_alpha() == 0.004 and to_hex(span.get_facecolor()) == "#ffffff"
            assert span.get_linewidth() == 0
            below_it = [*axes.lines, *axes.images, *axes.spines.values()]
            assert span.get_zorder() > max(artist.get_zorder() for artist in below_it)


def test_the_legend_has_the_states_that_occur_in_their_colours_below_all():
    for text, told in ((CACHED, [RED, ORANGE, BLUE, GREY]), ("off", [RED])):
        figure, *_ = drawn(small(text, 6))
        (legend,) = figure.legends
        assert [to_hex(patch.get_facecolor()) for patch in legend.get_patches()] == told
        assert {patch.get_edgecolor() for patch in legend.get_patches()} == {(0.6, 0.6, 0.6, 1.0)}
        assert legend._ncols == len(told) and not legend.get_frame_on()
        assert legend._outside_loc == "lower" and legend._loc == 8, "below, in the middle"


def test_an_svg_is_plain_svg_whose_titles_come_first_in_their_groups():
    made = chart(small("off", 2))
    head = made[:80].decode()
    assert head.startswith("<?xml version='1.0' encoding='utf-8'?>\n<svg ")
    assert b" xmlns:xlink=" in made and b"ns0:" not in made and b"xlink:href=" in made
    assert b"<dc:date>" not in made, "the same plan gives the same file"
    groups = {g.get("id"): g for g in ElementTree.fromstring(made).iter(f"{SVG}g")}
    for index in range(2):
        for part in ("layers", "macs"):
            first = groups[f"step-{index}-{part}"][0]
            assert first.tag == f"{SVG}title" and first.text.startswith(f"step {index}: ")


def test_macs_of_a_step_are_in_thousands_of_millions():
    planned = small("off", 1)
    layers = tuple(replace(layer, macs=layer.macs * 10**18) for layer in planned.graph.layers)
    large = replace(planned, graph=replace(planned.graph, layers=layers))
    (row,) = large.steps
    told = step_line(large, step_grid(large.graph, large.plan), 0).splitlines()[2]
    assert row.macs % 10**18 == 0 and told == (
        f"{row.macs // 10**9}.0 GMACs, 100 % of a step without the cache"
    )


def test_without_matplotlib_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError) as told:
        chart(small("off", 1))
    assert str(told.value) == (
        'the chart needs matplotlib; install it with pip install "hgc-video[eval]"'
    )


@pytest.mark.parametrize("preset", ["full", "lossless", CACHED])
def test_a_state_has_its_colour_whatever_others_are_there(preset):
    """Of `lossless` nothing is skipped, and of `full` all is computed."""
    planned = forecast(preset=preset, num_inference_steps=6, num_frames=4)
    grid = step_grid(planned.graph, planned.plan)
    _, above, below = drawn(planned)
    (image,) = above.get_images()
    colours = {COMPUTED: RED, PARTLY: ORANGE, REUSED: BLUE, SKIPPED: GREY}
    cells = image.cmap(image.norm(image.get_array()))
    for row, states in zip(cells, grid.states, strict=True):
        assert [to_hex(cell) for cell in row] == [colours[state] for state in states]
    assert above.get_xlim() == below.get_xlim() == (-0.5, 5.5), "from the first step to the last"
