"""Serves the page on this machine, or on the network if asked to: the application and its guards."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ..errors import InputError
from .routes import routes
from .unread_body import WithWholeBody
from .workspace import Workspace

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
_PAGE = Path(__file__).parent / "page"
# The page may load nothing from elsewhere, and nothing elsewhere may show it.
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
}  # fmt: skip
_ENCODED = tuple((name.encode(), value.encode()) for name, value in _HEADERS.items())
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


def application(space: Workspace) -> Starlette:
    """The application of a workspace, which begins to work when it is served."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        space.line.start()
        yield
        if space.line.at_work:
            sys.stdout.write("ends when the step at work is done; nothing of that run is kept\n")
            sys.stdout.flush()
        space.close()

    async def index(request: Request) -> Response:
        return FileResponse(_PAGE / "index.html")

    app = Starlette(
        routes=[Route("/", index), *routes(space), Mount("/page", StaticFiles(directory=_PAGE))],
        lifespan=lifespan,
    )
    app.add_middleware(_Guard, shared=space.shared)
    app.add_middleware(WithWholeBody)  # the outer one
    return app


class _Guard:
    """Refuses requests that another site has a browser make: of a name that is not this machine's, and
    changes without the header that only our page sends."""

    def __init__(self, app: Any, shared: bool) -> None:
        self._app, self._shared = app, shared

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: _Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        ours = request.method in ("GET", "HEAD") or "x-hgc-video" in request.headers
        if not ours or not _is_own_name(request.url.hostname or "", self._shared):
            refusal = PlainTextResponse("this page answers its own requests alone", 403)
            await refusal(scope, receive, send)
            return

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_ENCODED]
            await send(message)

        await self._app(scope, receive, with_headers)


def _is_own_name(host: str, shared: bool) -> bool:
    """Whether a host is named as this machine is: a name of another site that leads here is not."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return shared and host in (socket.gethostname(), f"{socket.gethostname()}.local")
    return shared or address.is_loopback


def listen(port: int, *, shared: bool) -> socket.socket:
    """A socket that listens on a port of the loopback address, or where it is shared on every address;
    port 0 takes one that is free.

    Raises:
        InputError: the port is taken, or no port.
    """
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((EVERYWHERE if shared else LOOPBACK, port))
        made.listen()  # who reads the address is answered, if only when the server is up
    except (OSError, OverflowError) as error:
        made.close()
        reason = error.strerror if isinstance(error, OSError) else "ports are 0 to 65535"
        raise InputError(
            f"port={port} cannot be had ({reason}); give another --port, or 0 for any"
        ) from error
    return made


def addresses(listening: socket.socket, *, shared: bool) -> list[str]:
    """Where the page is reached."""
    port = listening.getsockname()[1]
    found = [f"http://{LOOPBACK}:{port}/"]
    if shared:
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
        ):
            probe.connect(
                ("192.0.2.1", 9)
            )  # sends nothing; tells which address leads to the network
            found.append(f"http://{probe.getsockname()[0]}:{port}/")
    return found


def serve(space: Workspace, listening: socket.socket) -> None:
    """Serves until Ctrl-C."""
    config = uvicorn.Config(
        application(space), log_level="warning", access_log=False, timeout_graceful_shutdown=2,
        server_header=False,
    )  # fmt: skip
    with contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises again when it has shut down
        uvicorn.Server(config).run(sockets=[listening])
