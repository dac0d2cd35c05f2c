"""A comparison as one HTML file: the plot, the table, and clips side by side."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from ..errors import MissingExtraError
from ..plan.presets import SEARCHED
from .quality import Frames
from .table import Row, markdown

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse; font-size: 13px }}
td, th {{ padding: .2em .7em; text-align: right; border-bottom: 1px solid #ddd }}
td:first-child, th:first-child {{ text-align: left }}
figure {{ display: inline-block; margin: .5em; text-align: center }}
figcaption {{ font-size: 12px }}
</style></head><body>
<h1>{title}</h1>
<p>{caption}</p>
<img src="data:image/png;base64,{plot}" alt="PSNR to the uncached result against MACs saved">
{table}
<h2>The first clip under every method</h2>
{clips}
</body></html>
"""


def page(
    found: Sequence[Row], clips: Mapping[str, Frames], *, title: str, caption: str, fps: float = 8.0
) -> str:
    """The HTML of a comparison; `clips` (f H W 3) by method are shown moving beside each other."""
    figures = "\n".join(
        f'<figure><img src="data:image/webp;base64,{_moving(frames, fps)}" width="192">'
        f"<figcaption>{html.escape(name)}</figcaption></figure>"
        for name, frames in clips.items()
    )
    return _PAGE.format(
        title=html.escape(title), caption=html.escape(caption), table=_table(markdown(found)),
        clips=figures, plot=base64.b64encode(plot(found)).decode(),
    )  # fmt: skip


def plot(found: Sequence[Row]) -> bytes:
    """PSNR to the uncached result against MACs saved, as PNG: every method a point, those that nothing
    beats joined by a line."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            'the plot needs matplotlib; install it with pip install "hgc-video[eval]"'
        ) from error
    drawn = [row for row in found if row.psnr_db < 99]
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    families = list(dict.fromkeys(_family(row.method) for row in drawn))
    for index, family in enumerate(families):
        own = [row for row in drawn if _family(row.method) == family]
        axes.errorbar(
            [100 * r.saved for r in own], [r.psnr_db for r in own], [r.psnr_spread_db for r in own],
            fmt="osD^v<>P*X"[index % 10], label=family, capsize=2, color=f"C{index % 10}", alpha=0.85,
        )  # fmt: skip
    front = [row for row in drawn if row.best]
    axes.plot([100 * r.saved for r in front], [r.psnr_db for r in front], color="0.6", zorder=0)
    axes.set(xlabel="MACs saved, % of the uncached run", ylabel="PSNR to the uncached result, dB")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2)
    made = io.BytesIO()
    figure.savefig(made, format="png", dpi=110)
    return made.getvalue()


def _family(method: str) -> str:
    name = method.partition(":")[0]
    return "hgc_video presets" if name in SEARCHED else name


def _moving(frames: Frames, fps: float) -> str:
    first, *others = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    made = io.BytesIO()
    first.save(
        made,
        "webp",
        save_all=True,
        append_images=others,
        duration=round(1000 / fps),
        loop=0,
        quality=80,
    )
    return base64.b64encode(made.getvalue()).decode()


def _table(text: str) -> str:
    """A Markdown table as HTML."""
    head, _, *body = text.splitlines()
    lines = [_line(head, "th"), *(_line(line, "td") for line in body)]
    return f"<table>{''.join(lines)}</table>"


def _line(line: str, tag: str) -> str:
    cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
    columns = [
        f"<b>{html.escape(c.strip('*'))}</b>" if c.startswith("**") else html.escape(c)
        for c in cells
    ]
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in columns) + "</tr>"
