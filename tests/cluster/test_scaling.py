"""What Ray's own autoscaler would start for the work of a run, by its scheduler, on every kind of cluster."""

import pytest

from music_ray.config.load import load_config
from tests.cluster.files import ROOT, VM_FILES, ray_cluster, rendered

RUN = load_config(ROOT / "configs/gemma2-9b.yaml")
ENGINE = {"CPU": RUN.engine.cpus_per_engine, "GPU": RUN.engine.gpus_per_engine}
TRAINING_WORKER = {"CPU": RUN.train.cpus_per_worker, "GPU": 1}
KUBERNETES_FILES = ["kuberay-cluster.yaml", "kuberay-job.yaml"]


@pytest.fixture(params=VM_FILES + KUBERNETES_FILES)
def autoscaler(request):
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    if request.param in VM_FILES:
        config = rendered(request.param)
    else:
        config = _derive_autoscaling_config_from_ray_cr(ray_cluster(request.param))
    return AutoscalingConfig(config, skip_content_hash=True)


def started(autoscaler, tasks=(), together=(), group=None) -> dict[str, int]:
    """Nodes that the autoscaler would start, from nothing, for these tasks, and for a placement group."""
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.autoscaler_pb2 import GangResourceRequest
    from ray.core.generated.common_pb2 import LabelSelectorOperator

    selector = group and [[("music-ray/group", LabelSelectorOperator.LABEL_OPERATOR_IN, [group])]]

    def requests(bundles):
        return [ResourceRequestUtil.make(dict(bundle), label_selectors=selector) for bundle in bundles]

    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=autoscaler.get_node_type_configs(),
            max_num_nodes=autoscaler.get_max_num_worker_nodes(),
            idle_timeout_s=autoscaler.get_idle_timeout_s(),
            resource_requests=ResourceRequestUtil.group_by_count(requests(tasks)),
            gang_resource_requests=[GangResourceRequest(requests=requests(together))] if together else [],
        )
    )
    assert not reply.infeasible_resource_requests and not reply.infeasible_gang_resource_requests
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def test_without_work_nothing_is_started(autoscaler) -> None:
    assert started(autoscaler) == {}
    assert autoscaler.get_idle_timeout_s() == 600


def test_work_without_a_gpu_starts_no_gpu_node(autoscaler) -> None:
    assert started(autoscaler, [{"CPU": 1}] * 7) == {"cpu": 1}


def test_an_engine_and_the_task_that_feeds_it_share_a_spot_node(autoscaler) -> None:
    assert started(autoscaler, [ENGINE, {"CPU": 1}]) == {"generation": 1}


def test_all_training_workers_come_to_one_node_on_demand(autoscaler) -> None:
    workers = [TRAINING_WORKER] * RUN.train.num_workers
    assert started(autoscaler, together=workers) == {"training": 1}


def test_as_many_engines_as_the_run_allows_fit_the_spot_nodes(autoscaler) -> None:
    nodes = autoscaler.get_node_type_configs()["generation"]
    assert (
        nodes.max_worker_nodes * nodes.resources["GPU"] >= RUN.engine.max_engines * RUN.engine.gpus_per_engine
    )


def test_the_whole_run_is_not_refused_for_want_of_resources(autoscaler) -> None:
    """The sums that music_ray compares before a stage: what the cluster may grow to."""
    types = autoscaler.get_node_type_configs()
    largest = {
        name: sum(
            node.max_worker_nodes * node.resources.get(name, 0)
            for key, node in types.items()
            if key != autoscaler.get_head_node_type()
        )
        for name in ("CPU", "GPU")
    }
    for want in (
        {name: RUN.train.num_workers * amount for name, amount in TRAINING_WORKER.items()},
        {name: RUN.engine.min_engines * amount for name, amount in ENGINE.items()},
    ):
        assert all(largest[name] >= amount for name, amount in want.items())


def test_engines_that_ask_for_their_group_get_spot_nodes_however_many_they_are(autoscaler) -> None:
    assert started(autoscaler, [ENGINE] * 16, group="generation") == {"generation": 16}


def test_a_known_limit_five_engines_at_once_that_ask_for_no_group_start_the_training_node(autoscaler) -> None:
    """Ray's scheduler likes the node that it can fill most. README.md says what to do about it.

    When engines ask for the label of their group, this test must be turned round.
    """
    assert started(autoscaler, [ENGINE] * 4) == {"generation": 4}
    assert started(autoscaler, [ENGINE] * 16) == {"training": 1, "generation": 8}
