"""Real DeepSpeed ZeRO-3 on forked ranks, against the same training in plain torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from music_ray.chat import ChatFormat
from music_ray.reward.logbook import read_log
from music_ray.reward_model import head_seed, load_reward_model
from tests.reward.conftest import write_mix
from tests.reward.reference import losses_of, model_weights, train_plainly
from tests.reward.zero3_ranks import measure_partitions, outcome, train

pytestmark = pytest.mark.slow


def test_any_number_of_ranks_trains_like_plain_torch(make_run: Any, gemma2_folder: Path) -> None:
    losses, norms, model = train_plainly(make_run(gemma2_folder, name="plain"))
    assert losses[0] > 0.5 and losses[-1] < 0.5 * losses[0]
    for world_size in (1, 2, 3):
        # 6 pairs on 4 places at 2 ranks, and one rank of 3 with fewer passes' worth of pairs.
        run = make_run(gemma2_folder, name=f"ranks-{world_size}", micro_pairs=2)
        assert train(run, world_size) == [0] * world_size
        assert losses_of(run) == pytest.approx(losses, abs=1e-5)
        assert [line["gradient_norm"] for line in read_log(run)] == pytest.approx(norms, rel=1e-4)
        found = model_weights(run)
        for name, weight in model.named_parameters():
            torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-3)  # a step is 1e-2


def test_margins_smoothing_and_centring_train_as_the_formula_says(make_run: Any, gemma2_folder: Path) -> None:
    settings = {"pairs": 0, "loss": {"margin": True, "label_smoothing": 0.1, "centring": 0.05}}
    margins = [None, 0.5, 2.0, 0.0, 1.5, None, 3.0, 0.25, 1.0, 4.0]
    plain = make_run(gemma2_folder, name="plain", **settings)
    write_mix(plain, margins)
    losses, norms, _ = train_plainly(plain)
    for packing in ("shared_prefix", "padded"):
        run = make_run(gemma2_folder, name=packing, packing=packing, **settings)
        write_mix(run, margins)
        assert train(run, 2) == [0, 0]
        assert losses_of(run) == pytest.approx(losses, rel=1e-4)
        assert [line["gradient_norm"] for line in read_log(run)] == pytest.approx(norms, rel=1e-4)


def test_ranks_without_a_pair_of_their_own_change_nothing(make_run: Any, llama_folder: Path) -> None:
    settings = {"pairs_per_step": 4, "steps": 2}
    losses, _, _ = train_plainly(make_run(llama_folder, name="plain", **settings))
    run = make_run(llama_folder, name="three", num_workers=3, **settings)  # 2 passes a rank, 4 pairs
    assert train(run, 3) == [0, 0, 0]
    assert losses_of(run) == pytest.approx(losses, abs=1e-5)


def test_activation_checkpointing_changes_no_number(make_run: Any, gemma2_folder: Path) -> None:
    run = make_run(gemma2_folder, name="plain", steps=2)
    losses, _, _ = train_plainly(run)
    run = make_run(gemma2_folder, name="recomputed", steps=2, activation_checkpointing=True)
    assert train(run, 2) == [0, 0]
    assert losses_of(run) == pytest.approx(losses, abs=1e-5)


def test_offload_changes_no_number(make_run: Any, gemma2_folder: Path) -> None:
    losses, _, _ = train_plainly(make_run(gemma2_folder, name="plain", steps=3))
    zero = {"offload_optimizer": "cpu", "sub_group_size": 20_000}
    run = make_run(gemma2_folder, name="offloaded", steps=3, zero=zero)
    assert train(run, 2) == [0, 0]
    assert losses_of(run) == pytest.approx(losses, abs=1e-5)


def test_parameters_are_partitioned_and_the_head_is_the_same_everywhere(
    make_run: Any, gemma2_folder: Path
) -> None:
    run = make_run(gemma2_folder)
    ranks = measure_partitions(run, 2)
    model = load_reward_model(str(gemma2_folder), head_seed=head_seed(5))
    sizes = [one.numel() for one in model.parameters()]
    for rank in ranks:
        assert rank["total"] == sum(sizes)
        assert rank["kept"] == sum(math.ceil(size / 2) for size in sizes)
        assert rank["whole_outside_passes"] == 0
    head = ranks[0]["head"] + ranks[1]["head"]
    assert head == pytest.approx(model.score.weight[0].tolist(), abs=1e-7)


@pytest.mark.parametrize("family", ["gemma2", "llama"])
def test_rotary_frequencies_stay_float32_in_bfloat16(
    make_run: Any, gemma2_folder: Path, llama_folder: Path, family: str
) -> None:
    folder = gemma2_folder if family == "gemma2" else llama_folder
    (rank,) = measure_partitions(make_run(folder, precision="bfloat16"), 1)
    plain = load_reward_model(str(folder), dtype="bfloat16")
    expected = {name: [str(one.dtype), one.float().sum().item()] for name, one in plain.named_buffers()}
    assert expected["model.rotary_emb.inv_freq"][0] == "torch.float32"
    assert rank["buffers"] == expected


def test_log_holds_what_the_documentation_says(make_run: Any, gemma2_folder: Path) -> None:
    run = make_run(gemma2_folder, steps=1)
    assert train(run, 2) == [0, 0]
    (line,) = read_log(run)
    assert list(line) == [
        "step", "loss", "accuracy", "margin", "chosen_reward", "rejected_reward", "gradient_norm",
        "learning_rate", "pairs", "tokens", "seconds", "chosen_reward_std", "rejected_reward_std",
        "tokens_per_second", "pairs_per_second", "padding_share", "shared_share", "mfu",
        "by_origin", "by_source",
    ]  # fmt: skip
    for groups in (line["by_origin"], line["by_source"]):
        assert all(list(group) == ["pairs", "loss", "accuracy", "margin"] for group in groups.values())
        assert sum(group["pairs"] for group in groups.values()) == 6
    assert (list(line["by_origin"]), list(line["by_source"])) == (["D", "D_MUSIC"], ["test"])
    assert (line["step"], line["pairs"], line["learning_rate"]) == (1, 6, 0.01)
    assert line["margin"] == pytest.approx(line["chosen_reward"] - line["rejected_reward"], abs=1e-6)
    assert list(Path(run.path("logs", "tensorboard")).glob("events.*"))


def test_exported_folder_is_complete(make_run: Any, gemma2_folder: Path) -> None:
    run = make_run(gemma2_folder, steps=2)
    assert train(run, 2) == [0, 0]
    check = outcome(run)["export_check"]
    assert check["bound"] == 1e-4 and check["largest_difference"] <= 1e-4
    folder = run.path("model")
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.architectures == ["Gemma2ForSequenceClassification"]
    assert (model.config.num_labels, model.config.pad_token_id, tokenizer.pad_token_id) == (1, 0, 0)
    assert tokenizer.chat_template == ChatFormat.load(str(gemma2_folder)).tokenizer.chat_template
    card = Path(folder, "README.md").read_text()
    assert "base_model: " in card and 'attn_implementation="eager"' in card
    assert not list(Path(run.path()).glob(".model-*"))
    assert not [file for file in Path(run.path()).rglob("*") if file.suffix in (".bin", ".pt", ".pkl")]


def test_bfloat16_trains_and_exports_within_its_bound(make_run: Any, gemma2_folder: Path) -> None:
    losses, _, _ = train_plainly(make_run(gemma2_folder, name="plain", steps=2))
    run = make_run(gemma2_folder, name="half", steps=2, precision="bfloat16")
    assert train(run, 2) == [0, 0]
    assert losses_of(run) == pytest.approx(losses, rel=0.1)
    assert {weight.dtype for weight in model_weights(run).values()} == {torch.bfloat16}
    check = outcome(run)["export_check"]
    assert check["largest_difference"] <= check["bound"] == 5e-2
    assert 0.0 < check["packed_difference"] <= 1e-1


def test_lora_trains_adapters_and_head_and_is_merged(make_run: Any, gemma2_folder: Path) -> None:
    lora = {"rank": 2, "alpha": 8.0, "target_modules": ["q_proj", "down_proj"]}
    run = make_run(gemma2_folder, steps=3, lora=lora)
    assert train(run, 2) == [0, 0]
    # Per layer: q 40 -> 40 and down 2,602 -> 40, each rank 2 x (in + out); and the head.
    assert outcome(run)["num_trained_parameters"] == 3 * 2 * (80 + 2642) + 40
    assert outcome(run)["export_check"]["largest_difference"] <= 1e-4
    found = model_weights(run)
    before = load_reward_model(str(gemma2_folder), head_seed=head_seed(5)).state_dict()
    changed = {name for name in before if not torch.equal(found[name], before[name])}
    assert found.keys() == before.keys()
    layers = [f"model.layers.{layer}." for layer in range(3)]
    adapted = {f"{layer}{name}.weight" for layer in layers for name in ("self_attn.q_proj", "mlp.down_proj")}
    assert changed == adapted | {"score.weight"}


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_pairs(
    make_run: Any, gemma2_folder: Path, tmp_path: Path
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(gemma2_folder, broken)
    weights = load_file(broken / "model.safetensors")
    chat = ChatFormat.load(str(gemma2_folder))
    ten = chat.tokenizer.convert_tokens_to_ids("ten")
    weights["model.embed_tokens.weight"][ten] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    run = make_run(broken)
    assert train(run, 2) == [0, 0]
    from music_ray.reward.data import PairTokens, prepare_tokens
    from music_ray.reward.order import PairOrder

    pairs = PairTokens.open(run, prepare_tokens(run, chat).name)
    batch = PairOrder(pairs.ids, 5, 6).step(0)
    bad = [pairs.ids[one] for one in batch if any(ten in side for side in pairs.sides(one))]
    assert 0 < len(bad) < 6
    result = outcome(run)
    assert (result["status"], result["kind"]) == ("failed", "StageError")
    assert result["message"] == (
        f"the loss of step 1 is not a number, because of pairs {', '.join(bad)}: look at them in the mix, "
        "lower train.learning_rate, or train in float32"
    )
    assert read_log(run) == []
