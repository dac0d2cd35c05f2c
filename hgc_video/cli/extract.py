"""`hgc-video extract | cache`: a control clip taken from a raw film, and what is kept of such extractions"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..files import check_distinct, user_path
from .shell import app, errors_in_one_line, quiet_libraries, show


@app.command(rich_help_panel="Clips")
def extract(
    context: typer.Context,
    kind: Annotated[
        str | None,
        typer.Argument(help="A preprocessor, alone or with parameters: canny, pose:hands=true."),
    ] = None,
    video: Annotated[Path | None, typer.Argument(metavar="IN", help="The raw film.")] = None,
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT", help="Clip to write: .mp4, .gif, .webp, or a folder of PNGs."
        ),
    ] = None,
    num_frames: Annotated[int | None, typer.Option(help="Frames to take. Default: all.")] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second. Default: the film's.")
    ] = None,
    source_fps: Annotated[
        float | None, typer.Option(help="Rate of a film that carries none, as a folder of images.")
    ] = None,
    height: Annotated[int | None, typer.Option(help="Pixels. Default: the film's.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels. Default: the film's.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="List the preprocessors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The list as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only.")] = False,
) -> None:
    """Takes a control clip from a raw film: skeletons, depth or lines, for every frame of it.

    Example:  hgc-video extract canny film.mp4 canny.mp4

    All of them, with their parameters:  hgc-video extract --list
    """
    with errors_in_one_line(context):
        if listing or as_json:
            _list(as_json)
            return
        if kind is None or video is None or out is None:
            raise InputError(
                "write hgc-video extract KIND IN OUT, or --list for the kinds there are"
            )
        quiet_libraries()
        told = _extract(kind, video, out, not quiet, {
            "num_frames": num_frames, "fps": fps, "source_fps": source_fps, "height": height,
            "width": width, "offline": offline,
        })  # fmt: skip
        if not quiet:
            typer.echo(told)


def _extract(kind: str, video: Path, out: Path, progress: bool, given: dict[str, Any]) -> str:
    """Writes the control clip; what was made, in two lines."""
    from ..media.video import check_output, write_video
    from ..preprocess.extract import extract_control
    from ..preprocess.registry import make_preprocessor

    preprocessor = make_preprocessor(kind)
    check_distinct({"OUT": out}, [("film", video)])
    check_output(out)
    began = time.perf_counter()
    clip = extract_control(
        video, preprocessor, multiple=1, default_area=None, progress=progress, **given
    )
    frames, height, width = clip.shape
    write_video(out, iter(clip.stream), clip.fps)
    seconds = time.perf_counter() - began
    people = ""
    if clip.num_people:
        people = f"; people {clip.num_people}, frames bridged {clip.num_bridged}, "
        people += f"with nobody {clip.num_empty}"
    return (
        f"{preprocessor.name:<9} {frames} frames of {width}x{height} at {clip.fps:g} fps in "
        f"{seconds:.1f} s{people}\nclip      {user_path(out)}"
    )


def _list(as_json: bool) -> None:
    from ..preprocess.registry import listed

    if as_json:
        typer.echo(json.dumps(listed(), indent=2))
        return
    from rich.table import Table

    table = Table(
        "preprocessor", "makes", "extra", "parameters", "what it does", box=None, pad_edge=False
    )
    for one in listed():
        parameters = ", ".join(f"{p['name']}={_text(p['default'])}" for p in one["parameters"])
        table.add_row(one["name"], one["control"], one["extra"] or "", parameters, one["about"])
    show(table)
    typer.echo("ranges and what each parameter is:  hgc-video extract --list --json")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}"


@app.command(rich_help_panel="Clips")
def cache(
    context: typer.Context,
    clear: Annotated[bool, typer.Option("--clear", help="Drop everything that is kept.")] = False,
    limit: Annotated[
        str | None, typer.Option(help="Bytes that may be kept from now on, as 4GiB.")
    ] = None,
) -> None:
    """Shows what is kept of extracted controls, so that a film is not gone through twice.

    Example:  hgc-video cache --limit 4GiB
    """
    with errors_in_one_line(context):
        from ..plan.memory.budget import parse_nbytes
        from ..preprocess import kept

        if limit is not None:
            kept.set_limit(parse_nbytes(limit))
        if clear:
            typer.echo(f"dropped {kept.clear()}")
        entries = kept.entries()
        if entries:
            show(_entries_table(entries))
        total = sum(entry.nbytes for entry in entries)
        typer.echo(
            f"{len(entries)} kept, {total / 2**20:.1f} of {kept.limit_nbytes() / 2**20:.0f} MiB, in "
            f"{kept.kept_folder()}"
        )


def _entries_table(entries: list[Any]) -> Any:
    from rich.table import Table
    from rich.text import Text  # a film's name is no markup

    from ..errors import printable

    table = Table("preprocessor", "film", "frames", "MiB", "used last", box=None, pad_edge=False)
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used_s))
        table.add_row(
            Text(str(entry.request.get("preprocessor", ""))), Text(printable(entry.name)),
            str(entry.num_frames), f"{entry.nbytes / 2**20:.1f}", used,
        )  # fmt: skip
    return table
