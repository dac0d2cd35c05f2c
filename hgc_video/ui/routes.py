"""What the page asks the server, as HTTP: the form, uploads, estimates, runs, comparisons, and the batch."""

from __future__ import annotations

import io
import sys
import traceback
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from typing import Any

from anyio import to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from ..errors import HGCVideoError, InputError, internal_error, text_of
from ..files import fault_of_machine
from ..plain_data import parse_json
from .comparison import rows_of
from .form import form
from .request import field_of
from .uploads import TooLargeError
from .workspace import Workspace

_DOWNLOADS = {"clip.mp4": "video/mp4", "report.json": "application/json", "shot.yaml": "text/yaml"}
_MOST_BODY = 2**20  # bytes of a form


Handler = Callable[[Workspace, Request], Awaitable[Response]]


def routes(space: Workspace) -> list[Route]:
    """The routes of a workspace."""

    def route(path: str, handler: Handler, *methods: str) -> Route:
        async def handle(request: Request) -> Response:
            try:
                return await handler(space, request)
            except HGCVideoError as error:
                return _refused(error)
            except ClientDisconnect:  # a tab that was closed while it sent a file
                return Response(status_code=400)
            except Exception as error:
                return _failed(error)
            except CancelledError:  # Ctrl-C while it was at work; who asked sees the server go
                return JSONResponse({"why": "the server has ended", "field": ""}, 503)

        return Route(path, handle, methods=methods or ("GET",))

    return [
        route("/api/form", _form), route("/api/state", _state),
        route("/api/uploads", _upload, "PUT"),
        route("/api/uploads/{id}/frames/{number:int}", _upload_frame),
        route("/api/estimate", _estimate, "POST"), route("/api/schedule", _schedule, "POST"),
        route("/api/clips", _add_clip, "POST"), route("/api/controls", _add_control, "POST"),
        route("/api/tasks/{id}", _task), route("/api/tasks/{id}/cancel", _cancel, "POST"),
        route("/api/tasks/{id}/preview", _preview),
        route("/api/tasks/{id}/control/{number:int}", _control_frame),
        route("/api/tasks/{id}/files/{name}", _file),
        route("/api/comparisons", _add_comparison, "POST"),
        route("/api/comparisons/{name}", _comparison),
        route("/api/batch", _batch), route("/api/batch/retry", _batch_retry, "POST"),
        route("/api/batch/go-on", _batch_go_on, "POST"),
        route("/api/batch/{job:int}/cancel", _batch_cancel, "POST"),
        route("/api/batch/{job:int}/clip", _batch_clip),
    ]  # fmt: skip


def _refused(error: HGCVideoError) -> JSONResponse:
    why = text_of(error)
    status = 413 if isinstance(error, TooLargeError) else 400
    return JSONResponse({"why": why, "field": field_of(why)}, status)


def _failed(error: Exception) -> JSONResponse:
    """The answer to a fault of the machine, or of ours, which the terminal shows in full."""
    if (fault := fault_of_machine(error)) is not None:
        return JSONResponse({"why": str(fault), "field": ""}, 507)
    traceback.print_exception(error, file=sys.stderr)
    why = internal_error(error)
    return JSONResponse({"why": why, "field": ""}, 500)


async def _body(request: Request) -> dict[str, Any]:
    taken = b""
    async for chunk in request.stream():
        taken += chunk
        if len(taken) > _MOST_BODY:
            raise TooLargeError("the form is too large")
    try:
        told = parse_json(taken)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise InputError("the form cannot be read; load the page again")
    return told


async def _form(space: Workspace, request: Request) -> Response:
    return JSONResponse({**form(), "most_upload_nbytes": space.uploads.most_nbytes})


async def _state(space: Workspace, request: Request) -> Response:
    """The model's state, and every run that is in sight."""
    tasks = [task.to_dict() for task in space.line.tasks()]
    model = {"state": space.maker.state, "load_s": space.maker.load_s}
    return JSONResponse({"model": model, "tasks": tasks})


async def _upload(space: Workspace, request: Request) -> Response:
    asked = request.query_params
    nbytes = int(request.headers.get("content-length", 0))
    made = await space.uploads.receive(
        asked.get("name", ""), asked.get("kind", "video"), request.stream(), nbytes
    )
    return JSONResponse(made.to_dict())


async def _upload_frame(space: Workspace, request: Request) -> Response:
    path, number = space.uploads[request.path_params["id"]].path, request.path_params["number"]
    return Response(await to_thread.run_sync(_png_of, path, number), media_type="image/png")


def _png_of(path: Any, number: int) -> bytes:
    from PIL import Image

    from ..media.video import open_clip

    source = open_clip(path)
    number = min(number, source.info.num_frames - 1)
    picture = io.BytesIO()
    (frame,) = source.frames([number])
    Image.fromarray(frame).save(picture, "png")
    return picture.getvalue()


async def _estimate(space: Workspace, request: Request) -> Response:
    values = await _body(request)
    told = await to_thread.run_sync(lambda: space.estimates.told(space.scene(values)))
    return JSONResponse(told)


async def _schedule(space: Workspace, request: Request) -> Response:
    """The chart of a form's values, and each step in words."""
    values = await _body(request)

    def drawn() -> dict[str, Any]:
        from ..plan.chart import chart, step_line
        from ..plan.step_grid import step_grid

        planned = space.estimates.plan(space.scene(values))
        grid = step_grid(planned.graph, planned.plan)
        lines = [step_line(planned, grid, at) for at in range(len(planned.plan))]
        return {"svg": chart(planned).decode(), "steps": lines}

    return JSONResponse(await to_thread.run_sync(drawn))


async def _add_clip(space: Workspace, request: Request) -> Response:
    values = await _body(request)
    task = await to_thread.run_sync(space.add_clip, values)
    return JSONResponse(task.to_dict())


async def _add_control(space: Workspace, request: Request) -> Response:
    values = await _body(request)
    task = await to_thread.run_sync(space.add_control, values)
    return JSONResponse(task.to_dict())


async def _task(space: Workspace, request: Request) -> Response:
    return JSONResponse(space.line[request.path_params["id"]].to_dict())


async def _cancel(space: Workspace, request: Request) -> Response:
    return JSONResponse(space.line.cancel(request.path_params["id"]).to_dict())


async def _preview(space: Workspace, request: Request) -> Response:
    path = space.line[request.path_params["id"]].folder / "preview.png"
    if not path.is_file():
        raise InputError("there is no preview yet")
    return FileResponse(path, media_type="image/png", headers={"cache-control": "no-store"})


async def _control_frame(space: Workspace, request: Request) -> Response:
    folder = space.line[request.path_params["id"]].folder / "control"
    path = folder / f"frame_{request.path_params['number']:05d}.png"
    if not path.is_file():
        raise InputError("there is no such frame")
    return FileResponse(path, media_type="image/png")


async def _file(space: Workspace, request: Request) -> Response:
    """The clip, its report or its shot file; to be kept under that name where `save` is asked for."""
    name, task = request.path_params["name"], space.line[request.path_params["id"]]
    path = task.folder / name
    if name not in _DOWNLOADS or not path.is_file():
        raise InputError(f"this run has no {name}")
    kept = name if "save" in request.query_params else None
    return FileResponse(path, media_type=_DOWNLOADS[name], filename=kept)


async def _add_comparison(space: Workspace, request: Request) -> Response:
    told = await _body(request)
    values, presets = told.get("values"), told.get("presets")
    if not isinstance(values, dict) or not isinstance(presets, list):
        raise InputError("the form cannot be read; load the page again")
    if not all(isinstance(one, str) for one in presets):
        raise InputError("presets are no texts; load the page again")
    name = await to_thread.run_sync(space.add_comparison, values, presets)
    return JSONResponse({"name": name})


async def _comparison(space: Workspace, request: Request) -> Response:
    tasks = space.group(request.path_params["name"])
    return JSONResponse({"rows": await to_thread.run_sync(rows_of, tasks)})


async def _batch(space: Workspace, request: Request) -> Response:
    if space.batch is None:
        return JSONResponse({"folder": None})
    return JSONResponse(await to_thread.run_sync(space.batch.to_dict))


async def _batch_retry(space: Workspace, request: Request) -> Response:
    batch = _open_batch(space)
    count = await to_thread.run_sync(batch.retry)
    return JSONResponse({"jobs": count})


async def _batch_go_on(space: Workspace, request: Request) -> Response:
    return JSONResponse(space.add_batch().to_dict())


async def _batch_cancel(space: Workspace, request: Request) -> Response:
    was = await to_thread.run_sync(_open_batch(space).cancel, request.path_params["job"])
    return JSONResponse({"was": was})


async def _batch_clip(space: Workspace, request: Request) -> Response:
    path = await to_thread.run_sync(_open_batch(space).result, request.path_params["job"])
    return FileResponse(path)


def _open_batch(space: Workspace) -> Any:
    if space.batch is None:
        raise InputError("no batch folder is open; start hgc-video ui with --batch FOLDER")
    return space.batch
