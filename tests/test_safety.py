"""What the package never does: run code that is data, ask a shell, load models that may change."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from hgc_video.models.hub import named_part
from hgc_video.models.parts import IP_ADAPTERS, MOTION_ADAPTERS
from hgc_video.preprocess.depth import Depth

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "hgc_video").rglob("*.py"))
_RUN_CODE = {
    "pickle",
    "cPickle",
    "dill",
    "joblib",
    "cloudpickle",
    "marshal",
    "shelve",
    "imp",
    "code",
}
_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.hub.load",
    "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.Loader", "yaml.UnsafeLoader",
}  # fmt: skip
# A loader that is no SafeLoader is no type for these.
_YAML_LOADS = {"plan/plain_yaml.py"}


def offences(text: str, name: str = "x.py") -> list[str]:
    """What of a source is not allowed, as `line: what`."""
    found = []
    for node in ast.walk(ast.parse(text)):
        told = ""
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            names = [module or ""] if module else [alias.name for alias in node.names]
            told = next((n for n in names if n.split(".")[0] in _RUN_CODE), "")
            told = told if getattr(node, "level", 0) == 0 else ""
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            loads_yaml = called == "yaml.load" and name not in _YAML_LOADS
            if called.removeprefix("builtins.") in _CALLS or loads_yaml:
                told = called
            elif called.endswith("from_pretrained") and given.get("use_safetensors") is not None:
                safe = given["use_safetensors"]
                told = "" if getattr(safe, "value", True) is True else "use_safetensors=False"
            for word in ("trust_remote_code", "allow_pickle", "shell", "weights_only"):
                value = given.get(word)
                if value is not None and getattr(value, "value", None) is not (
                    word == "weights_only"
                ):
                    told = f"{word}={ast.unparse(value)}"
        if told:
            found.append(f"{node.lineno}: {told}")
    return found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import pickle", "pickle"), ("from dill import load", "dill"), ("eval('1')", "eval"),
        ("torch.load('a.pt')", "torch.load"), ("yaml.load(a, Loader=b)", "yaml.load"),
        ("yaml.unsafe_load(a)", "yaml.unsafe_load"), ("os.system('ls')", "os.system"),
        ("np.load(a, allow_pickle=True)", "allow_pickle=True"), ("run('ls', shell=True)", "shell=True"),
        ("A.from_pretrained(a, trust_remote_code=True)", "trust_remote_code"),
        ("A.from_pretrained(a, use_safetensors=False)", "use_safetensors=False"),
    ],
)  # fmt: skip
def test_each_rule_finds_what_it_is_for(text, says):
    (found,) = offences(text)
    assert says in found


def test_what_is_allowed_passes():
    assert not offences(
        "model.eval()\nre.compile('a')\nnp.load(a, allow_pickle=False)\nyaml.safe_load(a)"
    )


def test_no_code_is_taken_from_files_or_the_network():
    found = {}
    for path in SOURCES:
        name = path.relative_to(ROOT / "hgc_video").as_posix()
        if told := offences(path.read_text(), name):
            found[name] = told
    assert not found


def named_repositories():
    """Every repository of the hub that the package names, with its revision."""
    for path in sorted((ROOT / "configs" / "models").glob("*.yaml")):
        yield from _parts(yaml.safe_load(path.read_text()))
    for named in (*IP_ADAPTERS.values(), *MOTION_ADAPTERS.values(), Depth().model):
        part = named_part("/".join(named.split("/")[:2]))
        yield part.repo, part.revision


def test_models_known_by_name_are_pinned_or_named_here():
    """A branch may be changed by its owner; the commits of these were not known when they were added."""
    unpinned = set()
    for repo, revision in named_repositories():
        if not re.fullmatch(r"[0-9a-f]{40}", revision):
            assert revision == "main"
            unpinned.add(repo)
    assert unpinned == UNPINNED


UNPINNED = {
    "emilianJR/epiCRealism", "CiaraRowles/temporal-controlnet-depth-svd-v1",
    "CiaraRowles/temporal-controlnet-lineart-svd-v1", "h94/IP-Adapter",
    "guoyww/animatediff-motion-adapter-sdxl-beta", "depth-anything/Depth-Anything-V2-Small-hf",
}  # fmt: skip


def _parts(told):
    if isinstance(told, dict):
        if "repo" in told:
            yield told["repo"], told.get("revision", "main")
        for value in told.values():
            yield from _parts(value)
