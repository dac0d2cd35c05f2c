"""What the package never does: run code that is data, ask a shell, load models that may change."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hgc_video.cli import app
from hgc_video.media.video import write_video
from hgc_video.models.hub import named_part
from hgc_video.models.parts import IP_ADAPTERS, MOTION_ADAPTERS
from hgc_video.preprocess.depth import Depth
from hgc_video.puppet.evaluation import held_out

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


def test_what_a_run_leaves_tells_nothing_of_the_user_or_the_environment(
    tmp_path, monkeypatch, capfd, caplog
):
    """The clip, its report, the work folder that is handed on with it, and all that is printed."""
    home = tmp_path / "home" / "ann-smith"
    (home / "clips").mkdir(parents=True)
    secrets = {
        "HF_TOKEN": "hf_Secret123",
        "AWS_SECRET_ACCESS_KEY": "aws-Secret",
        "USER": "ann-smith",
    }
    for name, value in {**secrets, "LOGNAME": "ann-smith", "HOME": str(home)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HGC_VIDEO_HOME", str(home / ".cache"))
    monkeypatch.chdir(home)
    write_video("clips/pose.mp4", held_out(0, 2).truth.pose, 8)
    shutil.copy(ROOT / "configs" / "schedules" / "fast.yaml", "mine.yaml")
    out = home / "shared"
    out.mkdir()
    given = [
        "generate", "--pose", str(home / "clips" / "pose.mp4"), "--prompt", "a dancer", "--num-frames", "2",
        "--num-inference-steps", "2", "--height", "64", "--width", "64", "--checkpoint-every-s", "0",
        "--preset", f"searched:file={home}/mine.yaml",
        "--out", "shared/clip.mp4", "--report", "shared/report.json", "--work", "shared/work",
    ]  # fmt: skip
    with caplog.at_level("DEBUG"):
        said = CliRunner().invoke(app, given)
        assert said.exit_code == 0, said.output
        shown = CliRunner().invoke(app, ["show", "shared/clip.mp4"]).output
        again = (
            CliRunner()
            .invoke(app, ["generate", "--pose", "clips/none.mp4", "--prompt", "a"])
            .output
        )
    printed = "".join((said.output, shown, again, *capfd.readouterr(), caplog.text))
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {"clip.mp4", "report.json", "job.json"} <= {path.name for path in files}
    for told in (*secrets.values(), "ann-smith"):
        assert told not in printed
        for path, data in files.items():
            at = data.find(told.encode())
            assert at < 0, f"{path.name}: {data[max(0, at - 80) : at + 40]!r}"
