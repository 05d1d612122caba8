from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, Gemma2Config, LlamaConfig

from music_ray.chat import ChatFormat
from music_ray.errors import ConfigError, InputError
from music_ray.reward_model import RewardModel, attention_for, load_reward_model, pad_right, score
from tests.reward.conftest import conversation


def test_attention_is_eager_where_logits_are_soft_capped() -> None:
    assert attention_for(Gemma2Config(), "auto") == "eager"
    assert attention_for(LlamaConfig(), "auto") == "sdpa"
    assert attention_for(LlamaConfig(), "eager") == "eager"


def test_sdpa_with_soft_capping_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError) as caught:
        attention_for(Gemma2Config(), "sdpa")
    assert str(caught.value) == (
        "train.attention=sdpa would ignore the model's attn_logit_softcapping (50.0) silently: "
        "use train.attention=eager, or flash_attention_2 on GPUs"
    )


def test_loaded_model_uses_the_attention_it_was_told(gemma2_folder: Path, llama_folder: Path) -> None:
    assert load_reward_model(str(gemma2_folder)).config._attn_implementation == "eager"
    assert load_reward_model(str(llama_folder)).config._attn_implementation == "sdpa"


def test_head_depends_on_its_seed_alone(gemma2_folder: Path) -> None:
    torch.manual_seed(1)
    first = load_reward_model(str(gemma2_folder), head_seed=7).score.weight
    torch.manual_seed(2)
    assert torch.equal(load_reward_model(str(gemma2_folder), head_seed=7).score.weight, first)
    assert not torch.equal(load_reward_model(str(gemma2_folder), head_seed=8).score.weight, first)
    assert first.shape == (1, 40)
    assert 0.1 < first.std().item() < 0.3  # initializer_range is 0.2


def test_a_head_in_the_checkpoint_is_kept(llama_folder: Path, tmp_path: Path) -> None:
    model = load_reward_model(str(llama_folder), head_seed=7)
    model.save_pretrained(tmp_path)
    loaded = load_reward_model(str(tmp_path), head_seed=8, pad_token_id=0)
    assert torch.equal(loaded.score.weight, model.score.weight)


def test_first_layers_with_their_layer_types(gemma2_folder: Path) -> None:
    model = load_reward_model(str(gemma2_folder), num_layers=1)
    assert len(model.model.layers) == model.config.num_hidden_layers == len(model.config.layer_types) == 1
    with pytest.raises(ConfigError, match=r"train\.num_layers \(4\) exceeds the model's 3 layers"):
        load_reward_model(str(gemma2_folder), num_layers=4)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot load the configuration of"):
        load_reward_model(str(tmp_path), pad_token_id=0)


def test_padding_token_never_ends_a_conversation(gemma2_folder: Path) -> None:
    chat = ChatFormat.load(str(gemma2_folder))
    assert chat.conversation_ids(conversation("one", "two"))[-1] != chat.pad_token_id
    # SmolLM2's way: the padding token is also the end-of-sequence token.
    chat.tokenizer.pad_token = "<end_of_turn>"
    assert chat.pad_token_id == chat.tokenizer.unk_token_id


@pytest.mark.parametrize("family", ["gemma2", "llama"])
def test_padded_batches_score_like_single_conversations(
    family: str, gemma2_folder: Path, llama_folder: Path
) -> None:
    folder = gemma2_folder if family == "gemma2" else llama_folder
    chat, model = ChatFormat.load(str(folder)), load_reward_model(str(folder), head_seed=3)
    texts = ["one", "one two three", "red " * 30, "a b"]
    ids = [chat.conversation_ids(conversation("one", text)) for text in texts]
    batched = score(model, ids, batch_size=3)
    assert batched == pytest.approx([score(model, [one])[0] for one in ids], abs=1e-5)
    assert len({round(reward, 4) for reward in batched}) == 4


def test_pooled_token_is_the_last_real_one_and_agrees_with_hugging_face(gemma2_folder: Path) -> None:
    model = load_reward_model(str(gemma2_folder), head_seed=3).eval()
    ids, mask, last = pad_right([[1, 7, 8, 9, 4], [1, 7, 4]], 0)
    assert ids.tolist() == [[1, 7, 8, 9, 4], [1, 7, 4, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert last.tolist() == [4, 2]
    with torch.no_grad():
        ours = RewardModel(model)(ids, mask, last)
        theirs = model(input_ids=ids, attention_mask=mask).logits.squeeze(-1)
        hidden = model.model(input_ids=ids[1:, :3]).last_hidden_state[0, 2]
    assert ours.tolist() == pytest.approx(theirs.tolist(), abs=1e-5)
    assert ours[1].item() == pytest.approx((hidden @ model.score.weight[0]).item(), abs=1e-5)


def test_pooled_token_is_found_by_index_where_the_padding_id_ends_a_sequence(llama_folder: Path) -> None:
    model = load_reward_model(str(llama_folder), head_seed=3).eval()
    ids, mask, last = pad_right([[1, 7, 8, 0]], 0)
    with torch.no_grad():
        ours = RewardModel(model)(ids, mask, last).item()
        searched = model(input_ids=ids, attention_mask=mask).logits.item()
        hidden = model.model(input_ids=ids).last_hidden_state[0, 3]
    assert ours == pytest.approx((hidden @ model.score.weight[0]).item(), abs=1e-5)
    assert abs(ours - searched) > 1e-3


def test_scoring_leaves_the_mode_as_it_was(llama_folder: Path) -> None:
    model: Any = load_reward_model(str(llama_folder)).train()
    score(model, [[1, 7, 4]])
    assert model.training


def test_nothing_is_cached_or_pickled(gemma2_folder: Path) -> None:
    model = load_reward_model(str(gemma2_folder))
    assert model.config.use_cache is False
    assert AutoConfig.from_pretrained(gemma2_folder).num_hidden_layers == 3
    assert AutoModelForSequenceClassification._model_mapping[type(model.config)] is type(model)
