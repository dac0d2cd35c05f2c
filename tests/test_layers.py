"""Which room may import which, read from the sources; and what no file may do."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import pytest

import hgc_video

PACKAGE = Path(hgc_video.__file__).parent
ALWAYS = {"errors", "plain_data", "__version__"}  # what everybody may import

# Each room and what it may import of ours, besides itself and ALWAYS: a room, or one module of it. Every
# room is here: who adds one says what it may know. DESIGN.md, "Rooms", says why.
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": {"clip", "enable", "generator", "jobs", "pipeline", "report"},
    "errors": set(),
    "plain_data": set(),
    "files": set(),
    "options": set(),
    "plan": {"files"},
    "measure": {"plan"},
    "cache": {"plan"},
    "models": {"files", "measure", "options", "plan"},
    "media": {"files"},
    "report": {"files", "plan"},
    "clip": {"media", "report"},
    "preprocess": {"files", "media", "models", "plan"},
    "puppet": {"evaluate.quality", "evaluate.results_file", "media", "models"},
    "sampling": {
        "cache", "files", "measure", "media", "models", "options", "plan", "preprocess", "report",
    },
    "evaluate": {
        "cache", "files", "measure", "media", "models", "options", "plan", "preprocess", "puppet", "report",
        "sampling",
    },
    "tune": {"cache", "evaluate", "files", "measure", "models", "options", "plan", "sampling"},
    "enable": {"cache", "models", "plan", "report"},
    "forecast": {"files", "measure", "media", "models", "options", "plan", "sampling"},
    "generator": {
        "clip", "evaluate", "files", "jobs.checkpoint", "media", "models", "options", "plan", "preprocess",
        "report", "sampling", "tune",
    },
    "pipeline": {"clip", "generator", "media"},
    "jobs": {
        "cache", "clip", "files", "forecast", "generator", "measure", "media", "models", "options",
        "pipeline", "plan", "preprocess", "report", "sampling",
    },
    "cli": {
        "clip", "evaluate", "files", "forecast", "jobs", "media", "models", "options", "pipeline", "plan",
        "preprocess", "sampling.configuration", "tune", "ui",
    },
    "ui": {
        "clip", "evaluate.quality", "files", "forecast", "generator", "jobs", "media", "models", "options",
        "plan", "preprocess", "sampling",
    },
}  # fmt: skip
EDGE = {"cli"}  # what nobody imports
READS_ENVIRONMENT = {"cli", "files"}  # where a user says that our own folder is to be
# Only these may load a library when they are imported; the others must wait until they are used.
PURE = {"__init__", "errors", "files", "options", "plain_data", "plan", "report", "cli"}
HEAVY = {"torch", "diffusers", "transformers", "numpy", "av", "PIL"}
MOST_AT_THE_ROOT = 10  # modules
PATCH = "cache/patch.py"  # the only file that replaces a method of an instance
# The command line prints warnings in one line, for its own process.
PRINTS_WARNINGS = "cli/shell.py", "replaces .showwarning of an object"
# A run that goes on gives its scheduler back what it keeps from step to step, which is data.
GIVES_BACK_DATA = "sampling/scheduler_state.py", "writes to the __dict__ of an object"


class Source:
    """A file of the package, parsed once, when it is asked; `name` is its path within the package."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        self.room = Path(name).with_suffix("").parts[0]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    def imports(self) -> Iterator[tuple[int, str]]:
        """Lines and dotted names imported anywhere in the file; relative ones made absolute."""
        here = ["hgc_video", *Path(self.name).parts[:-1]]
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = here[: len(here) - node.level + 1] if node.level else []
                module = [*base, *([node.module] if node.module else [])]
                yield from ((node.lineno, ".".join([*module, a.name])) for a in node.names)


SOURCES = [
    Source(str(p.relative_to(PACKAGE)), p.read_text()) for p in sorted(PACKAGE.rglob("*.py"))
]

Rule = Callable[[Source], Iterator[tuple[int, str]]]


def offences(rule: Rule, sources: list[Source] = SOURCES) -> list[str]:
    """What a rule finds, each with its file and line."""
    return [f"{s.name}:{line}: {says}" for s in sources for line, says in sorted(rule(s))]


# The rules: each gives lines and what is wrong there


def forbidden_imports(source: Source) -> Iterator[tuple[int, str]]:
    """Imports of rooms that the file's own room may not know."""
    allowed = MAY_IMPORT.get(source.room)
    if allowed is None:
        yield 1, f"the room {source.room} is not in MAY_IMPORT; say there what it may import"
        return
    for line, name in source.imports():
        package, _, inner = name.partition(".")
        room = inner.partition(".")[0]
        if package != "hgc_video" or not inner or room in {source.room, *ALWAYS}:
            continue
        if room in EDGE or not any(f"{inner}.".startswith(f"{to}.") for to in allowed):
            yield line, f"{source.room} must not import {inner}"


def tensors_in_plans(source: Source) -> Iterator[tuple[int, str]]:
    """Imports of tensor libraries where plans are made."""
    if source.room == "plan":
        for line, name in source.imports():
            if name.split(".")[0] in HEAVY:
                yield line, f"plans are made without a tensor: {name}"


def replaced_methods(source: Source) -> Iterator[tuple[int, str]]:
    """Attributes of objects other than self that are given something to call, and writes to an instance
    under a name that is worked out."""
    functions = [n for n in source.nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    called = {f.name for f in functions}
    for node in source.nodes:
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Subscript) and _is_instance_dict(target.value):
                    yield node.lineno, "writes to the __dict__ of an object"
                if not isinstance(target, ast.Attribute) or _is_self(target.value):
                    continue
                if target.attr in ("forward", "__call__") or _is_callable(node.value, called):
                    yield node.lineno, f"replaces .{target.attr} of an object"
        elif isinstance(node, ast.Call):
            name = (
                node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            )
            if name in ("setattr", "__setattr__") and _may_replace(node, called):
                yield node.lineno, "replaces an attribute of an object by setattr"
            if name == "update" and _is_instance_dict(getattr(node.func, "value", None)):
                yield node.lineno, "writes to the __dict__ of an object"


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _may_replace(call: ast.Call, functions: set[str]) -> bool:
    """Whether a setattr may put a function there: its name is worked out, or its value is one."""
    if len(call.args) != 3 or _is_callable(call.args[2], functions):
        return True
    owner, name, _ = call.args
    written_out = isinstance(name, ast.Constant) and name.value not in ("forward", "__call__")
    constant = isinstance(name, ast.Name) and name.id.lstrip("_").isupper()
    return not (_is_self(owner) or written_out or constant)


def _is_instance_dict(node: ast.AST | None) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "vars"
    return isinstance(node, ast.Attribute) and node.attr == "__dict__"


def _is_callable(value: ast.AST | None, functions: set[str]) -> bool:
    """Whether a value is a function made on the spot, one defined in the file, or something bound."""
    if isinstance(value, ast.Call):
        name = (
            value.func.id if isinstance(value.func, ast.Name) else getattr(value.func, "attr", "")
        )
        return name in ("partial", "MethodType", "wraps", "compile")
    return isinstance(value, ast.Lambda) or (isinstance(value, ast.Name) and value.id in functions)


def mutable_globals(source: Source) -> Iterator[tuple[int, str]]:
    """`global`, module variables that hold something mutable, and constants that are changed."""
    constants: set[str] = set()
    for node in source.tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and _is_mutable(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for name in (t.id for t in targets if isinstance(t, ast.Name)):
                constants.add(name)
                if not name.lstrip("_").isupper() and not name.startswith("__"):
                    yield node.lineno, f"the module's variable {name} is mutable"
    for node in source.nodes:
        if isinstance(node, ast.Global):
            yield node.lineno, f"global {', '.join(node.names)}"
        for changed in _changed(node):
            if changed in constants:
                yield node.lineno, f"the constant {changed} is changed"


def _is_mutable(value: ast.AST | None) -> bool:
    made = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id
    displays = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)
    return isinstance(value, displays) or made in {
        "dict", "list", "set", "defaultdict", "deque", "Counter", "OrderedDict", "WeakKeyDictionary",
    }  # fmt: skip


def _changed(node: ast.AST) -> Iterator[str]:
    """The names of what a statement changes in place."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        if isinstance(node.value, ast.Name):
            yield node.value.id
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        changes = {
            "append",
            "add",
            "update",
            "extend",
            "pop",
            "clear",
            "setdefault",
            "insert",
            "remove",
        }
        if isinstance(node.func.value, ast.Name) and node.func.attr in changes:
            yield node.func.value.id


def environment(source: Source) -> Iterator[tuple[int, str]]:
    """Uses of environment variables outside of the rooms that may."""
    if source.room not in READS_ENVIRONMENT:
        for node in source.nodes:
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv"):
                yield node.lineno, f"uses os.{node.attr}"
        for line, name in source.imports():
            if name in ("os.environ", "os.getenv", "os.putenv"):
                yield line, f"uses {name}"


def undocumented(source: Source) -> Iterator[tuple[int, str]]:
    """Modules that do not say what they are, empty ones too."""
    if not ast.get_docstring(source.tree):
        yield 1, "the module has no docstring"


# Source that breaks a rule, as (rule, name, text, lines and words told): each rule is seen to find what it
# is for, and the good line beside it is seen to pass.
BROKEN = [
    (
        forbidden_imports, "plan/x.py",
        "from ..errors import A\nfrom .cost import cost\nimport numpy\nfrom ..cache import store\n"
        "import hgc_video.cli\ndef f():\n from ..measure.macs import z\n from .. import files, models",
        {4: "cache.store", 5: "cli", 7: "measure.macs.z", 8: "models"},
    ),
    (
        forbidden_imports, "puppet/x.py",
        "from ..evaluate.quality import psnr\nfrom ..evaluate.trials import trials",
        {2: "evaluate.trials"},
    ),
    (forbidden_imports, "attic/x.py", "", {1: "attic is not in MAY_IMPORT"}),
    (forbidden_imports, "sampling/x.py", "from ..cli.shell import app", {1: "cli.shell.app"}),
    (tensors_in_plans, "plan/search/x.py", "import yaml\ndef f():\n import torch.nn", {3: "torch.nn"}),
    (
        replaced_methods, "sampling/x.py",
        "def f(s, n):\n def g(): pass\n s.steps = 1\n s.set_timesteps = g\n s.a.step = lambda: 0\n"
        " s.forward = n\n setattr(s, n, g)\n s.__dict__[n] = g\n vars(s)[n] = g\n"
        " s.step = partial(g, 1)\n s.step = MethodType(n, s)\n setattr(s, 'a', 1)\n setattr(s, 'a', g)\n"
        " setattr(s, n, 1)",
        {4: ".set_timesteps", 5: ".step", 6: ".forward", 7: "setattr", 8: "__dict__", 9: "__dict__",
         10: ".step", 11: ".step", 13: "setattr", 14: "setattr"},
    ),
    (
        mutable_globals, "models/x.py",
        "TABLE = {1: 2}\n__all__ = ['a']\nseen = []\nknown = dict()\ndef f():\n global seen\n"
        " TABLE[3] = 4\n TABLE.update(a=1)\n here = {}\n here[1] = TABLE[1]",
        {3: "seen", 4: "known", 6: "global seen", 7: "TABLE", 8: "TABLE"},
    ),
    (
        environment, "cache/x.py", "import os\nos.environ['A']\nos.getenv('A')\nfrom os import environ",
        {2: "os.environ", 3: "os.getenv", 4: "os.environ"},
    ),
    (environment, "cli/x.py", "import os\nos.environ['A']", {}),
    (undocumented, "media/__init__.py", "", {1: "no docstring"}),
    (undocumented, "media/x.py", "import os", {1: "no docstring"}),
    (undocumented, "media/y.py", '"""What it is."""', {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "name", "text", "told"), BROKEN, ids=[f"{r.__name__}-{n}" for r, n, *_ in BROKEN]
)
def test_every_rule_finds_what_it_is_for(rule, name, text, told):
    found = offences(rule, [Source(name, text)])
    assert [int(line.split(":")[1]) for line in found] == list(told)
    for line, says in zip(found, told.values(), strict=True):
        assert line.startswith(f"{name}:") and says in line


def test_arrows_point_one_way():
    assert not offences(forbidden_imports)


def test_every_room_is_constrained_and_every_arrow_is_of_a_room():
    rooms = {source.room for source in SOURCES}
    assert set(MAY_IMPORT) == rooms
    arrows = {(room, to) for room, allowed in MAY_IMPORT.items() for to in allowed}
    assert {to.partition(".")[0] for _, to in arrows} <= rooms - EDGE
    # Without the one module that is lower than its room, the rooms are in an order.
    above = {room: {to for to in allowed if "." not in to} for room, allowed in MAY_IMPORT.items()}
    while above:
        lowest = {room for room, below in above.items() if not below & set(above)}
        assert lowest, f"rooms that import each other in a circle: {sorted(above)}"
        above = {room: below for room, below in above.items() if room not in lowest}


def test_what_a_room_may_know_is_what_it_knows():
    """An arrow that nobody uses any more is taken out; a few are for who is expected."""
    expected = {("sampling", "files"), ("forecast", "files")}
    for source in SOURCES:
        for _, name in source.imports():
            inner = name.removeprefix("hgc_video.")
            expected |= {
                (source.room, to)
                for to in MAY_IMPORT.get(source.room, ())
                if inner != name and f"{inner}.".startswith(f"{to}.")
            }
    arrows = {(room, to) for room, allowed in MAY_IMPORT.items() for to in allowed}
    assert arrows == expected


def test_the_root_holds_few_modules_and_every_folder_is_a_package():
    root = [source.name for source in SOURCES if "/" not in source.name]
    assert len(root) <= MOST_AT_THE_ROOT, root
    folders = {str(Path(source.name).parent) for source in SOURCES}
    lacking = folders - {
        str(Path(s.name).parent) for s in SOURCES if s.name.endswith("__init__.py")
    }
    assert not lacking, f"no __init__.py in {sorted(lacking)}"


def test_plans_are_made_without_a_tensor():
    assert any(source.room == "plan" for source in SOURCES)
    assert not offences(tensors_in_plans)


def loaded_by(names: list[str]) -> list[str]:
    """The heavy libraries that importing these modules loads, in a Python of its own."""
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        f"print(*sorted(set({sorted(HEAVY)!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_pure_modules_load_nothing_heavy():
    pure = [Path(source.name).with_suffix("") for source in SOURCES if source.room in PURE]
    names = [".".join(("hgc_video", *path.parts)).removesuffix(".__init__") for path in pure]
    assert not loaded_by(names)
    assert loaded_by(["hgc_video.media.frames"]) == ["numpy"]


def test_only_one_file_replaces_a_method_of_an_instance():
    found = offences(replaced_methods)
    found = [line for line in found if line.split(":")[0] != PATCH]
    assert [(line.split(":")[0], line.split(": ")[1]) for line in found] == [
        PRINTS_WARNINGS,
        GIVES_BACK_DATA,
    ]
    assert offences(replaced_methods, [s for s in SOURCES if s.name == PATCH])


def test_no_file_has_mutable_globals_or_reads_the_environment():
    assert not offences(mutable_globals) + offences(environment)


def test_every_module_says_what_it_is():
    assert not offences(undocumented)
