"""The server of the page: up within seconds, on this machine alone, and it answers its own page alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip("starlette", reason="the page needs starlette, which is not installed")
pytest.importorskip("uvicorn", reason="the page needs uvicorn, which is not installed")

from hgc_video.errors import InputError
from hgc_video.jobs.batch import add_to, listed_jobs
from hgc_video.ui.server import listen
from tests.ui.conftest import ROOT, Server

PAGE = ROOT / "hgc_video" / "ui" / "page"


def answer(url, *, method="GET", headers=None, data=None, tries=5):
    """Status, body and headers. A server that refuses a body may close before all of it is sent: again."""
    asked = urllib.request.Request(url, data, headers or {}, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=20) as got:
            return got.status, got.read(), dict(got.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)
    except urllib.error.URLError as error:
        if tries == 1 or not isinstance(error.reason, BrokenPipeError | ConnectionResetError):
            raise
    return answer(url, method=method, headers=headers, data=data, tries=tries - 1)


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
        up_s, state = time.monotonic() - made.began, made.state()["model"]["state"]
        assert b"hgc-video" in page and state == "loading"
        assert up_s < 10  # about one second on an idle core; the machine of tests is busy
    finally:
        assert made.close() == 0


def test_it_listens_on_this_machine_alone_unless_told(tmp_path):
    with listen(0, shared=False) as alone, listen(0, shared=True) as shared:
        assert alone.getsockname()[0] == "127.0.0.1" and shared.getsockname()[0] == "0.0.0.0"
        with pytest.raises(InputError, match="another --port"):
            listen(alone.getsockname()[1], shared=False)


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


def test_the_page_loads_nothing_from_elsewhere(server):
    _, _, headers = answer(server.url)
    assert "default-src 'self'" in headers["content-security-policy"]
    files = list(PAGE.iterdir())
    named = {f.name: re.findall(r"https?://[^\"'\s]+", f.read_text()) for f in files}
    assert {url for urls in named.values() for url in urls} <= {"http://www.w3.org/2000/svg"}
    assert sum(f.stat().st_size for f in files) < 80_000


def test_the_batch_folder_is_seen_worked_off_and_opened(tmp_path, batch):
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
        until = time.monotonic() + 90
        while json.loads(made.get(f"api/tasks/{task['id']}"))["state"] != "done":
            assert time.monotonic() < until
            time.sleep(0.3)
        counts = json.loads(made.get("api/batch"))["counts"]
        assert counts["done"] == 1 and counts["cancelled"] == 1
        assert b"ftyp" in made.get(f"api/batch/{first + 1}/clip")[:16]
        assert json.loads(answer(f"{made.url}api/batch/retry", method="POST", headers=ours)[1]) == {
            "jobs": 0
        }
    finally:
        made.close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--batch", "/nowhere"], "is no batch folder"), (["--max-upload", "much"], "much")],
)
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
