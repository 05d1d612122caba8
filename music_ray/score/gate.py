"""What stands before vLLM's server: nobody gets in without the token.

vLLM's own --api-key guards /v1 and its like alone; /classify and /pooling stay open. vLLM loads this class
by its name (--middleware), in its own process: only the standard library is imported here.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

TOKEN_VARIABLE = "MUSIC_RAY_SERVE_TOKEN"  # noqa: S105  (the name of it)
_OPEN = ("/health",)
"""Paths that anyone on the machine may ask: they say whether the server is up."""

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[Any]]
_Send = Callable[[dict[str, Any]], Awaitable[None]]


class RequireToken:
    """ASGI middleware: a request needs `Authorization: Bearer TOKEN`.

    Raises:
        RuntimeError: the environment has no token, so that a server without one never starts.
    """

    def __init__(self, app: Callable[[_Scope, _Receive, _Send], Awaitable[None]]) -> None:
        token = os.environ.get(TOKEN_VARIABLE, "")
        if not token:
            raise RuntimeError(f"{TOKEN_VARIABLE} is empty: the server would be open to everyone")
        self._app = app
        self._digest = _digest(token.encode())

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """One connection."""
        if scope["type"] not in ("http", "websocket") or scope["path"] in _OPEN or self._knows(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send(
                {
                    "type": "http.response.start",
                    "status": 401,
                    "headers": [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")],
                }
            )
            body = b'{"error": "send the header Authorization: Bearer TOKEN"}'
            await send({"type": "http.response.body", "body": body})

    def _knows(self, scope: _Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(_digest(token), self._digest)


def _digest(token: bytes) -> bytes:
    """Of equal length whatever the token's: comparing takes the same time for all of them."""
    return hashlib.sha256(token).digest()
