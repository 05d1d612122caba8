"""What can be found wrong with the gates' inputs before rollouts are paid for."""

from __future__ import annotations

from music_ray.config import GatesConfig
from music_ray.data_files import find_files
from music_ray.generate.gates.plugins import load_plugin


def check_gates(gates: GatesConfig) -> None:
    """Looks for the files of evaluation sets and imports plug-ins; what the files hold is read later.

    Raises:
        InputError: a file is missing, or a plug-in can't be imported.
    """
    for entry in gates.eval_sets:
        if entry.path is not None:
            find_files(str(entry.path), "check the path in pairs.gates.eval_sets")
    for name in gates.plugins:
        load_plugin(name)
