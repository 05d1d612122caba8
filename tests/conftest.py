"""What several test folders share."""

import pytest
from hypothesis import settings

# Machines that run these tests are shared and noisy: a slow example is no failure.
settings.register_profile("noisy", deadline=None)
settings.load_profile("noisy")


@pytest.fixture(scope="session")
def demo_engine():
    """Real vLLM with the demo model in this process: started once, used by all tests that need it."""
    from music_ray.config import EngineConfig
    from music_ray.engines.vllm_local import VllmEngine

    engine = VllmEngine(
        EngineConfig(
            model="demo:smollm2-135m-instruct", max_model_len=512, max_num_seqs=16, enforce_eager=True
        )
    )
    yield engine
    engine.close()
