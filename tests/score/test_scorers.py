"""Both scorers against transformers' own class, one conversation after the other."""

import asyncio

import pytest

from music_ray.chat import ChatFormat
from music_ray.engines.base import RequestError
from music_ray.errors import InputError
from music_ray.score.model import open_model
from music_ray.score.scorers import HuggingFaceScorer, PackedScorer, VllmScorer, make_scorer
from music_ray.score.settings import scoring_config
from tests.score.conftest import NUM_POSITIONS, make_conversations

TOLERANCE = 1e-4


def config_of(folder, engine, *words):
    words = [f"score.engine={engine}", "engine.kv_cache_gib=0.1", "engine.enforce_eager=true", *words]
    return scoring_config(open_model(str(folder)), "out", words)


def score_all(scorer, conversations):
    async def ask():
        return await asyncio.gather(*(scorer.score(ids) for ids in conversations))

    return asyncio.run(ask())


def differences(found, expected):
    return [abs(one.score - other) / max(1.0, abs(other)) for one, other in zip(found, expected, strict=True)]


def test_the_conversations_tell_a_wrong_model(reward_folder, plain_rewards):
    """A test of the tests: rewards are spread, no probabilities, and soft-caps and window change them."""
    import torch
    from transformers import AutoModelForSequenceClassification

    conversations = make_conversations(12)
    rewards = plain_rewards(conversations)
    assert max(rewards) - min(rewards) > 0.1 and any(not 0 <= one <= 1 for one in rewards)
    chat = ChatFormat.load(str(reward_folder))
    for change in ({"attn_logit_softcapping": None}, {"sliding_window": 4096}):
        wrong = AutoModelForSequenceClassification.from_pretrained(
            reward_folder, attn_implementation="eager", **change
        ).eval()
        with torch.inference_mode():
            ids = torch.tensor([chat.conversation_ids(conversations[5])])
            assert abs(wrong(input_ids=ids).logits[0, 0].item() - rewards[5]) > 10 * TOLERANCE


def test_packs_give_the_plain_rewards_in_their_order(reward_folder, plain_rewards):
    scorer = make_scorer(config_of(reward_folder, "packed", "score.pack_tokens=200"))
    assert isinstance(scorer, PackedScorer) and scorer.describe().startswith("transformers ")
    chat = ChatFormat.load(str(reward_folder))
    conversations = make_conversations(40)
    ids = [chat.conversation_ids(one) for one in conversations]
    assert max(differences(score_all(scorer, ids), plain_rewards(conversations))) < 1e-5


def test_packs_are_refused_on_gpus(reward_folder):
    with pytest.raises(InputError, match=r"^score.engine=packed computes on the CPU: leave engine.gpus_per_"):
        make_scorer(config_of(reward_folder, "packed", "engine.gpus_per_engine=1"))


def test_a_model_with_an_attention_of_its_own_is_refused(reward_folder, monkeypatch):
    """It would mix the conversations of a pack."""
    monkeypatch.setattr(PackedScorer, "_attention", "eager")
    said = r"^score.engine=packed can't score a Gemma2ForSequenceClassification: beside another conversation"
    with pytest.raises(InputError, match=said):
        make_scorer(config_of(reward_folder, "packed"))


def test_huggingface_in_batches_gives_the_plain_rewards_in_their_order(reward_folder, plain_rewards):
    scorer = make_scorer(config_of(reward_folder, "huggingface", "score.batch_size=3"))
    assert isinstance(scorer, HuggingFaceScorer) and scorer.describe().startswith("transformers ")
    chat = ChatFormat.load(str(reward_folder))
    conversations = make_conversations(40)  # more than one round of the worker
    ids = [chat.conversation_ids(one) for one in conversations]
    expected = plain_rewards(conversations)
    assert max(differences(score_all(scorer, ids), expected)) < 1e-5
    assert max(differences(score_all(scorer, ids[:2]), expected[:2])) < 1e-5  # on another event loop


@pytest.fixture(scope="session")
def vllm_scorer(reward_folder):
    """Real vLLM in this process, started once."""
    scorer = make_scorer(config_of(reward_folder, "vllm"))
    assert isinstance(scorer, VllmScorer)
    yield scorer
    scorer.close()


@pytest.mark.slow
def test_vllm_gives_the_plain_rewards(reward_folder, plain_rewards, vllm_scorer):
    assert vllm_scorer.describe().startswith("vllm ")
    chat = ChatFormat.load(str(reward_folder))
    conversations = make_conversations(60)
    ids = [chat.conversation_ids(one) for one in conversations]
    assert max(len(one) for one in ids) > 64  # far longer than the window
    found = score_all(vllm_scorer, ids)
    assert max(differences(found, plain_rewards(conversations))) < TOLERANCE
    assert sum(one.cached_tokens for one in found) > 0, "neighbours begin alike"
    again = score_all(vllm_scorer, ids)  # most of it from the cache
    assert sum(one.cached_tokens for one in again) > sum(one.cached_tokens for one in found)
    assert max(differences(again, plain_rewards(conversations))) < TOLERANCE


@pytest.mark.slow
def test_vllm_refuses_one_conversation_and_goes_on(reward_folder, plain_rewards, vllm_scorer):
    chat = ChatFormat.load(str(reward_folder))
    (conversation,) = make_conversations(1)

    async def ask():
        asked = [[5] * (NUM_POSITIONS + 1), chat.conversation_ids(conversation), [10**9]]
        return await asyncio.gather(*(vllm_scorer.score(one) for one in asked), return_exceptions=True)

    refused, good, unknown = asyncio.run(ask())
    assert isinstance(refused, RequestError) and isinstance(unknown, RequestError)
    assert max(differences([good], plain_rewards([conversation]))) < TOLERANCE


@pytest.mark.slow
def test_a_conversation_of_the_longest_length_is_scored(reward_folder, vllm_scorer):
    import torch
    from transformers import AutoModelForSequenceClassification

    ids = [1, *(6 + (7 * k) % 18 for k in range(NUM_POSITIONS - 2)), 4]
    assert len(ids) == NUM_POSITIONS
    model = AutoModelForSequenceClassification.from_pretrained(reward_folder, attn_implementation="eager")
    with torch.inference_mode():
        expected = model.eval()(input_ids=torch.tensor([ids])).logits[0, 0].item()
    assert max(differences(score_all(vllm_scorer, [ids]), [expected])) < TOLERANCE
