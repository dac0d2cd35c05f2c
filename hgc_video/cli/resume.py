"""`hgc-video resume`: goes on with a run from its work folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..files import check_writable, user_path
from .generate import tell
from .shell import app, errors_in_one_line, quiet_libraries


@app.command(rich_help_panel="Clips")
def resume(
    context: typer.Context,
    work: Annotated[Path, typer.Argument(help="The folder of --work, or CLIP.work.")],
    out: Annotated[
        Path | None, typer.Option(help="Write the clip here. Default: where the run was to.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="JSON file for options, schedule and cost of the run.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only.")] = False,
) -> None:
    """Goes on with a run that was stopped or killed, from its newest checkpoint; the clip is the same.

    Ctrl-C finishes the step, keeps the run and says how to go on; a second Ctrl-C stops at once.

    Example:  hgc-video resume clip.mp4.work
    """
    with errors_in_one_line(context):
        if report is not None:
            check_writable(report)
        quiet_libraries()
        from ..jobs.resume import resume as go_on

        clip = go_on(work, out=out, progress=not quiet)
        tell(clip, _written(clip.report.options["out"]), report, quiet=quiet)


def _written(out: str | None) -> Path | None:
    return None if out is None else user_path(out)
