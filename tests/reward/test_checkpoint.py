"""Checkpoints of real ZeRO-3 ranks: interrupted, resumed at other world sizes, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.errors import RunFolderError
from music_ray.reward import checkpoint
from music_ray.reward.checkpoint import Fragment
from music_ray.reward.logbook import read_log
from music_ray.reward.train import prepare
from music_ray.rundir import RunDir
from music_ray.schema import PAIR_SCHEMA, to_table
from tests.reward.conftest import make_pair
from tests.reward.reference import losses_of, model_weights
from tests.reward.zero3_ranks import KILLED, load_newest_checkpoint, object_store, outcome, train


@given(numel=st.integers(1, 500), world_size=st.integers(1, 9))
def test_fragments_tile_a_parameter(numel: int, world_size: int) -> None:
    parts = [Fragment.of(numel, rank, world_size) for rank in range(world_size)]
    assert [index for part in parts for index in range(part.start, part.end)] == list(range(numel))


def copy_run(run: RunDir, name: str) -> RunDir:
    """A copy of a run folder under another name."""
    copied = RunDir(run.config.model_copy(update={"name": name}))
    shutil.copytree(run.path(), copied.path())
    return copied


@pytest.mark.slow
def test_a_killed_run_goes_on_at_any_world_size_as_if_nothing_had_happened(
    make_run: Any, gemma2_folder: Path
) -> None:
    straight = make_run(gemma2_folder, name="straight")
    assert train(straight, 2) == [0, 0]
    killed = make_run(gemma2_folder, name="killed")
    assert train(killed, 2, kill_at_step=3) == [KILLED, KILLED]
    assert checkpoint.complete_steps(killed) == [2]
    assert [line["step"] for line in read_log(killed)] == [1, 2, 3]
    weights = model_weights(straight)
    for world_size in (1, 2, 3):
        resumed = copy_run(killed, f"resumed-{world_size}")
        assert train(resumed, world_size) == [0] * world_size
        assert outcome(resumed)["resumed_from"] == 2
        assert losses_of(resumed) == pytest.approx(losses_of(straight), abs=1e-5)
        found = model_weights(resumed)
        assert max(float((found[name] - weights[name]).abs().max()) for name in weights) < 1e-4


@pytest.mark.slow
def test_bfloat16_resumes_from_its_float32_master_weights(make_run: Any, gemma2_folder: Path) -> None:
    settings = {"precision": "bfloat16", "learning_rate": 1e-4, "steps": 4}
    straight = make_run(gemma2_folder, name="straight", **settings)
    assert train(straight, 2) == [0, 0]
    killed = make_run(gemma2_folder, name="killed", **settings)
    assert train(killed, 2, kill_at_step=2) == [KILLED, KILLED]
    assert train(killed, 2) == [0, 0]
    assert losses_of(killed) == pytest.approx(losses_of(straight), abs=1e-6)


@pytest.mark.slow
def test_lora_resumes_with_offload_at_another_world_size(make_run: Any, gemma2_folder: Path) -> None:
    settings = {
        "lora": {"rank": 2, "dropout": 0.0, "target_modules": ["q_proj"]},
        "zero": {"offload_optimizer": "cpu", "sub_group_size": 1000},
    }
    straight = make_run(gemma2_folder, name="straight", **settings)
    assert train(straight, 2) == [0, 0]
    killed = make_run(gemma2_folder, name="killed", **settings)
    assert train(killed, 2, kill_at_step=3) == [KILLED, KILLED]
    assert train(killed, 1) == [0]
    assert losses_of(killed) == pytest.approx(losses_of(straight), abs=1e-5)
    names = set(checkpoint.read_index(killed, 4)["parameters"])
    assert all("lora_" in name or name == "classifier.score.weight" for name in names)


@pytest.mark.slow
def test_newest_checkpoints_are_kept_and_say_where_the_data_stands(
    make_run: Any, gemma2_folder: Path
) -> None:
    run = make_run(gemma2_folder, checkpoint_every=1, keep_checkpoints=2)
    Path(run.path("checkpoints", "step-000009")).mkdir(parents=True)  # killed before its index was written
    assert train(run, 2) == [0, 0]
    names = sorted(one.name for one in Path(run.path("checkpoints")).glob("step-*"))
    assert names == ["step-000003", "step-000004"]
    index = checkpoint.read_index(run, 4)
    assert {key: index[key] for key in ("format", "step", "seed", "pairs_per_step", "world_size")} == {
        "format": 1,
        "step": 4,
        "seed": 5,
        "pairs_per_step": 6,
        "world_size": 2,
    }
    assert index["parameters"]["classifier.score.weight"] == {"shape": [1, 40], "numel": 40}


@pytest.mark.slow
def test_a_checkpoint_of_another_model_is_refused(make_run: Any, gemma2_folder: Path) -> None:
    run = make_run(gemma2_folder, steps=2)
    assert train(run, 2) == [0, 0]
    other = make_run(gemma2_folder, steps=2, num_layers=2)
    with pytest.raises(RunFolderError) as caught:
        prepare(other)
    assert str(caught.value).startswith(f"the checkpoints in {run.display('checkpoints')} are of other pairs")
    # The same where only the weights tell: the index claims to be of this configuration.
    file = Path(run.path("checkpoints", "step-000002", "index.json"))
    index = json.loads(file.read_text())
    from music_ray.chat import ChatFormat
    from music_ray.reward.data import prepare_tokens
    from music_ray.reward.train import training_fingerprint

    tokens = prepare_tokens(other, ChatFormat.load(str(gemma2_folder)))
    file.write_text(json.dumps({**index, "fingerprint": training_fingerprint(other, tokens)}))
    message = load_newest_checkpoint(other, 2)
    assert message == (
        f"{run.display('checkpoints', 'step-000002')} is of another model: "
        "classifier.model.layers.2.input_layernorm.weight is 40 there and absent here; set train.base_model, "
        "train.num_layers and train.lora as they were, or remove the checkpoints to start again"
    )


@pytest.mark.slow
def test_other_pairs_do_not_go_on_from_the_checkpoint(make_run: Any, gemma2_folder: Path) -> None:
    run = make_run(gemma2_folder, steps=1)
    assert train(run, 1) == [0]
    run.write_table(to_table([make_pair(77)], PAIR_SCHEMA), "mix", "train-00001.parquet")
    with pytest.raises(RunFolderError, match="are of other pairs or settings: set the old values again"):
        prepare(run)


@pytest.mark.slow
def test_a_full_disk_is_told_by_all_ranks_and_keeps_the_checkpoint_before(
    make_run: Any, gemma2_folder: Path
) -> None:
    run = make_run(gemma2_folder)
    assert train(run, 2, kill_at_step=2) == [KILLED, KILLED]
    assert train(run, 2, full_disk_on_rank=1) == [0, 0]
    result = outcome(run)
    assert result["kind"] == "StageError"
    assert result["message"] == (
        "the checkpoint of step 4 could not be written (rank 1: [Errno 28] No space left on device): free "
        "some space, or lower train.keep_checkpoints; the run goes on from the checkpoint before it"
    )
    assert checkpoint.complete_steps(run) == [2]


@pytest.mark.slow
def test_a_run_folder_behind_a_uri_resumes_and_holds_the_same_files(
    make_run: Any, gemma2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = make_run(gemma2_folder, name="straight")
    assert train(straight, 2) == [0, 0]
    monkeypatch.setattr("music_ray.rundir.open_filesystem", object_store)
    remote = make_run(gemma2_folder, name="remote")
    assert not remote.is_local
    assert train(remote, 2, kill_at_step=2) == [KILLED, KILLED]
    assert train(remote, 1) == [0]
    assert outcome(remote)["resumed_from"] == 2
    assert losses_of(remote) == pytest.approx(losses_of(straight), abs=1e-5)
    names = [sorted(one.name for one in Path(run.path("model")).iterdir()) for run in (straight, remote)]
    assert names[0] == names[1]
    assert list(Path(remote.path("logs", "tensorboard")).glob("events.*"))
