"""The chart of a plan: steps by layers, the MACs of every step, and as SVG its reason on hover.

Needs matplotlib (extra `eval` or `notebooks`), which is loaded when a chart is drawn.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from ..errors import InputError, MissingExtraError
from ..files import complete_or_gone, require_writable, user_path
from .step_grid import COMPUTED, PARTLY, REUSED, SKIPPED, STATES, StepGrid, in_words, step_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .run_plan import RunPlan

FORMATS = ("png", "svg")
# Told apart by colour-blind eyes and in grey too.
_COLOURS = {COMPUTED: "#b5432a", PARTLY: "#e8a075", REUSED: "#4f9bc4", SKIPPED: "#e9ecef"}
_SVG = "http://www.w3.org/2000/svg"
_DPI = 110


def save_chart(planned: RunPlan, path: str | os.PathLike[str]) -> Path:
    """Writes the chart of a plan and gives back its path.

    Raises:
        InputError: the file is neither .png nor .svg, or cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    target = check_chart(path)
    made = chart(planned, target.suffix.lower().removeprefix("."))
    with complete_or_gone(target) as part:
        part.write_bytes(made)
    return target


def check_chart(path: str | os.PathLike[str]) -> Path:
    """The path of a chart that is to be written; InputError where it is neither .png nor .svg, or its folder
    cannot be written."""
    target = user_path(path)
    if target.suffix.lower().removeprefix(".") not in FORMATS:
        raise InputError(f'"{target}" is no chart; name a file that ends in .png or .svg')
    if not target.parent.is_dir():
        raise InputError(f'no folder "{target.parent}" for "{target.name}"; create it first')
    require_writable(target)
    return target


def chart(planned: RunPlan, kind: str = "svg") -> bytes:
    """The chart as PNG or SVG. MissingExtraError where matplotlib is not installed."""
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise MissingExtraError(
            'the chart needs matplotlib; install it with pip install "hgc-video[eval]"'
        ) from error
    made, grid = io.BytesIO(), step_grid(planned.graph, planned.plan)
    # Text stays text, and the same plan gives the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "hgc_video", "font.size": 9}):
        dated: dict[str, Any] = {"Date": None} if kind == "svg" else {}
        _figure(planned, grid).savefig(made, format=kind, dpi=_DPI, metadata=dated)
    return _with_titles(made.getvalue(), planned, grid) if kind == "svg" else made.getvalue()


def step_line(planned: RunPlan, grid: StepGrid, index: int) -> str:
    """What a step shows on hover."""
    row = planned.steps[index]
    share = 100 * row.macs / row.macs_stock
    why = row.reason or "nothing is reused here"
    return (
        f"step {index}: {why}\n{in_words(grid.count(index))}\n"
        f"{row.macs / 1e9:.1f} GMACs, {share:.0f} % of a step without the cache"
    )


def _figure(planned: RunPlan, grid: StepGrid) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    steps, layers = len(planned.plan), len(grid.layers)
    figure = Figure(
        figsize=(3.2 + max(5.0, 0.24 * steps), 2.2 + 0.075 * layers), layout="constrained"
    )
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[0.075 * layers, 1.0])
    _draw_layers(above, grid)
    _draw_macs(below, planned)
    bound = "at most " if planned.plan.is_adaptive else ""
    figure.suptitle(
        f"{planned.preset}: {steps} steps, {bound}{100 * (1 - planned.macs_saved):.1f} % of the MACs "
        "of the uncached run"
    )
    shown = {state for row in grid.states for state in row}
    figure.legend(
        handles=[Patch(facecolor=_COLOURS[s], edgecolor="0.6", label=s) for s in STATES if s in shown],
        loc="outside lower center", ncols=4, frameon=False,
    )  # fmt: skip
    for index in range(steps):  # what the pointer rests on, over both parts
        for axes, part in ((above, "layers"), (below, "macs")):
            span = axes.axvspan(
                index - 0.5, index + 0.5, color="white", alpha=0.004, lw=0, zorder=9
            )
            span.set_gid(f"step-{index}-{part}")
    return figure


def _draw_layers(axes: Axes, grid: StepGrid) -> None:
    from matplotlib.colors import ListedColormap

    numbers = [[STATES.index(state) for state in row] for row in grid.states]
    axes.imshow(
        numbers, cmap=ListedColormap([_COLOURS[s] for s in STATES]), vmin=0, vmax=len(STATES) - 1,
        aspect="auto", interpolation="none",
    )  # fmt: skip
    centres = [(start + stop - 1) / 2 for _, start, stop in grid.blocks]
    axes.set_yticks(centres, [name for name, _, _ in grid.blocks], fontsize=7)
    for _, start, _ in grid.blocks[1:]:
        axes.axhline(start - 0.5, color="white", lw=1.2)
    for index in range(1, len(grid.states[0])):
        axes.axvline(index - 0.5, color="white", lw=0.6)
    axes.tick_params(axis="both", length=0, labelbottom=False)


def _draw_macs(axes: Axes, planned: RunPlan) -> None:
    shares = [100 * row.macs / row.macs_stock for row in planned.steps]
    axes.bar(range(len(shares)), shares, color=_COLOURS[COMPUTED], width=0.8)
    axes.set(xlabel="step", ylabel="MACs, %", xlim=(-0.5, len(shares) - 0.5), ylim=(0, 105))
    every = max(1, len(shares) // 25)
    axes.set_xticks(range(0, len(shares), every))
    axes.spines[["top", "right"]].set_visible(False)


def _with_titles(svg: bytes, planned: RunPlan, grid: StepGrid) -> bytes:
    """The SVG in which every step tells about itself where the pointer rests on it."""
    for prefix, space in (("", _SVG), ("xlink", "http://www.w3.org/1999/xlink")):
        ElementTree.register_namespace(prefix, space)
    tree = ElementTree.fromstring(svg)
    found = {group.get("id"): group for group in tree.iter(f"{{{_SVG}}}g")}
    for index in range(len(planned.plan)):
        for part in ("layers", "macs"):
            title = ElementTree.Element(f"{{{_SVG}}}title")
            title.text = step_line(planned, grid, index)
            found[f"step-{index}-{part}"].insert(0, title)
    made: bytes = ElementTree.tostring(tree, encoding="utf-8", xml_declaration=True)
    return made
