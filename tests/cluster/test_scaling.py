"""What Ray's own autoscaler would start for the work of a run, by its scheduler, on every kind of cluster.

The run is the one that the commands of the cluster files start, with the labels that these ask for.
"""

import pytest

from music_ray.config import RunConfig
from tests.cluster.commands import commands, run_of, told_by
from tests.cluster.files import VM_FILES, ray_cluster, rendered
from tests.cluster.test_readme import readme_commands

KUBERNETES_FILES = ["kuberay-cluster.yaml", "kuberay-job.yaml"]
ANYWHERE: dict[str, str] = {}


def submitted(told) -> RunConfig:
    """The run that the commands start: the same one, where both ways of submitting it are shown."""
    first, *others = [
        run_of(words) for words in told if "music_ray" in words or words[:2] == ["music-ray", "submit"]
    ]
    assert all(one == first for one in others)
    return first


README_RUN = submitted(readme_commands())
RUNS = {name: submitted(told_by(name)) for name in VM_FILES}
RUNS["kuberay-cluster.yaml"] = README_RUN  # work by hand: no file holds a command for it
RUNS["kuberay-job.yaml"] = submitted(commands(rendered("kuberay-job.yaml")["spec"]["entrypoint"]))
RUN = README_RUN
ENGINE = {"CPU": RUN.engine.cpus_per_engine, "GPU": RUN.engine.gpus_per_engine}
TRAINING_WORKER = {"CPU": RUN.train.cpus_per_worker, "GPU": 1}
ENGINES, WORKERS = RUN.engine.node_labels, RUN.train.node_labels


@pytest.fixture(params=VM_FILES + KUBERNETES_FILES)
def autoscaler(request):
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    if request.param in VM_FILES:
        config = rendered(request.param)
    else:
        config = _derive_autoscaling_config_from_ray_cr(ray_cluster(request.param))
    return AutoscalingConfig(config, skip_content_hash=True)


def started(autoscaler, tasks=(), together=(), size=(), labels=ANYWHERE) -> dict[str, int]:
    """Nodes that the autoscaler would start, from nothing.

    Args:
        tasks: what waits, each by itself.
        together: a placement group's bundles.
        size: what a library says that the cluster should have room for, as Ray Data does.
        labels: what all of them ask of their nodes.
    """
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.autoscaler_pb2 import ClusterResourceConstraint, GangResourceRequest
    from ray.core.generated.common_pb2 import LabelSelectorOperator

    equal = LabelSelectorOperator.LABEL_OPERATOR_IN
    selector = [[(name, equal, [value]) for name, value in labels.items()]] if labels else None

    def requests(bundles):
        return [ResourceRequestUtil.make(dict(bundle), label_selectors=selector) for bundle in bundles]

    room = ResourceRequestUtil.group_by_count(requests(size))
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=autoscaler.get_node_type_configs(),
            max_num_nodes=autoscaler.get_max_num_worker_nodes(),
            idle_timeout_s=autoscaler.get_idle_timeout_s(),
            resource_requests=ResourceRequestUtil.group_by_count(requests(tasks)),
            gang_resource_requests=[GangResourceRequest(requests=requests(together))] if together else [],
            cluster_resource_constraints=[ClusterResourceConstraint(resource_requests=room)] if size else [],
        )
    )
    assert not reply.infeasible_resource_requests and not reply.infeasible_gang_resource_requests
    assert not reply.infeasible_cluster_resource_constraints
    return {launch.instance_type: launch.count for launch in reply.to_launch}


@pytest.mark.parametrize("name", RUNS)
def test_every_command_asks_for_the_labels_that_the_groups_have(name) -> None:
    run = RUNS[name]
    assert run.engine.node_labels == {"music-ray/group": "generation"}
    assert run.train.node_labels == {"music-ray/group": "training"}
    free = {"name", "runs_dir"}
    assert run.model_dump(exclude=free) == RUN.model_dump(exclude=free)


def test_without_work_nothing_is_started(autoscaler) -> None:
    assert started(autoscaler) == {}
    assert autoscaler.get_idle_timeout_s() == 600


def test_work_without_a_gpu_starts_no_gpu_node(autoscaler) -> None:
    assert started(autoscaler, [{"CPU": 1}] * 7) == {"cpu": 1}


def test_an_engine_and_the_task_that_feeds_it_share_a_spot_node(autoscaler) -> None:
    assert started(autoscaler, [ENGINE, {"CPU": 1}], labels=ENGINES) == {"generation": 1}


@pytest.mark.parametrize("number", [1, 5, 8, 16])
def test_engines_get_spot_nodes_however_many_start_at_once(autoscaler, number) -> None:
    assert started(autoscaler, [ENGINE] * number, labels=ENGINES) == {"generation": number}
    assert started(autoscaler, size=[ENGINE] * number, labels=ENGINES) == {"generation": number}


def test_without_labels_five_engines_at_once_would_start_the_training_node(autoscaler) -> None:
    """Why README.md says not to leave them out: Ray's scheduler likes the node that it can fill most."""
    assert started(autoscaler, [ENGINE] * 4) == {"generation": 4}
    assert started(autoscaler, [ENGINE] * 16) == {"training": 1, "generation": 8}
    assert started(autoscaler, size=[ENGINE] * 16) == {"training": 1, "generation": 8}


def test_all_training_workers_come_to_one_node_on_demand(autoscaler) -> None:
    workers = [TRAINING_WORKER] * RUN.train.num_workers
    assert started(autoscaler, together=workers, labels=WORKERS) == {"training": 1}
    # Even those that a spot node would hold.
    assert started(autoscaler, together=[{"CPU": 1, "GPU": 1}] * 2, labels=WORKERS) == {"training": 1}


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
