"""What every command shares: the app, errors in one line with an exit code, and quiet libraries."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from ..errors import Cancelled, HGCVideoError, HGCVideoWarning, InputError
from ..files import unwritable

# In this order help lists them: what most people want first.
_COMMANDS = (
    "generate", "ui", "extract", "show", "resume", "cache", "init", "run", "batch", "schema",
    "plan", "policies", "models", "doctor", "calibrate", "search", "compare",
)  # fmt: skip


_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # never ours


class _InOrder(TyperGroup):
    """The commands in an order of ours."""

    def list_commands(self, context: Any) -> list[str]:
        """The commands by name."""
        return sorted(super().list_commands(context), key=_COMMANDS.index)


app = typer.Typer(
    cls=_InOrder,
    name="hgc-video",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hgc-video {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an internal error.")
    ] = False,
) -> None:
    """Video diffusion guided by a pose or depth clip, made several times cheaper by caching.

    Start here:  hgc-video generate --help
    """
    context.obj = debug


@contextmanager
def errors_in_one_line(context: typer.Context) -> Iterator[None]:
    """Runs a command's body: 2 for what the user can mend, 1 for what we must, 130 for cancelled.

    What we warn of is one line too, once; what libraries warn of is left out.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("once", module="hgc_video")
            warnings.simplefilter("once", HGCVideoWarning)
            warnings.showwarning = _show_in_one_line
            yield
    except (KeyboardInterrupt, Cancelled) as stopped:
        typer.echo(str(stopped) or "cancelled; nothing was written", err=True)
        raise typer.Exit(130) from None
    except HGCVideoError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if context.obj:
            raise
        text = " ".join(str(error).split())[:300]
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
            typer.echo(
                f"error: memory ran out ({text or 'the host'}); make fewer or smaller frames, give less "
                "--memory, or free memory",
                err=True,
            )
            raise typer.Exit(2) from None
        if isinstance(error, OSError) and error.errno in _DISK_FAULTS:
            told = unwritable(Path(str(error.filename or "a file")), error, InputError)
            typer.echo(f"error: {told}", err=True)
            raise typer.Exit(2) from None
        typer.echo(
            f"internal error: {type(error).__name__}: {text} (hgc-video --debug shows where)",
            err=True,
        )
        raise typer.Exit(1) from None


def _show_in_one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    typer.echo(f"warning: {' '.join(str(message).split())}", err=True)


def quiet_libraries() -> None:
    """Has the libraries under a run report errors only, and its threads wait without spinning."""
    settings = {
        "DIFFUSERS_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
        "SVT_LOG": "1",  # the AV1 encoder's, errors only
        # Threads that spin while they wait for a core that is taken make a run ten times slower.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def show(renderable: object) -> None:
    """Prints a rich renderable: as wide as the terminal, or unbroken lines where there is none."""
    import sys

    from rich.console import Console

    wide = None if sys.stdout.isatty() else 200
    Console(width=wide, highlight=False, soft_wrap=False).print(renderable)
