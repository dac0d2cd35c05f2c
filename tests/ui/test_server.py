"""The server of the page: up within seconds, on this machine alone, and it answers its own page alone."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

pytest.importorskip("starlette", reason="the page needs starlette, which is not installed")
pytest.importorskip("uvicorn", reason="the page needs uvicorn, which is not installed")

from hgc_video.errors import InputError
from hgc_video.jobs.batch import add_to, listed_jobs
from hgc_video.ui.server import listen
from tests.ui.conftest import ROOT, Server

PAGE = ROOT / "hgc_video" / "ui" / "page"


OURS = {"x-hgc-video": "page"}


def answer(url, *, method="GET", headers=None, data=None):
    """Status, body and headers."""
    asked = urllib.request.Request(url, data, headers or {}, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=20) as got:
            return got.status, got.read(), dict(got.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def upload(server, name, data, kind="video"):
    """Status and body of the answer to an upload."""
    asked = f"api/uploads?kind={kind}&name={urllib.parse.quote(name, safe='')}"
    status, told, _ = answer(server.url + asked, method="PUT", headers=OURS, data=data)
    return status, json.loads(told)


def posted(server, path, values):
    """Status and body of the answer to values, or to bytes that are no JSON."""
    data = values if isinstance(values, bytes) else json.dumps(values).encode()
    status, told, _ = answer(server.url + path, method="POST", headers=OURS, data=data)
    return status, json.loads(told)


@pytest.fixture
def batch(tmp_path, control_clip):
    """A batch folder with two queued jobs."""
    (tmp_path / "pose.mp4").write_bytes(control_clip.read_bytes())
    (tmp_path / "one.yaml").write_text(
        "control: {pose: pose.mp4}\nprompt: a dancer on a beach\nnum_frames: 1\nnum_inference_steps: 1\n"
    )
    listed = listed_jobs(tmp_path, seeds=2, matrix={}, pattern=None, allow_outside=False)
    add_to(tmp_path / "batch", listed)
    return tmp_path / "batch"


def test_the_page_is_there_before_the_model(tmp_path):
    made = Server(tmp_path)
    try:
        page = made.get("/")
        cpu_s, state = made.cpu_s(), made.state()["model"]["state"]
        assert b"hgc-video" in page and state == "loading"
        assert cpu_s < 5  # about one, and what the model's loading took meanwhile
    finally:
        assert made.close() == 0


def test_it_listens_on_this_machine_alone_unless_told(tmp_path):
    with listen(0, shared=False) as alone, listen(0, shared=True) as shared:
        assert alone.getsockname()[0] == "127.0.0.1" and shared.getsockname()[0] == "0.0.0.0"
        for port in (alone.getsockname()[1], 65536, -1):
            with pytest.raises(InputError, match=f"port={port} .* another --port"):
                listen(port, shared=False)


def test_another_site_is_refused(server):
    port = server.url.rstrip("/").rpartition(":")[2]
    assert answer(server.url, headers={"Host": f"example.org:{port}"})[0] == 403
    assert answer(f"{server.url}api/clips", method="POST", data=b"{}")[0] == 403
    assert answer(f"{server.url}api/uploads?name=a.mp4", method="PUT", data=b"x")[0] == 403
    assert answer(f"http://localhost:{port}/")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "page/../server.py",
        "page/%2e%2e/server.py",
        "api/tasks/x/files/clip.mp4",
        "api/uploads/x/frames/0",
    ],
)
def test_nothing_else_of_the_machine_is_read(server, path):
    assert answer(server.url + path)[0] in (400, 404)


def test_the_body_of_a_form_and_of_an_upload_are_limited(server):
    ours = {"x-hgc-video": "page"}
    large = b" " * (2**20 + 1)
    assert answer(f"{server.url}api/clips", method="POST", data=large, headers=ours)[0] == 413
    status, told, _ = answer(
        f"{server.url}api/uploads?name=a.mp4", method="PUT", data=large, headers=ours
    )
    assert status == 413 and "larger than 1 MiB" in json.loads(told)["why"]


@pytest.mark.parametrize(
    ("method", "path", "ours", "status"),
    [
        ("PUT", "/api/uploads?name=a.mp4", True, 413),
        ("PUT", "/api/uploads?name=a.txt", True, 400),
        ("PUT", "/api/uploads?name=a.mp4", False, 403),
        ("POST", "/api/clips", True, 413),
        ("POST", "/nothing", True, 404),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_who_sends_a_body_that_is_refused_reads_why(server, method, path, ours, status, chunked):
    address = urllib.parse.urlparse(server.url)
    rest, nbytes = bytes(2**16), 2**22  # more than what lies in buffers on the way
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {nbytes}"
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n{length}\r\n"
    )
    head += f"{'x-hgc-video: page' if ours else 'x-other: 1'}\r\n\r\n"
    for _ in range(5):
        with socket.create_connection((address.hostname, address.port), timeout=30) as client:
            client.sendall(head.encode())
            for _ in range(nbytes // len(rest)):
                client.sendall(b"%x\r\n%b\r\n" % (len(rest), rest) if chunked else rest)
            if chunked:
                client.sendall(b"0\r\n\r\n")
            told = b"".join(iter(lambda: client.recv(2**16), b""))
        assert told.startswith(b"HTTP/1.1 %d " % status)


def test_who_waits_to_be_told_to_send_is_refused_at_once(server):
    address = urllib.parse.urlparse(server.url)
    head = (
        f"PUT /api/uploads?name=a.txt HTTP/1.1\r\nHost: {address.netloc}\r\nx-hgc-video: page\r\n"
    )
    head += "Connection: close\r\nContent-Length: 999\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=30) as client:
        client.sendall(head.encode())
        told = b"".join(iter(lambda: client.recv(2**16), b""))
    assert told.startswith(b"HTTP/1.1 400 ") and b"no video file" in told


def test_an_upload_that_is_cut_off_leaves_nothing(server):
    address = urllib.parse.urlparse(server.url)
    head = (
        f"PUT /api/uploads?name=a.mp4 HTTP/1.1\r\nHost: {address.netloc}\r\nx-hgc-video: page\r\n"
    )
    held = set((server.folder / "uploads").iterdir())
    with socket.create_connection((address.hostname, address.port), timeout=30) as client:
        client.sendall(f"{head}Content-Length: 9999\r\n\r\n".encode() + b"x" * 99)
        _until(lambda: set((server.folder / "uploads").iterdir()) != held)
    _until(lambda: set((server.folder / "uploads").iterdir()) == held)


def _until(true, most_s=60):
    until = time.monotonic() + most_s
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("tänzer 舞.mp4", None), ("a b'c\"d.mp4", None), ("x" * 200 + ".mp4", None), ("-dash.mp4", None),
        ("../../evil.mp4", "evil.mp4"), ("a\0\nb.mp4", None), ("<img src=x>.mp4", None), ("12:30.MP4", None),
    ],
)  # fmt: skip
def test_odd_names_are_kept_as_names_alone(server, control_clip, name, kept):
    status, told = upload(server, name, control_clip.read_bytes())
    assert status == 200 and told["name"] == (kept or name)
    assert (server.folder / "uploads" / f"{told['id']}.mp4").is_file()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.mp4", "video"), ("a.gif", "video"), ("a.png", "image"), ("a.safetensors", "weights"),
     ("..", "video"), (".mp4", "video"), ("", "video"), ("a.mp4", "other")],
)  # fmt: skip
def test_empty_files_and_names_are_refused(server, name, kind):
    held = set((server.folder / "uploads").iterdir())
    status, told = upload(server, name, b"", kind)
    assert status == 400 and told["why"] and set((server.folder / "uploads").iterdir()) == held


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"height": 10**9}, "height"), ({"width": 10**6}, "width"), ({"lora": [{"file": []}]}, "lora"),
        ({"lora": [[]]}, "lora"), ({"control_video": "gone"}, "control_video"),
        ({"more_controls": [{"clip": {"upload": []}}]}, "more_controls"), ({"seed": {"a": 1}}, "seed"),
        ({"prompt_at": [{"frame": "x", "text": "a"}]}, "prompt_at"), ({"num_frames": 1e308}, "num_frames"),
    ],
)  # fmt: skip
def test_values_of_any_kind_are_refused_by_their_field(server, uploaded, values, field):
    given = {"control_video": uploaded, "prompt": "a dancer", **values}
    status, told = posted(server, "api/estimate", given)
    assert (status, told["field"]) == (400, field)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"\xff", b"[" * 100_000, b'{"values": {}, "presets": [["off"], {}]}'],
)
def test_bodies_of_any_kind_are_refused(server, body):
    for path in ("api/comparisons", "api/clips"):
        assert posted(server, path, body)[0] == 400


@pytest.fixture
def uploaded(server, control_clip):
    """The upload of the control clip."""
    return upload(server, "pose.mp4", control_clip.read_bytes())[1]["id"]


def test_the_page_loads_nothing_from_elsewhere(server):
    _, _, headers = answer(server.url)
    assert "default-src 'self'" in headers["content-security-policy"]
    files = list(PAGE.iterdir())
    named = {f.name: re.findall(r"https?://[^\"'\s]+", f.read_text()) for f in files}
    assert {url for urls in named.values() for url in urls} <= {"http://www.w3.org/2000/svg"}
    assert sum(f.stat().st_size for f in files) < 80_000


@pytest.mark.slow
def test_the_batch_folder_is_seen_worked_off_and_opened(tmp_path, batch, control_clip):
    made, ours = Server(tmp_path / "ui", "--batch", batch), {"x-hgc-video": "page"}
    try:
        told = json.loads(made.get("api/batch"))
        assert told["counts"]["queued"] == 2 and len(told["jobs"]) == 2
        first = told["jobs"][0]["id"]
        answer(f"{made.url}api/batch/{first}/cancel", method="POST", headers=ours)
        assert answer(f"{made.url}api/batch/{first}/clip")[0] == 400
        task = json.loads(answer(f"{made.url}api/batch/go-on", method="POST", headers=ours)[1])
        again = json.loads(answer(f"{made.url}api/batch/go-on", method="POST", headers=ours)[1])
        assert task["id"] == again["id"]
        until = time.monotonic() + 300
        while json.loads(made.get(f"api/tasks/{task['id']}"))["state"] != "done":
            assert time.monotonic() < until
            time.sleep(0.3)
        counts = json.loads(made.get("api/batch"))["counts"]
        assert counts["done"] == 1 and counts["cancelled"] == 1
        assert b"ftyp" in made.get(f"api/batch/{first + 1}/clip")[:16]
        assert json.loads(answer(f"{made.url}api/batch/retry", method="POST", headers=ours)[1]) == {
            "jobs": 0
        }
        assert _ended_in_mid_run(made, control_clip) == 0
        assert {path.name for path in made.folder.iterdir()} == {"uploads", task["id"]}
    finally:
        made.close()


def _ended_in_mid_run(made, clip):
    """The exit code of a server that is ended as by Ctrl-C in the midst of a run."""
    clip = upload(made, "pose.mp4", clip.read_bytes())[1]["id"]
    options = {"num_frames": 1, "num_inference_steps": 300, "preset": "off"}
    _, task = posted(made, "api/clips", {**options, "control_video": clip, "prompt": "a dancer"})
    _until(lambda: json.loads(made.get(f"api/tasks/{task['id']}"))["step"], 120)
    code = made.close()
    assert "ends when the step at work is done" in made.process.stdout.read()
    return code


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--batch", "/nowhere"], "is no batch folder"), (["--max-upload", "much"], "much"),
        (["--folder", "/dev/null/x"], "choose a folder you may write"), (["--port", "99999"], "port=99999"),
    ],
)  # fmt: skip
def test_a_wrong_command_is_refused_in_one_line(arguments, says):
    code = "from hgc_video.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "ui", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1


def test_without_the_extra_it_says_how_to_get_it(tmp_path):
    code = "import sys; sys.modules['uvicorn'] = None\nfrom hgc_video.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "ui"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "hgc-video[ui]" in done.stderr
