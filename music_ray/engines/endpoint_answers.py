"""What an endpoint's answers mean: a completion, or which of our errors.

Pure functions over JSON bodies, status codes and the client's exceptions; nothing here sends anything.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from music_ray.engines.base import Completion, EndpointFailedError, PromptTooLongError, RequestError
from music_ray.errors import InputError

if TYPE_CHECKING:
    from openai import APIError

LONGEST_PAUSE_SECONDS = 3600.0
"""An endpoint that asks for more patience than this is asked again after it."""

_RETRIED = {408, 409, 425, 429}
_TOO_MUCH = {429, 503, 529}
"""Statuses that mean: fewer requests at once. 529 is how some say 'overloaded'."""
_TOO_LONG = re.compile(
    r"context[ _](length|window|size)|maximum context|prompt is too long|reduce the length"
    r"|exceeds the maximum (number of )?(input )?tokens",
    re.IGNORECASE,
)
_DETAIL_CHARACTERS = 400


class RetryableError(EndpointFailedError):
    """It may go better in a moment."""

    def __init__(
        self, message: str, reason: str, *, pause_seconds: float = 0.0, is_too_much: bool = False
    ) -> None:
        super().__init__(message, reason)
        self.pause_seconds = pause_seconds
        """How long the endpoint asks us to wait (Retry-After)."""
        self.is_too_much = is_too_much
        """The endpoint wants fewer requests at once."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion and who says to have written it."""

    completion: Completion
    model: str
    fingerprint: str
    """The endpoint's system_fingerprint, if it tells one."""


def read_answer(body: Any) -> Answer:
    """The answer in a JSON body of /chat/completions or /completions.

    Raises:
        RetryableError: no such body (endpoint_malformed).
        EndpointFailedError: it does not say how many tokens it took (usage_missing).
        RequestError: the endpoint's filter withheld the text (content_filter).
    """
    try:
        choice = body["choices"][0]
        message = choice["message"]["content"] if "message" in choice else choice["text"]
        text, finish_reason = message or "", choice["finish_reason"]
        model, fingerprint = body.get("model") or "", body.get("system_fingerprint") or ""
        if not (isinstance(text, str) and isinstance(model, str) and isinstance(fingerprint, str)):
            raise TypeError("a text is not a string")
    except (TypeError, KeyError, IndexError, AttributeError):
        raise RetryableError(
            f"the answer is no completion: {_shorten(str(body))}", "endpoint_malformed"
        ) from None
    if finish_reason == "content_filter":
        raise RequestError("the endpoint's content filter withheld the text", "content_filter")
    if finish_reason not in ("stop", "length"):
        raise RetryableError(f"the text ended for the reason {finish_reason!r}", "endpoint_malformed")
    # Half of a character that JSON may hold (\\ud83d) fits into no file and no further request.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return Answer(_with_usage(text, finish_reason, body.get("usage")), model, fingerprint)


def _with_usage(text: str, finish_reason: str, usage: Any) -> Completion:
    usage = usage if isinstance(usage, dict) else {}
    prompt, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not (isinstance(prompt, int) and isinstance(written, int)):
        raise EndpointFailedError(
            "the answer has no `usage` with prompt_tokens and completion_tokens: what it cost is not known",
            "usage_missing",
        )
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Completion(
        text=text,
        finish_reason=finish_reason,
        prompt_tokens=prompt,
        cached_tokens=cached if isinstance(cached, int) else 0,
        completion_tokens=written,
    )


def meaning(error: APIError, *, base_url: str, model: str, api_key_env: str, key: str) -> Exception:
    """Which of our errors an exception of the client is; the key stands in none of them.

    Returns:
        RetryableError for what is worth another attempt, PromptTooLongError and RequestError for a
        request that will never be answered, InputError for what the user must mend.
    """
    from openai import APIStatusError, APITimeoutError

    if isinstance(error, APITimeoutError):
        return RetryableError("no answer in time", "endpoint_timeout")
    if not isinstance(error, APIStatusError):
        cause = error.__cause__ or error
        detail = _shorten(f"{type(cause).__name__}: {cause}".replace(key, "***"))
        return RetryableError(f"no connection to {base_url}, or it broke ({detail})", "endpoint_unavailable")
    status = error.status_code
    said = f"{status}: {_shorten(_said(error).replace(key, '***'))}"
    if status in (401, 403):
        return InputError(
            f"{base_url} refuses the key in the environment variable {api_key_env} for {model} ({said}): put "
            "a valid one there, or name another variable in endpoint.api_key_env"
        )
    if status == 402 or error.code == "insufficient_quota":
        return InputError(
            f"{base_url} wants money for the key in {api_key_env} ({said}): pay, and the same command goes on"
        )
    if status in (404, 405):
        return InputError(
            f"{base_url} has no model {model}, or is not where an API begins ({said}): correct the engine's "
            "model or its endpoint.base_url"
        )
    if status in _RETRIED or status >= 500:
        reason = "rate_limited" if status == 429 else "endpoint_unavailable"
        pause = retry_after(error.response.headers.get("retry-after"), time.time())
        return RetryableError(said, reason, pause_seconds=pause, is_too_much=status in _TOO_MUCH)
    if error.code == "context_length_exceeded" or _TOO_LONG.search(said):
        return PromptTooLongError(said)
    return RequestError(said, "content_filter" if error.code == "content_filter" else "request_refused")


def retry_after(header: str | None, now: float) -> float:
    """Seconds that a Retry-After header asks for: a number or an HTTP date; 0 for none or nonsense.

    Args:
        now: seconds since the epoch.
    """
    if header is None:
        return 0.0
    try:
        if re.fullmatch(r"\s*\d+(\.\d*)?\s*", header):
            seconds = float(header)
        else:
            seconds = parsedate_to_datetime(header).timestamp() - now
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_PAUSE_SECONDS)


def _said(error: Any) -> str:
    """The endpoint's own message."""
    body = error.body
    said = body.get("message") if isinstance(body, dict) else body
    return said if isinstance(said, str) and said else error.message


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _DETAIL_CHARACTERS else f"{text[:_DETAIL_CHARACTERS]}…"
