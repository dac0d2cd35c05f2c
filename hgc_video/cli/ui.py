"""`hgc-video ui`: a page to make clips on, in the browser of this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .shell import app, errors_in_one_line, quiet_libraries


@app.command(rich_help_panel="Clips")
def ui(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.")] = 7860,
    share_on_lan: Annotated[
        bool,
        typer.Option(
            "--share-on-lan",
            help="Let others in the network reach it too. There is no password: whoever reaches the page can "
            "use it and see what was made. Default: this machine alone.",
        ),
    ] = False,
    batch: Annotated[
        Path | None, typer.Option(help="Folder of a batch, to see and work off in the tab Queue.")
    ] = None,
    model: Annotated[str, typer.Option(help="The model that is loaded first.")] = "puppet",
    max_upload: Annotated[str, typer.Option(help="The largest file to take.")] = "512MiB",
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Where clips and uploads are kept. Default: a folder that goes with the command."
        ),
    ] = None,
) -> None:
    """Opens a page to make clips on: from a video to a clip with sound, without another command.

    It is reached from this machine alone, and loads nothing from elsewhere.

    Example:  hgc-video ui
    """
    with errors_in_one_line(context), tempfile.TemporaryDirectory(prefix="hgc_video_ui_") as own:
        quiet_libraries()
        from ..errors import MissingExtraError
        from ..files import user_path
        from ..plan.memory.budget import parse_nbytes

        try:
            from ..ui.server import addresses, listen, serve
        except ImportError as error:
            raise MissingExtraError(
                f'the page needs {error.name}; install it with pip install "hgc-video[ui]"'
            ) from error
        from ..ui.workspace import Workspace

        place = Path(own) if folder is None else user_path(folder).absolute()
        space = Workspace(
            place,
            most_nbytes=parse_nbytes(max_upload),
            model=model,
            shared=share_on_lan,
            batch=batch,
        )
        with listen(port, shared=share_on_lan) as listening:
            for address in addresses(listening, shared=share_on_lan):
                typer.echo(f"the page is at  {address}")
            typer.echo(
                "Ctrl-C ends it" + (", and what was not downloaded goes" if folder is None else "")
            )
            serve(space, listening)
