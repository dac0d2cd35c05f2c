"""Answers that are given before a request's body is read to its end, as refusals are, reach their client.

A connection that is closed while bytes of the body are on their way is reset by the system, and a client
whose connection is reset may never read the answer (RFC 9112, section 9.6). So the answer is sent at once,
and the connection stays open until the rest of the body has come and was dropped, within bounds.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from anyio import move_on_after

_MOST_S = 60.0  # that the rest of a body may take
_MOST_WAIT_S = 5.0  # without a byte of it
_Message = MutableMapping[str, Any]
_Send = Callable[[_Message], Awaitable[None]]


class WithWholeBody:
    """An ASGI application whose answers end when the request's body has come, or a bound is passed."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: _Message, receive: Any, send: _Send) -> None:
        if scope["type"] == "http" and _has_body(scope):
            exchange = _Exchange(receive, send, waits=b"expect" in dict(scope["headers"]))
            receive, send = exchange.receive, exchange.send
        await self._app(scope, receive, send)


def _has_body(scope: _Message) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


class _Exchange:
    """One request and its answer. `waits`: the client sends its body when it is asked to go on, which the
    first `receive` does."""

    def __init__(self, receive: Any, send: _Send, waits: bool) -> None:
        self._receive, self._send, self._comes = receive, send, not waits

    async def receive(self) -> _Message:
        """The next part of the body."""
        message: _Message = await self._receive()
        self._comes = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message: _Message) -> None:
        """Sends a part of the answer; before the answer ends the rest of the body is dropped."""
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not (last and self._comes):
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        await self._drop()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drop(self) -> None:
        try:
            with move_on_after(_MOST_S):
                while self._comes:
                    with move_on_after(_MOST_WAIT_S) as waited:
                        await self.receive()
                    if waited.cancelled_caught:
                        return
        except CancelledError:  # Ctrl-C: the answer was sent already
            return
