"""The gate before vLLM's server, as a server would call it."""

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from music_ray.errors import ConfigError
from music_ray.score.gate import TOKEN_VARIABLE, RequireToken
from music_ray.score.token import serving_token

TOKEN = "a-token-of-some-length"


async def inner(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def ask(path: str, *headers: tuple[bytes, bytes], kind: str = "http") -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": kind, "path": path, "method": "POST", "headers": list(headers)}
    asyncio.run(RequireToken(inner)(scope, None, send))  # type: ignore[arg-type]
    return sent


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)


@pytest.mark.parametrize(
    "path", ["/classify", "/pooling", "/v1/models", "/metrics", "/", "/health/", "//health"]
)
def test_every_path_needs_the_token(token: None, path: str) -> None:
    assert [one.get("status") for one in ask(path)] == [401, None]
    assert ask(path, (b"authorization", f"Bearer {TOKEN}".encode()))[1]["body"] == b"inside"


@pytest.mark.parametrize(
    "header",
    [
        b"Bearer",
        b"Bearer ",
        b"Bearer wrong",
        b"Bearer \xff\xfe",
        TOKEN.encode(),
        f"Basic {TOKEN}".encode(),
        f"Bearer {TOKEN} ".encode(),
        f"Bearer  {TOKEN}".encode(),
        f"Bearer {TOKEN[:-1]}".encode(),
    ],
)
def test_almost_the_token_is_not_the_token(token: None, header: bytes) -> None:
    answer = ask("/classify", (b"authorization", header))
    assert answer[0]["status"] == 401 and (b"www-authenticate", b"Bearer") in answer[0]["headers"]
    assert TOKEN.encode() not in answer[1]["body"]


def test_two_headers_are_none(token: None) -> None:
    right = (b"authorization", f"bearer {TOKEN}".encode())
    assert ask("/classify", right)[0]["status"] == 200  # the scheme's case does not matter
    assert ask("/classify", (b"authorization", b"Bearer x"), right)[0]["status"] == 401


def test_health_is_open_and_sockets_are_not(token: None) -> None:
    assert ask("/health")[1]["body"] == b"inside"
    assert ask("/v1/realtime", kind="websocket") == [{"type": "websocket.close", "code": 1008}]
    assert ask("", kind="lifespan")[1]["body"] == b"inside"


def test_without_a_token_there_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", None):
        monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
        if value is not None:
            monkeypatch.setenv(TOKEN_VARIABLE, value)
        with pytest.raises(RuntimeError, match="open to everyone"):
            RequireToken(inner)


def test_a_made_up_token_is_in_a_file_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    monkeypatch.setenv("MUSIC_RAY_CACHE", str(tmp_path / "cache"))
    before = os.umask(0)
    try:
        with serving_token(8123) as (made, path):
            assert path == tmp_path / "cache" / "serve-8123.token" and path.read_text() == made
            assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(made) >= 40
            with serving_token(8124) as (other, _):
                assert other != made
        assert not path.exists()
        target = tmp_path / "elsewhere"
        path.symlink_to(target)  # what a killed server left, or what somebody else put there
        with serving_token(8123):
            assert path.is_file() and not path.is_symlink()
        assert not target.exists()
    finally:
        os.umask(before)


def test_the_environments_token_is_used_and_not_shown_in_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with serving_token(8123) as found:
        assert found == (TOKEN, None)
    for bad in (
        "",
        "fifteen-letters",
        "with a space in it",
        "line\nbreak-in-the-token",
        "ümlaut-in-the-token",
    ):
        monkeypatch.setenv(TOKEN_VARIABLE, bad)
        with (
            pytest.raises(ConfigError, match="must be 16 or more visible ASCII") as caught,
            serving_token(8123),
        ):
            pass
        assert not bad or bad not in str(caught.value)
