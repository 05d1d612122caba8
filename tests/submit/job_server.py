"""A small real HTTP server that speaks Ray's job API, with jobs whose lives the test writes.

What cannot be had from a real cluster in a second: connections that break, heads that come back empty.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TOKEN = "a-token-of-the-tests"
COMMAND = "python -m music_ray run x.yaml"
VERSION = {"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""}
DRIVER = {"type": "DRIVER", "job_id": "01000000", "status": "RUNNING", "entrypoint": "python"}


@dataclass
class ServedJob:
    """A job as the server tells of it; the test changes it."""

    id: str
    request: dict[str, Any]
    state: str = "RUNNING"
    log: str = ""
    exit_code: int | None = None
    error_type: str | None = None
    message: str = ""
    started: int = 1_700_000_000_000

    def end(self, state: str, exit_code: int | None = None, error_type: str | None = None) -> None:
        """The job's end."""
        self.exit_code, self.error_type, self.state = exit_code, error_type, state

    def told(self) -> dict[str, Any]:
        """Ray's JobDetails."""
        return {
            "type": "SUBMISSION",
            "submission_id": self.id,
            "status": self.state,
            "entrypoint": self.request["entrypoint"],
            "message": self.message,
            "error_type": self.error_type,
            "start_time": self.started,
            "metadata": self.request.get("metadata"),
            "runtime_env": self.request.get("runtime_env"),
            "driver_exit_code": self.exit_code,
        }


@dataclass
class JobServer:
    """The server, on a port of its own that it keeps when it is stopped and started again."""

    token: str | None = None
    port: int = 0
    jobs: dict[str, ServedJob] = field(default_factory=dict)
    uploads: list[bytes] = field(default_factory=list)
    connections: int = 0
    """How often a log was asked for."""
    refuse_submissions: int = 0
    """So many submissions are answered with 500, as a head does that has just started."""
    stop_takes_effect: bool = True
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _runner: web.AppRunner | None = None
    _sockets: set[web.WebSocketResponse] = field(default_factory=set)

    def __post_init__(self) -> None:
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.start()

    @property
    def address(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listens."""
        self._run(self._start())

    def stop(self) -> None:
        """Ends all connections and listens no more."""
        self._run(self._stop())

    def close(self) -> None:
        """The end of it."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def break_logs(self) -> None:
        """Ends the connections that logs are read through, and no others."""
        self._run(self._break())

    def add(self, job_id: str, run: str | None, entrypoint: str = COMMAND, **life: Any) -> ServedJob:
        """A job that somebody has submitted before."""
        metadata = {} if run is None else {"music_ray_run": run}
        self.jobs[job_id] = ServedJob(job_id, {"entrypoint": entrypoint, "metadata": metadata}, **life)
        return self.jobs[job_id]

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._let_in], client_max_size=2**27)
        app.add_routes(
            [
                web.get("/api/version", self._version),
                web.get("/api/packages/{protocol}/{name}", self._no_package),
                web.put("/api/packages/{protocol}/{name}", self._upload),
                web.post("/api/jobs/", self._submit),
                web.get("/api/jobs/", self._list),
                web.get("/api/jobs/{id}", self._tell),
                web.post("/api/jobs/{id}/stop", self._stop_job),
                web.get("/api/jobs/{id}/logs/tail", self._tail),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._break()
            await self._runner.cleanup()
            self._runner = None

    async def _break(self) -> None:
        for socket in list(self._sockets):
            transport = socket._req.transport if socket._req else None
            if transport is not None:
                transport.abort()

    @web.middleware
    async def _let_in(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            return web.Response(status=401, text="Unauthorized: Missing authentication token")
        return await handler(request)

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response(VERSION)

    async def _no_package(self, request: web.Request) -> web.Response:
        return web.Response(status=404, text="does not exist")

    async def _upload(self, request: web.Request) -> web.Response:
        self.uploads.append(await request.read())
        return web.Response()

    async def _submit(self, request: web.Request) -> web.Response:
        if self.refuse_submissions:
            self.refuse_submissions -= 1
            return web.Response(status=500, text="No available agent to submit job, please try again later.")
        asked = await request.json()
        job_id = asked["submission_id"]
        if job_id in self.jobs:
            text = f"Traceback\nValueError: Job with submission_id {job_id} already exists. Use another."
            return web.Response(status=500, text=text)
        self.jobs[job_id] = ServedJob(job_id, asked)
        return web.json_response({"job_id": job_id, "submission_id": job_id})

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response([*(job.told() for job in self.jobs.values()), DRIVER])

    async def _tell(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return web.Response(status=404, text=f"Job {request.match_info['id']} does not exist")
        return web.json_response(job.told())

    async def _stop_job(self, request: web.Request) -> web.Response:
        if self.stop_takes_effect:
            self.jobs[request.match_info["id"]].end("STOPPED")
        return web.json_response({"stopped": True})

    async def _tail(self, request: web.Request) -> web.StreamResponse:
        """The log in pieces of odd sizes, until the job has ended and all of it was sent."""
        self.connections += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.add(socket)
        job, sent = self.jobs[request.match_info["id"]], 0
        try:
            while True:
                ended = job.state not in ("PENDING", "RUNNING")
                while sent < len(job.log):
                    piece = job.log[sent : sent + 7]
                    await socket.send_str(piece)
                    sent += len(piece)
                if ended:
                    return socket
                await asyncio.sleep(0.02)
        except ConnectionError:
            return socket
        finally:
            self._sockets.discard(socket)
