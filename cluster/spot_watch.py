"""Tells Ray when the cloud announces that it takes this node back.

    python spot_watch.py aws --address HEAD:6379

Ray then marks the node as draining: training saves a checkpoint, and nothing new is placed here. Runs on
every worker machine of rendered/aws.yaml and rendered/gcp.yaml until the notice comes; on machines that are
never taken back it only waits. Pods need it not: Kubernetes sends them SIGTERM, which Ray understands.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

EVERY_SECONDS = 5.0
"""Between two looks; EC2's guide asks for this."""
GCP_SECONDS = 25.0
"""From Compute Engine's notice to the end: 30 seconds, less one look."""
AWS_METADATA = "http://169.254.169.254"
GCP_METADATA = "http://metadata.google.internal"
NODE_ID = re.compile(r"^--node[-_]id=([0-9a-f]{56})$")


def aws_seconds_left(metadata: str = AWS_METADATA) -> float | None:
    """Seconds until EC2 takes the instance, or None while it does not mean to (IMDSv2)."""
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    session = _ask(f"{metadata}/latest/api/token", lifetime, method="PUT")
    notice = session and _ask(
        f"{metadata}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": session}
    )
    if not notice:
        return None
    end = datetime.datetime.fromisoformat(json.loads(notice)["time"].replace("Z", "+00:00"))
    return max(0.0, end.timestamp() - time.time())


def gcp_seconds_left(metadata: str = GCP_METADATA) -> float | None:
    """Seconds until Compute Engine takes the instance, or None while it does not mean to."""
    said = _ask(f"{metadata}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return GCP_SECONDS if said == "TRUE" else None


def local_node_ids(processes: Path = Path("/proc")) -> set[str]:
    """Ids of the Ray nodes that run on this machine, from the command lines of their raylets."""
    found = set()
    for file in processes.glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has just ended, or is not ours
            continue
        if words[0].endswith("/raylet"):
            found |= {match[1] for match in map(NODE_ID.match, words) if match}
    return found


def drain(address: str, seconds: float) -> int:
    """Marks this machine's Ray nodes as going; returns how many accepted it."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]

    client = GcsClient(address=address)
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    end_ms = int((time.time() + seconds) * 1000)
    accepted = 0
    for node in sorted(local_node_ids()):
        yes, problem = client.drain_node(node, reason, "the cloud takes the machine back", end_ms)
        _say(f"node {node}: {'draining' if yes else problem}")
        accepted += bool(yes)
    return accepted


def watch(seconds_left: Callable[[], float | None], every: float = EVERY_SECONDS) -> float:
    """Waits for the notice; returns the seconds that are left then."""
    while True:
        try:
            if (left := seconds_left()) is not None:
                return left
        except (OSError, ValueError, KeyError) as error:  # one look that failed says nothing about the next
            _say(f"no look at the metadata: {error}")
        time.sleep(every)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Tell Ray when the cloud takes this node back.")
    parser.add_argument("cloud", choices=["aws", "gcp"])
    parser.add_argument("--address", required=True, help="HOST:PORT of the head")
    options = parser.parse_args(words)
    import ray  # noqa: F401  now, because it takes seconds that the notice does not leave

    left = watch({"aws": aws_seconds_left, "gcp": gcp_seconds_left}[options.cloud])
    _say(f"this node is taken back in {left:.0f} s")
    return 0 if drain(options.address, left) else 1


def _ask(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310  (http, see above)
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310
            return answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        if error.code == 404:  # how EC2 says that there is no notice
            return None
        raise


def _say(message: str) -> None:
    sys.stderr.write(f"{datetime.datetime.now(datetime.UTC):%H:%M:%S} spot_watch: {message}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
