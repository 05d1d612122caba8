"""Checkpoints of ZeRO-3 training that any number of workers can read.

Each rank writes its own fragments of every trained parameter: the float32 master weights and both
Adam moments, flat, as safetensors. `index.json`, written last by rank 0, makes the checkpoint
complete; a folder without it does not count. On loading, a rank reads the byte ranges that are its
own at the new world size. Nothing is ever unpickled.

DeepSpeed's own universal checkpoint was tried at stage 3 and changes the results silently.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from music_ray.errors import RunFolderError, StageError
from music_ray.rundir import RunDir

KINDS = ("master", "exp_avg", "exp_avg_sq")
FORMAT = 1


@dataclass(frozen=True)
class Position:
    """Where a training run stands, and which run it is."""

    step: int
    """Finished optimizer steps."""
    seed: int
    pairs_per_step: int
    """With the step this is the data position: step x pairs_per_step pairs of the stream are done."""
    fingerprint: str
    """Hash of all that decides the training's result."""


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


def name_of(step: int) -> str:
    """Folder name of a checkpoint inside checkpoints/."""
    return f"step-{step:06d}"


def complete_steps(run: RunDir) -> list[int]:
    """Steps of the checkpoints that are complete, ascending."""
    return [step for step in _all_steps(run) if run.exists("checkpoints", name_of(step), "index.json")]


def read_index(run: RunDir, step: int) -> dict[str, Any]:
    """A checkpoint's index.

    Raises:
        RunFolderError: it is damaged or from a newer music_ray.
    """
    where = run.display("checkpoints", name_of(step))
    try:
        index = json.loads(run.read_text("checkpoints", name_of(step), "index.json"))
    except json.JSONDecodeError as error:
        raise RunFolderError(f"{where}/index.json is damaged ({error}): remove {where}") from None
    if index["format"] > FORMAT:
        raise RunFolderError(f"{where} was made by a newer music_ray: upgrade music_ray, or remove it")
    return index


# -- saving ----------------------------------------------------------------------------------------


def save(run: RunDir, engine: Any, position: Position, keep: int) -> None:
    """Writes a checkpoint from all ranks and removes all but the newest `keep`.

    Raises:
        StageError: a rank could not write (a full disk, say); on every rank, naming the first of them.
    """
    import torch.distributed as dist

    rank, world_size = dist.get_rank(), dist.get_world_size()
    folder = ("checkpoints", name_of(position.step))
    if rank == 0:
        run.clear(*folder)
    dist.barrier()
    _together(lambda: _write_fragments(run, engine, folder, rank, world_size), position.step)
    # Every fragment is on the disk: only now may the index appear.
    _together(lambda: _commit(run, engine, position, folder, keep), position.step)


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
        upload(run, f"{local}/{name}", *folder, name)


def _commit(run: RunDir, engine: Any, position: Position, folder: tuple[str, ...], keep: int) -> None:
    import torch.distributed as dist

    if dist.get_rank() != 0:
        return
    index = {
        "format": FORMAT,
        **asdict(position),
        "world_size": dist.get_world_size(),
        "parameters": {
            name: {"shape": list(parameter.ds_shape), "numel": parameter.ds_numel}
            for name, parameter in trained_parameters(engine)
        },
    }
    run.write_text(json.dumps(index, indent=1) + "\n", *folder, "index.json")
    complete = complete_steps(run)
    for step in _all_steps(run):
        if step not in complete[-keep:]:
            run.clear("checkpoints", name_of(step))


def _together(write: Callable[[], None], step: int) -> None:
    """Runs a write on every rank; if one of them fails, all raise the same error."""
    import torch.distributed as dist
    from safetensors import SafetensorError

    try:
        write()
        problem = ""
    except (OSError, SafetensorError) as error:
        problem = f"rank {dist.get_rank()}: {error}"
    problems: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(problems, problem)
    if failed := [one for one in problems if one]:
        raise StageError(
            f"the checkpoint of step {step} could not be written ({failed[0]}): free some space, or lower "
            "train.keep_checkpoints; the run goes on from the checkpoint before it"
        )


def upload(run: RunDir, local: str, *parts: str) -> None:
    """Copies a local file into the run folder, wherever that is."""
    import pyarrow.fs as pafs

    pafs.copy_files(
        local, run.path(*parts), source_filesystem=pafs.LocalFileSystem(), destination_filesystem=run.fs
    )


def rank_file(rank: int) -> str:
    """File name of a rank's fragments."""
    return f"rank-{rank:05d}.safetensors"


# -- loading ---------------------------------------------------------------------------------------


def load(run: RunDir, engine: Any, step: int) -> Position:
    """Restores master weights, Adam's state and the working weights at the present world size.

    Raises:
        RunFolderError: the checkpoint is of another model or set of trained parameters.
    """
    import torch
    import torch.distributed as dist

    rank, world_size = dist.get_rank(), dist.get_world_size()
    index = read_index(run, step)
    _check_parameters(run, engine, index)
    optimizer = engine.optimizer
    for flat in optimizer.fp32_partitioned_groups_flat:
        optimizer.optimizer.state[flat] = {
            "step": torch.tensor(float(step)),
            "exp_avg": torch.zeros_like(flat),
            "exp_avg_sq": torch.zeros_like(flat),
        }
    with tempfile.TemporaryDirectory() as scratch:
        files = _RankFiles(run, step, scratch)
        for name, parameter in trained_parameters(engine):
            mine = Fragment.of(parameter.ds_numel, rank, world_size)
            for kind in KINDS:
                target = _local(engine, parameter, kind)
                target.data.zero_()
                for start, values in _read(files, f"{kind}.{name}", parameter.ds_numel, mine, index):
                    target.data[start : start + values.numel()].copy_(values)
        files.close()
    _refresh_working_weights(optimizer)
    return Position(**{key: index[key] for key in Position.__dataclass_fields__})


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
            yield start - mine.start, piece


class _RankFiles:
    """Opened fragment files of a checkpoint; those of an object store are fetched when needed."""

    def __init__(self, run: RunDir, step: int, scratch: str) -> None:
        self.run, self.step, self.scratch = run, step, scratch
        self._open: dict[int, Any] = {}

    def slice(self, rank: int, key: str) -> Any:
        """A tensor that reads only the range that it is indexed with."""
        from safetensors import safe_open

        if rank not in self._open:
            name = rank_file(rank)
            path = self.run.path("checkpoints", name_of(self.step), name)
            if not self.run.is_local:
                local = f"{self.scratch}/{name}"
                self._fetch(path, local)
                path = local
            self._open[rank] = safe_open(path, framework="pt")
        return self._open[rank].get_slice(key)

    def _fetch(self, path: str, local: str) -> None:
        import pyarrow.fs as pafs

        pafs.copy_files(
            path, local, source_filesystem=self.run.fs, destination_filesystem=pafs.LocalFileSystem()
        )

    def close(self) -> None:
        """Lets go of the files, so that the scratch folder can be removed."""
        self._open.clear()


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


def _all_steps(run: RunDir) -> list[int]:
    import pyarrow.fs as pafs

    selector = pafs.FileSelector(run.path("checkpoints"), allow_not_found=True)
    names = [info.base_name for info in run.fs.get_file_info(selector)]
    return sorted(int(found[1]) for name in names if (found := re.fullmatch(r"step-(\d+)", name)))
