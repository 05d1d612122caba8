"""How training workers on one machine find each other: by a file instead of a port.

Ray Train has them meet at PyTorch's TCPStore, which listens on all of the machine's interfaces, asks for no
password and can't be told otherwise. Between machines that is what a closed network is for
(docs/explanation/security.md); on one machine nobody else has to reach it. Knows Ray Train and
torch.distributed, nothing of the training. Importing it imports both: import it inside functions.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.backend import BackendConfig
from ray.train.torch.config import (
    TorchConfig,
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)


@dataclass
class MeetByFile(TorchConfig):
    """Ray Train's torch_config for workers that are all on this machine."""

    folder: str = ""
    """Where the files are made; one for each start of the workers, for none can be used twice."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """See BackendConfig."""
        return _FileBackend


class _FileBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Makes the process group of all workers."""
        assert isinstance(backend_config, MeetByFile)
        place = os.path.join(backend_config.folder, f"rendezvous-{uuid.uuid4().hex}")
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        worker_group.execute(_keep_to_this_machine)
        worker_group.execute(_set_torch_distributed_env_vars)
        setups = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend=backend_config.backend or ("nccl" if gpus else "gloo"),
                world_rank=rank,
                world_size=len(worker_group),
                init_method=f"file://{place}",
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(len(worker_group))
        ]
        ray.get(setups)


def _keep_to_this_machine() -> None:
    """gloo listens on the address that the machine's name has, unless it is told which interface to take."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
