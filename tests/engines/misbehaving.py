"""A small OpenAI-compatible server on 127.0.0.1 that misbehaves as a test tells it to.

It answers well by itself; `server.script` holds what the next requests meet instead, in their order.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]
USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 16}}


@dataclass
class Server:
    """What a test sees of the server."""

    base_url: str = ""
    script: deque[Behaviour] = field(default_factory=deque)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """JSON bodies of all requests, in the order of their arrival."""
    paths: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    """Authorization headers."""
    capacity: int | None = None
    """Beyond so many requests at once: 429."""
    latency_seconds: float = 0.0
    together: int = 0
    """No answer before so many requests have been in at once."""
    running: int = 0
    most_running: int = 0
    refusals: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path)
        self.keys.append(request.headers.get("Authorization", ""))
        self.bodies.append(await request.json())
        if self.script:
            return await self.script.popleft()(request)
        if self.capacity is not None and self.running >= self.capacity:
            self.refusals += 1
            return web.json_response({"error": {"message": "too many requests"}}, status=429)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.latency_seconds)
            while self.most_running < self.together:
                await asyncio.sleep(0.01)
            return await well(request)
        finally:
            self.running -= 1


def completion(path: str, text: str = "Hello.", **other: Any) -> dict[str, Any]:
    """A body as the API has it; `other` replaces parts of it, None removes them."""
    chat = path.endswith("/chat/completions")
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    body = {
        "id": "c1",
        "object": "chat.completion" if chat else "text_completion",
        "created": 0,
        "model": "model-2024-08-06",
        "system_fingerprint": "fp_1",
        "usage": USAGE,
    }
    choice |= {name: other.pop(name) for name in list(other) if name in ("finish_reason", "message")}
    body |= {"choices": [choice]} | other
    return {name: value for name, value in body.items() if value is not None}


async def well(request: web.Request) -> web.StreamResponse:
    """An answer as it should be."""
    return web.json_response(completion(request.path))


def answering(**other: Any) -> Behaviour:
    """An answer of which some parts are otherwise."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(completion(request.path, **other))

    return answer


def refusing(
    status: int, message: str = "no", headers: dict[str, str] | None = None, **error: Any
) -> Behaviour:
    """An error with the API's error body."""

    async def refuse(request: web.Request) -> web.StreamResponse:
        body = {"error": {"message": message, "type": "some_error", **error}}
        return web.json_response(body, status=status, headers=headers)

    return refuse


async def hang(request: web.Request) -> web.StreamResponse:
    """No answer at all."""
    await asyncio.sleep(3600)
    raise AssertionError


async def cut(request: web.Request) -> web.StreamResponse:
    """The connection breaks in the middle of the body."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(json.dumps(completion(request.path)).encode()[:60])
    assert request.transport is not None
    request.transport.abort()
    return response


async def garbage(request: web.Request) -> web.StreamResponse:
    """A body that calls itself JSON and is not."""
    return web.Response(text='{"choices": [{"mess', content_type="application/json")


async def page(request: web.Request) -> web.StreamResponse:
    """What a captive portal says, with status 200."""
    return web.Response(text="<html>Welcome</html>", content_type="text/html")


@contextmanager
def serving() -> Iterator[Server]:
    """The server in a thread of its own, on a free port; it is gone when the block ends."""
    server = Server()
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    over = asyncio.Event()

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", server.handle)
        app.router.add_post("/v1/completions", server.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        server.base_url = f"http://127.0.0.1:{port}/v1"
        ready.set()
        await over.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(timeout=10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(timeout=10)
        assert not thread.is_alive()
        loop.close()
