"""Configuration of an OpenAI-compatible endpoint: where it is, how hard it is asked, what it costs.

The key itself never stands in a configuration: `api_key_env` names the environment variable that
holds it.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from music_ray.config.base import FREE, Section


class EndpointConfig(Section):
    """An OpenAI-compatible endpoint; `engine.model` is the model's name there."""

    base_url: str = Field(json_schema_extra=FREE)
    """Where the API begins, e.g. https://api.openai.com/v1 or http://127.0.0.1:8000/v1. User names,
    passwords and query strings are refused: a configuration is recorded."""

    api_key_env: str = Field(default="OPENAI_API_KEY", json_schema_extra=FREE)
    """Name of the environment variable that holds the key, never the key. An endpoint on this machine
    may go without."""

    tokenizer: str | None = Field(default=None, min_length=1)
    """user.mode=template: the Hugging Face folder or id whose chat template is continued after the user
    header (at engine.revision). When empty engine.model, which then must be one."""

    max_concurrency: int = Field(default=64, ge=1, json_schema_extra=FREE)
    """Most requests at once from one engine actor. Fewer while the endpoint answers 429 or 503."""

    timeout_seconds: float = Field(default=300.0, gt=0.0, json_schema_extra=FREE)
    """Longest time that one request may take, from connecting to the last byte."""

    max_attempts: int = Field(default=8, ge=1, json_schema_extra=FREE)
    """Attempts of one request before its row ends with the reason rate_limited, endpoint_timeout,
    endpoint_unavailable or endpoint_malformed. The waits between them grow to a minute."""

    input_price_per_million: float = Field(default=0.0, ge=0.0, json_schema_extra=FREE)
    """Price of a million prompt tokens in costs.currency. 0 for a server of your own."""

    cached_price_per_million: float | None = Field(default=None, ge=0.0, json_schema_extra=FREE)
    """Price of a million prompt tokens that the endpoint had in its cache; the input price when empty."""

    output_price_per_million: float = Field(default=0.0, ge=0.0, json_schema_extra=FREE)
    """Price of a million generated tokens."""

    @field_validator("base_url")
    @classmethod
    def _without_secrets(cls, url: str) -> str:
        # These refusals do not repeat the URL: it may hold a password.
        if "@" in url:
            raise ValueError(
                "the URL holds a user name or password: remove it, and name the environment variable of the "
                "key in api_key_env"
            )
        if "?" in url or "#" in url:
            raise ValueError("the URL holds a query string: end it with the path, e.g. https://HOST/v1")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no URL of an API: give one such as https://api.openai.com/v1")
        return url.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _a_name_and_no_key(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):  # a key would be shown if the message repeated it
            raise ValueError(
                "this is not the name of an environment variable (capital letters, digits and '_'): name the "
                "variable that holds the key, not the key"
            )
        return name

    @property
    def host(self) -> str:
        """Host and port, for messages and rows."""
        return urlsplit(self.base_url).netloc

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is on this machine."""
        name = urlsplit(self.base_url).hostname or ""
        return name in ("localhost", "::1") or name.startswith("127.")
