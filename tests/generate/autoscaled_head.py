"""A head of Ray whose autoscaler starts nodes: more raylets on this machine, by Ray's own fake provider.

The file that the autoscaler reads is of the same form as that of `ray up`, so what it may start is found in
it as on a real cluster. The head carries nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import yaml

from tests.submit.ray_head import RayHead

IDLE_MINUTES = 0.2


@dataclass
class AutoscaledHead(RayHead):
    """One group of nodes, none at the start."""

    cpus: int = 2
    """Of each node."""
    most: int = 3
    """Nodes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        (self.folder / "autoscaler.yaml").write_text(yaml.safe_dump(self._config()))
        self.options = ["--num-cpus=0", f"--autoscaling-config={self.folder}/autoscaler.yaml"]

    @property
    def gcs_address(self) -> str:
        """For RAY_ADDRESS."""
        return f"127.0.0.1:{self.ports['--port']}"

    def environment(self, *, with_token: bool = True) -> dict[str, str]:
        """See RayHead; what `ray up` sets for its head, and what makes the nodes fake ones."""
        from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

        return super().environment(with_token=with_token) | {
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_NODE_TYPE_NAME": "ray.head.default",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_DATA_MIN_GAP_BETWEEN_AUTOSCALING_REQUESTS": "1",
        }

    def nodes(self) -> int:
        """How many there are besides the head."""
        return max(0, self._count("raylet/raylet ") - 1)

    def engines(self) -> int:
        """How many engine actors there are."""
        return self._count("ray::MapWorker")

    def _count(self, words: str) -> int:
        number = 0
        for process in self.processes():
            try:
                number += words in " ".join(process.cmdline()) + " "
            except psutil.Error:  # gone meanwhile
                continue
        return number

    def _config(self) -> dict[str, object]:
        empty: dict[str, object] = {
            name: []
            for name in (
                *("initialization_commands", "setup_commands", "head_setup_commands", "rsync_filter"),
                *("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
                *("cluster_synced_files", "rsync_exclude"),
            )
        }
        return empty | {
            "cluster_name": "music-ray-tests",
            "max_workers": self.most,
            "upscaling_speed": 1.0,
            "idle_timeout_minutes": IDLE_MINUTES,
            "provider": {
                # By its own name, `fake_multinode`, it wants a file that Ray's wheel does not hold.
                "type": "external",
                "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
                "gcs_address": self.gcs_address,
                "launch_multiple": True,
                # All nodes share one address here.
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
            },
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "workers": {
                    "resources": {"CPU": self.cpus, "object_store_memory": 100_000_000},
                    "node_config": {},
                    "min_workers": 0,
                    "max_workers": self.most,
                },
            },
            "head_node_type": "ray.head.default",
            "file_mounts_sync_continuously": False,
            **{name: {} for name in ("auth", "docker", "file_mounts")},
        }
