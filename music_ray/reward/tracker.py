"""The training log on Weights & Biases, for those who ask for it (train.wandb_project).

The driver sends what it reads from logs/: the workers need neither the package nor the key, and a
service that is down stops no training. The key stays in the environment; nothing here reads its value.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from typing import Any

from music_ray.config import TrainConfig
from music_ray.errors import EnvironmentLacksError
from music_ray.reward.logbook import EVALUATIONS, LOG, read_log
from music_ray.rundir import RunDir

LOGS = {"train": LOG, "evaluation": EVALUATIONS}


def check_tracker(train: TrainConfig) -> None:
    """Refuses a start whose log could not be sent.

    Raises:
        EnvironmentLacksError: the package wandb or WANDB_API_KEY is missing.
    """
    if train.wandb_project is None:
        return
    otherwise = "or leave train.wandb_project empty: TensorBoard's files are in logs/tensorboard anyway"
    if importlib.util.find_spec("wandb") is None:
        raise EnvironmentLacksError(
            f"train.wandb_project is {train.wandb_project}, but the package wandb is not installed: "
            f"`pip install wandb` where this command runs, {otherwise}"
        )
    without_key = os.environ.get("WANDB_MODE") in ("offline", "disabled")
    if not os.environ.get("WANDB_API_KEY") and not without_key:
        raise EnvironmentLacksError(
            f"train.wandb_project is {train.wandb_project}, but WANDB_API_KEY is not set: export it where "
            f"this command runs, set WANDB_MODE=offline, {otherwise}"
        )


class Tracker:
    """One training as a run of Weights & Biases; a resumed training goes on in the same one."""

    def __init__(self, run: RunDir, fingerprint: str) -> None:
        """Opens the run; call check_tracker first.

        Args:
            fingerprint: of the training: another training of the same name is another run.

        Raises:
            EnvironmentLacksError: the service can't be reached or refuses the key.
        """
        import wandb

        train = run.config.train
        folder = run.path("logs") if run.is_local else tempfile.mkdtemp(prefix="music-ray-")
        os.makedirs(folder, exist_ok=True)
        self.run = run
        try:
            self._remote = wandb.init(
                project=train.wandb_project,
                name=run.config.name,
                id=f"{run.config.name}-{fingerprint}",
                resume="allow",
                dir=folder,
                config={"seed": run.config.seed, "train": train.model_dump(mode="json")},
                settings=wandb.Settings(silent=True, console="off", save_code=False),
            )
        except wandb.errors.Error as error:
            raise EnvironmentLacksError(
                f"Weights & Biases cannot be used ({' '.join(str(error).split())}): correct WANDB_API_KEY or "
                "the network, set WANDB_MODE=offline, or leave train.wandb_project empty"
            ) from None
        # Points lie at the training's steps, not at the count of what was sent.
        self._remote.define_metric("step")
        self._remote.define_metric("*", step_metric="step")
        self._sent = {name: int(self._remote.summary.get(f"{name}/step") or 0) for name in LOGS}

    def follow(self) -> int:
        """Sends the lines of the logs that were not sent yet; returns how many."""
        new = []
        for name, parts in LOGS.items():
            lines = [line for line in read_log(self.run, parts) if line["step"] > self._sent[name]]
            for line in lines:
                self._remote.log({"step": line["step"], **_flat(name, line)})
                self._sent[name] = line["step"]
            new += lines
        return len(new)

    def close(self) -> None:
        """Sends what is left and ends the run."""
        self._remote.finish()


def _flat(prefix: str, values: dict[str, Any]) -> dict[str, float]:
    """Nested tables of numbers as one, with names like train/by_origin/D/loss."""
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(f"{prefix}/{name}", value)
        elif value is not None:
            flat[f"{prefix}/{name}"] = value
    return flat
