"""What every command shares: the app, errors in one line with an exit code, and quiet libraries."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from .. import __version__
from ..errors import Cancelled, HGCVideoError, HGCVideoWarning, internal_error, printable, text_of
from ..files import fault_of_machine

# In the order in which help lists them, what most people want first: the module of each, its heading, and the
# first line of its docstring, so that neither help nor another command loads it.
_COMMANDS = {
    "generate": ("generate", "Clips",
        "Makes a clip from a control clip and a prompt."),
    "ui": ("ui", "Clips",
        "Opens a page to make clips on: from a video to a clip with sound, without another command."),
    "extract": ("extract", "Clips",
        "Takes a control clip from a raw film: skeletons, depth or lines, for every frame of it."),
    "show": ("show", "Clips",
        "Prints how a finished clip was made: options, inputs, models, versions, the schedule step by step."),
    "resume": ("resume", "Clips",
        "Goes on with a run that was stopped or killed, from its newest checkpoint; the clip is the same."),
    "cache": ("extract", "Clips",
        "Shows what is kept of extracted controls, so that a film is not gone through twice."),
    "init": ("shot", "Clips",
        "Looks at a video and writes a commented shot file for it."),
    "run": ("shot", "Clips",
        "Makes the clip of a shot file, or the clip of a finished one again (with --out)."),
    "batch": ("batch", "Clips",
        "Makes the clips of many shots, each once; what was stopped goes on when it is called again."),
    "schema": ("shot", "Clips",
        "Prints the JSON Schema of shot files, for editors and other programs."),
    "plan": ("plan", "Before a run",
        "Shows what would be computed and reused at every step, and what that costs; runs nothing."),
    "policies": ("plan", "Before a run",
        "Lists the presets and policies, or the fields of one policy with type, range, default and source."),
    "models": ("plan", "Before a run",
        "Lists the models that `--model` takes."),
    "doctor": ("plan", "Before a run",
        "Shows what is installed, which devices there are, and how to get what is missing."),
    "calibrate": ("tune", "Schedules",
        "Measures how wrong reuse is at every step and what that does to the result."),
    "search": ("tune", "Schedules",
        "Finds the schedule that changes the result least for its MACs."),
    "compare": ("compare", "Schedules",
        "Runs methods on the same clips and noise, beside as many plain steps as cost no less."),
}  # fmt: skip


class _Unloaded(TyperCommand):
    """A command whose module is loaded when it is called."""

    def __init__(self, name: str, module: str, panel: str, help_line: str) -> None:
        super().__init__(name=name, help=help_line, rich_help_panel=panel)
        self._module = module

    def loaded(self) -> Any:
        """The command itself, with its options."""
        import_module(f"{__package__}.{self._module}")
        (found,) = (one for one in app.registered_commands if _name(one) == self.name)
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        alone.registered_commands.append(found)
        command = typer.main.get_command(alone)
        command.name = self.name
        return command

    def make_context(self, *given: Any, **more: Any) -> Any:
        """That of the command itself."""
        return self.loaded().make_context(*given, **more)


def _name(registered: Any) -> str:
    return str(registered.name or registered.callback.__name__)


class _Commands(TyperGroup):
    """The commands in an order of ours, each loaded when it is called."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = {name: _Unloaded(name, *told) for name, told in _COMMANDS.items()}

    def list_commands(self, context: Any) -> list[str]:
        """The commands by name."""
        return list(self.commands)


app = typer.Typer(
    cls=_Commands,
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
        signals_end()
        typer.echo(str(stopped) or "cancelled; nothing was written", err=True)
        raise typer.Exit(130) from None
    except HGCVideoError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if context.obj:
            raise
        if (told := fault_of_machine(error)) is not None:
            typer.echo(f"error: {told}", err=True)
            raise typer.Exit(2) from None
        typer.echo(f"{internal_error(error)} (hgc-video --debug shows where)", err=True)
        raise typer.Exit(1) from None


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def signals_cancel() -> None:
    """Has SIGTERM, as Ctrl-C does, stop a command, which cleans up and says so."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def signals_end() -> None:
    """Where `signals_cancel` was called: has the next signal end the process at once, for one that has
    nothing left to clean up. As an exception it would be shown as a traceback of what Python does at exit;
    ignored, it could not end a process whose threads do not."""
    if signal.getsignal(signal.SIGTERM) is not signal.default_int_handler:
        return
    for number in _SIGNALS:
        while signal.getsignal(number) is signal.default_int_handler:
            with suppress(KeyboardInterrupt):  # of a signal that came before
                signal.signal(number, signal.SIG_DFL)


def say(text: str, out: TextIO | None = None) -> None:
    """Prints a text; what names and paths of others hold in it steers no terminal."""
    typer.echo(printable(text), file=out)


def _show_in_one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    typer.echo(f"warning: {text_of(message)}", err=True)


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
