"""What a completion costs at an endpoint's prices. Budgets are kept elsewhere."""

from __future__ import annotations

from music_ray.config import EndpointConfig
from music_ray.engines.base import Completion


def cost(completion: Completion, endpoint: EndpointConfig) -> float:
    """The price of one completion in costs.currency; 0 where no prices are set."""
    cached_price = endpoint.cached_price_per_million
    if cached_price is None:
        cached_price = endpoint.input_price_per_million
    fresh = completion.prompt_tokens - completion.cached_tokens
    return (
        fresh * endpoint.input_price_per_million
        + completion.cached_tokens * cached_price
        + completion.completion_tokens * endpoint.output_price_per_million
    ) / 1_000_000
