"""Any OpenAI-compatible endpoint, by the official client: retries, adaptive concurrency, accounts.

The client's own retries are off: ours (tenacity) honour Retry-After, count every attempt, and give
their place to another request while they wait. This module knows when to send what; what an answer
means is endpoint_answers' business, and how many requests run at once is concurrency's.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from music_ray.chat import ChatFormat
from music_ray.config import EndpointConfig, EngineConfig, SamplingConfig
from music_ray.engines.base import Completion, EndpointFailedError, Prompt, PromptTooLongError, RequestError
from music_ray.engines.concurrency import AdaptiveLimit, Gate
from music_ray.engines.endpoint_answers import Answer, RetryableError, meaning, read_answer
from music_ray.engines.prices import cost
from music_ray.errors import InputError
from music_ray.models import resolve_model

if TYPE_CHECKING:
    from openai import AsyncOpenAI

FIRST_WAIT_SECONDS = 1.0
"""Wait before the second attempt; it doubles with each further one …"""
LONGEST_WAIT_SECONDS = 60.0
"""… up to this, unless the endpoint asks for more (Retry-After)."""
_PROBE_ATTEMPTS = 3
_PROBE = SamplingConfig(temperature=1.0, top_p=1.0, max_tokens=16)  # what every model accepts
_NO_KEY = "no-key"  # the client wants one; a server on this machine that was given none ignores it


@dataclass
class Accounts:
    """What an engine has asked for since it was made; it only grows."""

    requests: int = 0
    """HTTP requests, repeated ones included."""
    retries: Counter[str] = field(default_factory=Counter)
    """Repeated requests by the reason of the failure before."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    spent: float = 0.0
    """In costs.currency, by the endpoint's prices; an attempt that failed is taken for free."""

    def add(self, completion: Completion, endpoint: EndpointConfig) -> None:
        """Takes note of a completion."""
        self.prompt_tokens += completion.prompt_tokens
        self.cached_tokens += completion.cached_tokens
        self.completion_tokens += completion.completion_tokens
        self.spent += cost(completion, endpoint)


class EndpointEngine:
    """A model behind an endpoint. When the constructor returns, it has answered a first small request.

    Args:
        config: of kind endpoint.
        first_wait_seconds: see FIRST_WAIT_SECONDS.

    Raises:
        InputError: no key in the environment, or the endpoint does not answer.
    """

    def __init__(self, config: EngineConfig, *, first_wait_seconds: float = FIRST_WAIT_SECONDS) -> None:
        if config.endpoint is None:
            raise ValueError("an endpoint engine needs engine.endpoint")
        self.config, self.endpoint = config, config.endpoint
        self.accounts = Accounts()
        self.gate = Gate(AdaptiveLimit(self.endpoint.max_concurrency))
        self._key = api_key(self.endpoint)
        self._wait = wait_exponential(first_wait_seconds, LONGEST_WAIT_SECONDS) + wait_random(
            0, first_wait_seconds
        )
        self._limit_name = "max_tokens"
        self._chat: ChatFormat | None = None
        self._model, self._fingerprint = config.model, ""
        self._client: AsyncOpenAI | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        import openai  # noqa: F401  (seconds the first time, which the first request's clock must not count)

        _run_apart(self._probe())

    def describe(self) -> dict[str, str]:
        """Recorded in every row: the model's name as the endpoint itself gives it."""
        return {
            "engine": f"endpoint {self.endpoint.host}",
            "model": self._model,
            "model_revision": self._fingerprint or self.config.revision or "",
        }

    async def generate(self, prompt: Prompt, sampling: SamplingConfig, seed: int) -> Completion:
        """See Engine.generate.

        Raises:
            EndpointFailedError: no usable answer after endpoint.max_attempts.
            InputError: the endpoint refuses the key or knows no such model; the run can't go on.
        """
        if prompt.speaker == "user":
            return await self._ask("completions", self._template_fields(prompt, sampling, seed))
        fields = self._fields(sampling, seed) | {"messages": [dict(one) for one in prompt.messages]}
        return await self._ask("chat", fields)

    def prepare_template(self) -> None:
        """Makes ready for prompts of the speaker user, which continue the bare chat template.

        Raises:
            InputError: no tokenizer, or the endpoint takes no token ids.
        """
        try:
            self._chat = ChatFormat.load(resolve_model(self.config.tokenizer), self.config.revision)
        except InputError as error:
            raise InputError(
                f"user.mode=template continues the chat template of the endpoint's model: {error}\n"
                "name its Hugging Face folder or id in endpoint.tokenizer, or set user.mode=prompted"
            ) from None
        self.check_template_route()

    def check_template_route(self) -> None:
        """Asks /completions to continue a few token ids.

        Raises:
            InputError: it does not.
        """
        fields = self._fields(_PROBE, seed=0) | {"prompt": [1, 2, 3], "max_tokens": 1}
        _run_apart(self._probe_template(fields))

    def close(self) -> None:
        """Closes the connections."""
        client, loop = self._client, self._loop
        self._client = None
        if client is None or loop is None or loop.is_closed():
            return
        if loop.is_running():
            asyncio.run_coroutine_threadsafe(client.close(), loop)
        else:
            loop.run_until_complete(client.close())

    # -- what is sent ------------------------------------------------------------------------------

    def _fields(self, sampling: SamplingConfig, seed: int) -> dict[str, Any]:
        fields: dict[str, Any] = {"model": self.config.model, "temperature": sampling.temperature}
        if sampling.top_p != 1:  # some endpoints take one of the two only
            fields["top_p"] = sampling.top_p
        if self.config.request_seeds:
            fields["seed"] = seed
        if sampling.repetition_penalty != 1:  # vLLM's server knows it, OpenAI's refuses it
            fields["extra_body"] = {"repetition_penalty": sampling.repetition_penalty}
        return fields | {self._limit_name: sampling.max_tokens}

    def _template_fields(self, prompt: Prompt, sampling: SamplingConfig, seed: int) -> dict[str, Any]:
        if self._chat is None:
            raise ValueError("prepare_template() comes before prompts of the speaker user")
        try:
            token_ids = self._chat.user_prompt_ids(prompt.messages)
        except TemplateError as error:
            raise RequestError(f"the chat template refuses the conversation: {error}") from None
        fields = self._fields(sampling, seed)
        limit = fields.pop(self._limit_name)
        # As the local engine: stop where a turn ends, and keep leaked control tokens for the gate.
        own = {"stop_token_ids": self._chat.end_of_turn_ids, "skip_special_tokens": False}
        extra = fields.get("extra_body", {}) | own
        return fields | {"prompt": token_ids, "max_tokens": limit, "extra_body": extra}

    # -- asking ------------------------------------------------------------------------------------

    async def _ask(self, route: str, fields: dict[str, Any], max_attempts: int | None = None) -> Completion:
        attempts = max_attempts or self.endpoint.max_attempts
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(RetryableError),
            stop=stop_after_attempt(attempts),
            wait=self._seconds_to_wait,
            before_sleep=self._count_retry,
            reraise=True,
        )
        try:
            answer: Answer = await retrying(self._once, route, fields)
        except RetryableError as error:
            raise EndpointFailedError(f"{error} ({attempts} attempts)", error.reason) from None
        self._model, self._fingerprint = answer.model or self.config.model, answer.fingerprint
        self.accounts.add(answer.completion, self.endpoint)
        return answer.completion

    async def _once(self, route: str, fields: dict[str, Any]) -> Answer:
        limit = self.gate.limit
        async with self.gate.place() as begun_at:
            self.accounts.requests += 1
            try:
                async with asyncio.timeout(self.endpoint.timeout_seconds):
                    answer = read_answer(await self._post(route, fields))
            except TimeoutError:
                seconds = self.endpoint.timeout_seconds
                raise RetryableError(f"no answer within {seconds:g} s", "endpoint_timeout") from None
            except RetryableError as error:
                if error.is_too_much:
                    limit.refused(begun_at, error.pause_seconds)
                raise
            limit.answered(begun_at, self.gate.running)
            return answer

    async def _post(self, route: str, fields: dict[str, Any]) -> Any:
        from openai import APIError

        client = self._session()
        resource = client.chat.completions if route == "chat" else client.completions
        try:
            # The raw body: the client's classes would take an answer without usage for one with.
            response = await resource.with_raw_response.create(**fields)
        except APIError as error:
            raise self._meaning(error) from None
        try:
            return json.loads(response.http_response.content)
        except ValueError as error:
            raise RetryableError(f"the answer is no JSON ({error})", "endpoint_malformed") from None

    def _meaning(self, error: Any) -> Exception:
        endpoint = self.endpoint
        return meaning(
            error,
            base_url=endpoint.base_url,
            model=self.config.model,
            api_key_env=endpoint.api_key_env,
            key=self._key,
        )

    def _seconds_to_wait(self, state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        pause = failure.pause_seconds if isinstance(failure, RetryableError) else 0.0
        return max(pause, self._wait(state))

    def _count_retry(self, state: RetryCallState) -> None:
        failure = state.outcome.exception() if state.outcome else None
        if isinstance(failure, RetryableError):
            self.accounts.retries[failure.reason] += 1

    def _session(self) -> AsyncOpenAI:
        """The client, whose connections belong to the running event loop."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = _client(self.endpoint, self._key), loop
        return self._client

    # -- the first requests ------------------------------------------------------------------------

    async def _probe(self) -> None:
        """One small request: is the key good, is the model there, does the answer tell its usage?"""
        messages = [{"role": "user", "content": "Say hello."}]
        try:
            try:
                await self._ask("chat", self._fields(_PROBE, 0) | {"messages": messages}, _PROBE_ATTEMPTS)
            except RequestError as error:
                if "max_completion_tokens" not in str(error):
                    raise
                self._limit_name = "max_completion_tokens"  # OpenAI's newer models know no other name
                await self._ask("chat", self._fields(_PROBE, 0) | {"messages": messages}, _PROBE_ATTEMPTS)
        except (RequestError, PromptTooLongError) as error:
            raise InputError(
                f"{self.endpoint.base_url} did not answer a first small request to {self.config.model}: "
                f"{error}\nstart the server, or correct endpoint.base_url; the same command then goes on"
            ) from None
        finally:
            await self._end_session()

    async def _probe_template(self, fields: dict[str, Any]) -> None:
        try:
            await self._ask("completions", fields, _PROBE_ATTEMPTS)
        except (RequestError, PromptTooLongError, InputError) as error:
            raise InputError(
                f"{self.endpoint.base_url} can't continue a bare chat template, which user.mode=template "
                f"asks of it: /completions with token ids failed ({error})\n"
                "set user.mode=prompted, or serve the model with `vllm serve`"
            ) from None
        finally:
            await self._end_session()

    async def _end_session(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None


def api_key(endpoint: EndpointConfig) -> str:
    """The key, from the environment alone.

    Raises:
        InputError: the variable is not set, or holds what can't be a key.
    """
    name = endpoint.api_key_env
    key = os.environ.get(name, "").strip()
    if not key and endpoint.is_local:
        return _NO_KEY
    if not key:
        raise InputError(
            f"the environment variable {name} is not set: put the key for {endpoint.base_url} there, or name "
            "another variable in endpoint.api_key_env"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(
            f"the environment variable {name} holds signs that no key has: put the key for "
            f"{endpoint.base_url} there"
        )
    return key


def _client(endpoint: EndpointConfig, key: str) -> AsyncOpenAI:
    import httpx2
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    # As many connections as requests: the client's own bound would be a second, hidden limit.
    connections = httpx2.Limits(
        max_connections=endpoint.max_concurrency, max_keepalive_connections=endpoint.max_concurrency
    )
    return AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=key,
        max_retries=0,
        timeout=endpoint.timeout_seconds,
        # A proxy of the environment does not know this machine's own servers.
        http_client=DefaultAsyncHttpxClient(limits=connections, trust_env=not endpoint.is_local),
    )


def _run_apart(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine to its end in a thread of its own: this one may have a running event loop."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, coroutine).result()
