"""What the vLLM engine refuses before vLLM sees it; needs no model."""

import asyncio

import pytest
from jinja2 import TemplateError

from music_ray.config import EngineConfig, SamplingConfig
from music_ray.engines.base import Prompt, RequestError
from music_ray.engines.vllm_local import VllmEngine


class RefusingChat:
    """Stands where a chat format stands whose template does not take a conversation."""

    def reply_prompt_ids(self, messages):
        raise TemplateError("no second system message")


def test_a_conversation_that_the_template_refuses_is_one_request_and_not_the_job():
    engine = object.__new__(VllmEngine)
    engine.config, engine.chat = EngineConfig(), RefusingChat()
    prompt = Prompt([{"role": "user", "content": "a"}])
    with pytest.raises(RequestError, match="template refuses the conversation: no second system message"):
        asyncio.run(engine.generate(prompt, SamplingConfig(), 1))
