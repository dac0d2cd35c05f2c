"""`hgc-video init | run | schema`: shot files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .shell import app, errors_in_one_line, quiet_libraries, say

OUTSIDE = Annotated[
    bool, typer.Option("--allow-outside", help="Paths in the file may lead out of its folder.")
]
SETTINGS = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="An option in place of the file's, as preset=fast or control.pose=b.mp4. Repeat it."
    ),
]  # fmt: skip


@app.command(rich_help_panel="Clips")
def init(
    context: typer.Context,
    video: Annotated[Path, typer.Argument(help="A raw video, or a skeleton or depth clip.")],
    out: Annotated[Path, typer.Option(help="Shot file to write.")] = Path("shot.yaml"),
    model: Annotated[
        str, typer.Option(help="puppet, a model of hgc-video models, or a folder.")
    ] = "puppet",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the shot file.")] = False,
) -> None:
    """Looks at a video and writes a commented shot file for it.

    Example:  hgc-video init examples/dance_pose.mp4 --out shot.yaml
    """
    with errors_in_one_line(context):
        from ..errors import InputError
        from ..files import (
            alone_in,
            as_argument,
            check_distinct,
            check_writable,
            resolved,
            user_path,
        )

        video, out = user_path(video), user_path(out)
        check_distinct({"--out": out}, [("video", video)])
        quiet_libraries()
        with alone_in(out.parent):  # of two at once, the second finds the file of the first
            if out.exists() and not force:
                raise InputError(f'"{out}" exists; name another file, or overwrite it with --force')
            check_writable(out)
            from ..jobs.shot_template import write_template

            facts = write_template(video, out, model)
        say(str(facts))
        if resolved(video).is_relative_to(resolved(out).parent):
            say(f"shot file {out}; make the clip with:  hgc-video run {as_argument(out)}")
        else:
            say(
                f"shot file {out}; the video lies outside of its folder: move it there, or make the clip "
                f"with:  hgc-video run {as_argument(out)} --allow-outside"
            )


@app.command(rich_help_panel="Clips")
def run(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="A shot file, as hgc-video init writes one, or a finished clip.")
    ],
    settings: SETTINGS = None,
    frames: Annotated[
        str | None,
        typer.Option(
            help="Some frames only, as 200:216.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Clip to write. Default: the file's, or beside it as .mp4.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="JSON file for the report.")] = None,
    allow_outside: OUTSIDE = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only.")] = False,
) -> None:
    """Makes the clip of a shot file, or the clip of a finished one again (with --out).

    Example:  hgc-video run shot.yaml --set preset=fast --set seed=3 --out fast.mp4
    """
    with errors_in_one_line(context):
        from ..files import check_distinct, check_writable, user_path
        from ..jobs.run import run_configuration
        from ..jobs.shot import read_shot

        more = [] if frames is None else [f"frames={frames}"]
        shot = read_shot(file, allow_outside=allow_outside).with_settings(
            [*(settings or []), *more]
        )
        default = shot.options.get("out") or user_path(file).with_suffix(".mp4")
        shot = shot.with_options({"out": default if out is None else out})
        target = Path(shot.options["out"])
        options = shot.checked()
        check_distinct({"out": target, "--report": report}, [("shot file", file)])
        if report is not None:
            clips = [("control clip", clip) for clip in options.control_clips.values()]
            check_distinct({"--report": report}, [*clips, ("clip of out", target)])
            check_writable(report)
        quiet_libraries()
        clip = run_configuration(shot.options, str(file), progress=not quiet)
        written = [f"clip      {target}"]
        if report is not None:
            written.append(f"report    {clip.report.save(report)}")
        if not quiet:
            say("\n".join([clip.report.summary(), *written]))


@app.command(rich_help_panel="Clips")
def schema(context: typer.Context) -> None:
    """Prints the JSON Schema of shot files, for editors and other programs."""
    with errors_in_one_line(context):
        import json

        from ..jobs.schema import shot_schema

        typer.echo(json.dumps(shot_schema(), indent=2, ensure_ascii=False))
