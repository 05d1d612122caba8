"""Checkpoints of ZeRO-3 training that any number of workers can read.

Each rank writes its own fragments of every trained parameter: the float32 master weights and both
Adam moments, flat, as safetensors. `index.json`, written last by rank 0, makes the checkpoint
complete; a folder without it does not count. On loading, a rank reads the byte ranges that are its
own at the new world size. Nothing is ever unpickled.

DeepSpeed's own universal checkpoint was tried at stage 3 and changes the results silently.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from music_ray.errors import RunFolderError, StageError, TransientError
from music_ray.reward.checkpoint_index import (
    FORMAT,
    Position,
    all_steps,
    complete_steps,
    name_of,
    rank_file,
    read_index,
    remedy,
)
from music_ray.rundir import RunDir
from music_ray.storage import fetch, is_of_store, patiently, put_file

KINDS = ("master", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Fragment:
    """One rank's part of a flattened parameter."""

    start: int
    end: int

    @classmethod
    def of(cls, numel: int, rank: int, world_size: int) -> Fragment:
        """ZeRO-3's partition of a parameter; the last ranks' may be short or empty."""
        size = -(-numel // world_size)
        return cls(min(rank * size, numel), min((rank + 1) * size, numel))


# -- saving ----------------------------------------------------------------------------------------


def save(
    run: RunDir,
    engine: Any,
    position: Position,
    keep: int,
    best: int | None = None,
    evaluation: dict[str, Any] | None = None,
) -> None:
    """Writes a checkpoint from all ranks and removes all but the newest `keep` and the best.

    Args:
        best: step of the best checkpoint so far, perhaps this one; None where none was evaluated.
        evaluation: what these weights scored on the held-out pairs, by suite. It stands in the index, so
            a resume knows it as soon as the checkpoint counts, and never before.

    Raises:
        StageError: a rank could not write (a full disk, say; a TransientError where a store stayed away); on
            every rank, naming the first of them.
    """
    import torch.distributed as dist

    rank, world_size = dist.get_rank(), dist.get_world_size()
    folder = ("checkpoints", name_of(position.step))
    written = f"the checkpoint of step {position.step} could not be written"
    _together(lambda: run.clear(*folder) if rank == 0 else None, written)
    try:
        _together(lambda: _write_fragments(run, engine, folder, rank, world_size), written)
        # Every fragment is on the disk: only now may the index appear.
        _together(lambda: _commit(run, engine, position, folder, evaluation), written)
    except StageError:
        if rank == 0:
            with contextlib.suppress(OSError):  # A store that is gone has nothing to be cleared.
                run.clear(*folder)  # On a full disk it would hold what is left.
        raise
    removed = f"the checkpoints before step {position.step} could not be removed"
    _together(lambda: _remove_old(run, keep, best) if rank == 0 else None, removed)


def _write_fragments(run: RunDir, engine: Any, folder: tuple[str, ...], rank: int, world_size: int) -> None:
    from safetensors.torch import save_file

    tensors = {}
    for name, parameter in trained_parameters(engine):
        part = Fragment.of(parameter.ds_numel, rank, world_size)
        for kind in KINDS if part.end > part.start else ():
            flat = _local(engine, parameter, kind)[: part.end - part.start]
            tensors[f"{kind}.{name}"] = flat.detach().cpu().contiguous()
    name = rank_file(rank)
    if run.is_local:
        target = Path(run.path(*folder, name))
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, target)
        with target.open("rb+") as handle:
            os.fsync(handle.fileno())
        return
    with tempfile.TemporaryDirectory() as local:
        save_file(tensors, f"{local}/{name}")
        put_file(run.fs, run.path(*folder, name), f"{local}/{name}")


def _commit(
    run: RunDir,
    engine: Any,
    position: Position,
    folder: tuple[str, ...],
    evaluation: dict[str, Any] | None,
) -> None:
    import torch.distributed as dist

    if dist.get_rank() != 0:
        return
    index = {
        "format": FORMAT,
        **asdict(position),
        "world_size": dist.get_world_size(),
        "evaluation": evaluation,
        "parameters": {
            name: {"shape": list(parameter.ds_shape), "numel": parameter.ds_numel}
            for name, parameter in trained_parameters(engine)
        },
    }
    run.write_text(json.dumps(index, indent=1) + "\n", *folder, "index.json")


def _remove_old(run: RunDir, keep: int, best: int | None) -> None:
    kept = {*complete_steps(run)[-keep:], best}
    for step in all_steps(run):
        if step not in kept:
            run.clear("checkpoints", name_of(step))


def _together(write: Callable[[], None], failure: str) -> None:
    """Runs a write on every rank, patiently; if one of them fails, all raise the same error, none waits."""
    import torch.distributed as dist
    from safetensors import SafetensorError

    try:
        patiently(write, f"train: rank {dist.get_rank()}'s part of a checkpoint")
        problem = ""
    except (OSError, SafetensorError) as error:
        problem = f"rank {dist.get_rank()}: {error}"
    if failed := _problems(problem):
        kind = TransientError if is_of_store(OSError(failed[0])) else StageError
        raise kind(
            f"{failure} ({failed[0]}): see to the store; or, on a full disk, free some space or lower "
            "train.keep_checkpoints. The run goes on from the newest complete checkpoint"
        )


def _problems(mine: str) -> list[str]:
    """What went wrong on any rank, in the ranks' order; collective, '' where nothing did."""
    import torch.distributed as dist

    problems: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(problems, mine)
    return [one for one in problems if one]


# -- loading ---------------------------------------------------------------------------------------


def load(run: RunDir, engine: Any, step: int) -> Position:
    """Restores master weights, Adam's state and the working weights at the present world size.

    Raises:
        RunFolderError: the checkpoint is of another model or set of trained parameters, or a file of it
            is missing or damaged; on every rank.
        TransientError: an object store failed for too long; on every rank.
    """
    import torch

    index = _index_of_this_model(run, engine, step)
    optimizer = engine.optimizer
    for flat in optimizer.fp32_partitioned_groups_flat:
        optimizer.optimizer.state[flat] = {
            "step": torch.tensor(float(step)),
            "exp_avg": torch.zeros_like(flat),
            "exp_avg_sq": torch.zeros_like(flat),
        }
    _restore(run, engine, index, KINDS)
    return Position(**{key: index[key] for key in Position.__dataclass_fields__})


def load_weights(run: RunDir, engine: Any, step: int) -> None:
    """Restores the weights alone, a third of the bytes: for an export, no step may follow.

    Raises:
        RunFolderError: see load.
    """
    _restore(run, engine, _index_of_this_model(run, engine, step), ("master",))


def _restore(run: RunDir, engine: Any, index: dict[str, Any], kinds: Sequence[str]) -> None:
    """Reads this rank's fragments and refreshes the working weights; all ranks raise if one must."""
    import torch.distributed as dist
    from safetensors import SafetensorError

    where = run.display("checkpoints", name_of(index["step"]))
    problem = away = ""
    try:
        _read_fragments(run, engine, index, kinds)
    except (OSError, SafetensorError, _ShortFragmentError) as error:
        said = f"rank {dist.get_rank()}: {' '.join(str(error).split())}"
        problem, away = ("", said) if is_of_store(error) else (said, "")
    if failed := _problems(away):
        raise TransientError(
            f"{where} cannot be read now ({failed[0]}): once the store answers, run it again"
        )
    if failed := _problems(problem):
        raise RunFolderError(f"{where} cannot be read ({failed[0]}): {remedy(where)}")
    _refresh_working_weights(engine.optimizer)


def _read_fragments(run: RunDir, engine: Any, index: dict[str, Any], kinds: Sequence[str]) -> None:
    import torch.distributed as dist

    rank, world_size = dist.get_rank(), dist.get_world_size()
    with tempfile.TemporaryDirectory() as scratch, _RankFiles(run, index["step"], scratch) as files:
        for name, parameter in trained_parameters(engine):
            mine = Fragment.of(parameter.ds_numel, rank, world_size)
            for kind in kinds:
                target = _local(engine, parameter, kind)
                target.data.zero_()
                for start, values in _read(files, f"{kind}.{name}", parameter.ds_numel, mine, index):
                    target.data[start : start + values.numel()].copy_(values)


def _index_of_this_model(run: RunDir, engine: Any, step: int) -> dict[str, Any]:
    index = read_index(run, step)
    _check_parameters(run, engine, index)
    return index


def _check_parameters(run: RunDir, engine: Any, index: dict[str, Any]) -> None:
    present = {name: list(parameter.ds_shape) for name, parameter in trained_parameters(engine)}
    saved = {name: facts["shape"] for name, facts in index["parameters"].items()}
    if present == saved:
        return
    names = sorted(present.keys() | saved.keys())
    name = next(name for name in names if present.get(name) != saved.get(name))
    where = run.display("checkpoints", name_of(index["step"]))
    raise RunFolderError(
        f"{where} is of another model: {name} is {_shape(saved.get(name))} there and "
        f"{_shape(present.get(name))} here; set train.base_model, train.num_layers and train.lora as they "
        "were, or remove the checkpoints to start again"
    )


def _shape(shape: list[int] | None) -> str:
    return "absent" if shape is None else " x ".join(map(str, shape))


def _read(
    files: _RankFiles, key: str, numel: int, mine: Fragment, index: dict[str, Any]
) -> Iterator[tuple[int, Any]]:
    """Pieces of this rank's fragment: (offset inside the fragment, values)."""
    for old_rank in range(index["world_size"]):
        old = Fragment.of(numel, old_rank, index["world_size"])
        start, end = max(old.start, mine.start), min(old.end, mine.end)
        if start < end:
            piece = files.slice(old_rank, key)[start - old.start : end - old.start]
            if piece.numel() != end - start:
                raise _ShortFragmentError(
                    f"{rank_file(old_rank)} holds {piece.numel()} of {end - start} values of {key}"
                )
            yield start - mine.start, piece


class _ShortFragmentError(Exception):
    """A fragment is shorter than the index says."""


class _RankFiles:
    """Opened fragment files of a checkpoint; those of an object store are fetched when needed."""

    def __init__(self, run: RunDir, step: int, scratch: str) -> None:
        self.run, self.step, self.scratch = run, step, scratch
        self._open: dict[int, Any] = {}

    def slice(self, rank: int, key: str) -> Any:
        """A tensor that reads only the range that it is indexed with."""
        from safetensors import SafetensorError, safe_open

        name = rank_file(rank)
        try:
            if rank not in self._open:
                path = self.run.path("checkpoints", name_of(self.step), name)
                if not self.run.is_local:
                    local = f"{self.scratch}/{name}"
                    fetch(self.run.fs, path, local)
                    path = local
                self._open[rank] = safe_open(path, framework="pt")
            return self._open[rank].get_slice(key)
        except FileNotFoundError:
            raise FileNotFoundError(f"{name} is missing") from None
        except SafetensorError as error:
            raise SafetensorError(f"{name} is damaged, {error}") from None

    def __enter__(self) -> _RankFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.clear()  # The scratch folder can be removed only then.


def _refresh_working_weights(optimizer: Any) -> None:
    """Copies the master weights into the weights that the passes use, as DeepSpeed's step does."""
    optimizer._partition_all_parameters()
    for number in range(len(optimizer.fp16_groups)):
        optimizer._reassign_or_swap_out_partitioned_parameters(number)
    if optimizer.persistent_parameters:
        optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)


# -- DeepSpeed's state -----------------------------------------------------------------------------


def trained_parameters(engine: Any) -> list[tuple[str, Any]]:
    """(name, partitioned parameter) of all trained parameters, in the model's order."""
    return [(name, one) for name, one in engine.module.named_parameters() if one.requires_grad]


def _local(engine: Any, parameter: Any, kind: str) -> Any:
    """This rank's flat float32 fragment of a parameter, padding included; a view, not a copy."""
    optimizer = engine.optimizer
    group, offset, length = optimizer.grad_position[optimizer.get_param_id(parameter)]
    flat = optimizer.fp32_partitioned_groups_flat[group]
    whole = flat if kind == "master" else optimizer.optimizer.state[flat][kind]
    return whole.narrow(0, offset, length)
