"""Checkpoints of real ZeRO-3 ranks: interrupted, resumed at other world sizes, refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from music_ray.errors import RunFolderError
from music_ray.reward import checkpoint
from music_ray.reward.checkpoint import Fragment
from music_ray.reward.checkpoint_index import evaluations
from music_ray.reward.logbook import PAIRS, count_pairs, read_log
from music_ray.reward.train import prepare
from music_ray.rundir import RunDir
from music_ray.schema import PAIR_SCHEMA, to_table
from tests.reward.conftest import make_pair
from tests.reward.reference import losses_of, model_weights
from tests.reward.zero3_ranks import (
    KILLED,
    call_ranks,
    load_newest_checkpoint,
    object_store,
    outcome,
    sent_objects,
    train,
)


@given(numel=st.integers(1, 500), world_size=st.integers(1, 9))
def test_fragments_tile_a_parameter(numel: int, world_size: int) -> None:
    parts = [Fragment.of(numel, rank, world_size) for rank in range(world_size)]
    assert [index for part in parts for index in range(part.start, part.end)] == list(range(numel))


BFLOAT16_BOUND = 5e-3
"""Of a loss, two steps after a resume at another world size (measured: up to 1.7e-3)."""


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
        # Of 17 pairs 24 were seen: each once in the first epoch, 7 of them in the second.
        assert read_log(resumed, PAIRS) == read_log(straight, PAIRS)
        seen = count_pairs(resumed)
        assert (len(seen), sum(seen.values()), max(seen.values())) == (17, 24, 2)
        found = model_weights(resumed)
        assert max(float((found[name] - weights[name]).abs().max()) for name in weights) < 1e-4


@pytest.mark.slow
@pytest.mark.faults
def test_bfloat16_resumes_from_its_float32_master_weights(make_run: Any, gemma2_folder: Path) -> None:
    """The passes round to 8 bits: at another world size sums of gradients differ in float32's last place,
    and a working weight that lies between two bfloat16 numbers may be rounded to the other one."""
    settings = {"precision": "bfloat16", "learning_rate": 1e-4, "steps": 4}
    straight = make_run(gemma2_folder, name="straight", **settings)
    assert train(straight, 2) == [0, 0]
    killed = make_run(gemma2_folder, name="killed", **settings)
    assert train(killed, 2, kill_at_step=2) == [KILLED, KILLED]
    for world_size, bound in ((1, BFLOAT16_BOUND), (2, 1e-6), (3, BFLOAT16_BOUND)):
        resumed = copy_run(killed, f"resumed-{world_size}")
        assert train(resumed, world_size) == [0] * world_size
        assert outcome(resumed)["resumed_from"] == 2
        assert losses_of(resumed) == pytest.approx(losses_of(straight), abs=bound)


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
        "the checkpoint of step 4 could not be written (rank 1: [Errno 28] No space left on device): see "
        "to the store; or, on a full disk, free some space or lower train.keep_checkpoints. The run goes on "
        "from the newest complete checkpoint"
    )
    # What rank 0 had written is gone: on a full disk it would hold what is left.
    assert [one.name for one in Path(run.path("checkpoints")).glob("step-*")] == ["step-000002"]


@pytest.fixture
def small_disk() -> Iterator[Callable[[str, str], None]]:
    """Makes a folder a file system of its own, of a size as mount takes it; again for another size."""
    mounted: set[str] = set()

    def mount(folder: str, size: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        kind = ["-o", f"remount,size={size}"] if folder in mounted else ["-t", "tmpfs", "-o", f"size={size}"]
        done = subprocess.run(["mount", *kind, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode and not os.environ.get("CI"):
            pytest.skip(f"this user may not mount anything ({done.stderr.strip()})")
        assert done.returncode == 0, done.stderr
        mounted.add(folder)

    yield mount
    for folder in mounted:  # lazily: the token file in it is mapped into this process
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_for_real_is_told_and_a_larger_one_is_gone_on_with(
    make_run: Any, gemma2_folder: Path, small_disk: Callable[[str, str], None]
) -> None:
    straight = make_run(gemma2_folder, name="straight")
    assert train(straight, 2) == [0, 0]
    [folder] = Path(straight.path("checkpoints")).glob("step-000004")
    size = sum(file.stat().st_size for file in folder.iterdir())
    run = make_run(gemma2_folder)
    small_disk(run.path("checkpoints"), str(size * 3 // 2))  # the second does not fit beside the first
    assert train(run, 2) == [0, 0]
    result = outcome(run)
    assert (result["status"], result["kind"]) == ("failed", "StageError")
    problem = r"rank [01]: .*No space left on device.*"
    assert re.fullmatch(
        rf"the checkpoint of step 4 could not be written \({problem}\): see to the store; or, on a full "
        r"disk, free some space or lower train\.keep_checkpoints\. The run goes on from the newest complete "
        r"checkpoint",
        result["message"],
    )
    assert [one.name for one in Path(run.path("checkpoints")).glob("step-*")] == ["step-000002"]
    assert [line["step"] for line in read_log(run)] == [1, 2, 3, 4]
    small_disk(run.path("checkpoints"), str(size * 3))
    assert train(run, 2) == [0, 0]
    assert outcome(run)["resumed_from"] == 2
    assert losses_of(run) == pytest.approx(losses_of(straight), abs=1e-6)


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
    # What is large crosses the network once; the logs can't be appended to there and are sent anew.
    sent = Counter(sent_objects(remote))
    large = [name for name in sent if name.startswith(("checkpoints/step-", "model/", "checkpoints/tokens-"))]
    assert {"checkpoints/step-000002/rank-00001.safetensors", "model/model.safetensors"} <= set(large)
    assert {name: sent[name] for name in large if sent[name] > 1} == {}


EVALUATION = {"music": {"accuracy": 0.75, "loss": 0.5, "margin": 0.1, "num_pairs": 4, "num_dropped": 0}}


@pytest.mark.slow
def test_the_best_is_kept_beside_the_newest_and_can_be_gone_back_to(
    make_run: Any, gemma2_folder: Path, tmp_path: Path
) -> None:
    run = make_run(gemma2_folder)
    task, _ = prepare(run)
    file = tmp_path / "found.json"
    assert call_ranks(_keep_the_best, 2, task, str(file)) == [0, 0]
    found = json.loads(file.read_text())
    # Step 1 is the best until step 5; one other checkpoint is kept. A step without evaluation has none.
    assert found["kept"] == [[1], [1, 2], [1, 3], [1, 4], [5]]
    assert found["evaluations"] == [[1], [1], [1], [1], [5]]
    assert evaluations(run) == {5: EVALUATION}
    # Back at step 1 the weights are as they were then, on both ranks and in use, not only the masters.
    assert found["head"][0] == found["head_again"]
    assert found["head"][0] != found["head"][1]


def _keep_the_best(task: dict[str, Any], file: str) -> None:
    """Saves five checkpoints of changing weights, and goes back to the best after the fourth."""
    import deepspeed
    import torch.distributed as dist

    from music_ray.config import RunConfig
    from music_ray.reward.zero3 import build_engine, prepare_process

    run = RunDir(RunConfig.model_validate(task["config"]))
    prepare_process(run.config.train)
    engine = build_engine(
        run.config.train, task["model"], head_seed=task["head_seed"], pad_token_id=task["pad_token_id"]
    )
    head = engine.module.classifier.score.weight

    def values() -> list[float]:
        with deepspeed.zero.GatheredParameters([head]):
            return head.flatten().tolist()

    for flat in engine.optimizer.fp32_partitioned_groups_flat:  # as after a first step
        moments = {kind: flat.detach().clone().zero_() for kind in ("exp_avg", "exp_avg_sq")}
        engine.optimizer.optimizer.state[flat] = moments
    found: dict[str, Any] = {"kept": [], "evaluations": [], "head": []}
    for step in range(1, 6):
        position = checkpoint.Position(step, 5, 6, "f")
        best = 5 if step == 5 else 1
        checkpoint.save(run, engine, position, 1, best, EVALUATION if step == best else None)
        dist.barrier()
        found["kept"].append(checkpoint.complete_steps(run))
        found["evaluations"].append(sorted(evaluations(run)))
        found["head"].append(values())
        for flat in engine.optimizer.fp32_partitioned_groups_flat:
            flat.data.add_(1.0)
        checkpoint._refresh_working_weights(engine.optimizer)
        if step == 4:
            checkpoint.load_weights(run, engine, 1)
            found["head_again"] = values()
    if dist.get_rank() == 0:
        Path(file).write_text(json.dumps(found))


@pytest.mark.slow
def test_a_damaged_checkpoint_is_refused_by_all_ranks_with_the_remedy(
    make_run: Any, gemma2_folder: Path
) -> None:
    run = make_run(gemma2_folder, steps=1)
    assert train(run, 2) == [0, 0]
    folder = Path(run.path("checkpoints", "step-000001"))
    where = run.display("checkpoints", "step-000001")
    whole = (folder / "rank-00001.safetensors").read_bytes()
    remedy = f"remove {where} to go on from the checkpoint before it"

    (folder / "rank-00001.safetensors").unlink()
    for world_size in (1, 2, 3):  # of 3 ranks the first needs nothing of the missing file
        assert load_newest_checkpoint(run, world_size).endswith(
            f": rank-00001.safetensors is missing): {remedy}"
        )
    (folder / "rank-00001.safetensors").write_bytes(whole[:-100])
    message = load_newest_checkpoint(run, 2)
    assert message.startswith(f"{where} cannot be read (rank 1: rank-00001.safetensors is damaged, ")
    assert message.endswith(f"): {remedy}")
    (folder / "rank-00001.safetensors").write_bytes(whole)
    assert load_newest_checkpoint(run, 2) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[]", "list indices must be integers or slices, not str"),
        ("{}", "'format'"),
        ('{"format": 1, "step": 3}', "it lacks fingerprint"),
    ],
)
def test_a_damaged_index_is_refused(make_run: Any, gemma2_folder: Path, text: str, reason: str) -> None:
    run = make_run(gemma2_folder)
    run.write_text(text, "checkpoints", "step-000003", "index.json")
    with pytest.raises(RunFolderError) as caught:
        checkpoint.read_index(run, 3)
    where = run.display("checkpoints", "step-000003")
    assert str(caught.value) == (
        f"{where}/index.json is damaged ({reason}): remove {where} to go on from the checkpoint before it"
    )


def test_the_index_of_a_newer_program_is_refused(make_run: Any, gemma2_folder: Path) -> None:
    run = make_run(gemma2_folder)
    run.write_text('{"format": 2}', "checkpoints", "step-000003", "index.json")
    with pytest.raises(RunFolderError, match="was made by a newer music_ray: upgrade music_ray, or remove"):
        checkpoint.read_index(run, 3)
