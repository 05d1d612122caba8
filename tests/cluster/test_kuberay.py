"""The KubeRay manifests: structure, sizes, access and the job. There is no Kubernetes here; Ray's autoscaler,
which reads a RayCluster by itself, is asked in test_scaling.py.

The names of the fields are those of KubeRay's ray.io/v1 (ray-operator/apis/ray/v1), of which authOptions came
with KubeRay 1.5.1 and a group's labels with 1.5.
"""

import re

import pytest

from tests.cluster.commands import check, commands
from tests.cluster.files import GROUPS, documents, leaves, ray_cluster, rendered

FILES = ["kuberay-cluster.yaml", "kuberay-job.yaml"]
CLUSTER_FIELDS = {
    "rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec",
    "workerGroupSpecs",
}  # fmt: skip
HEAD_FIELDS = {"serviceType", "rayStartParams", "template"}
WORKER_FIELDS = {
    "groupName",
    "labels",
    "replicas",
    "minReplicas",
    "maxReplicas",
    "rayStartParams",
    "template",
}
JOB_FIELDS = {
    "entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit",
    "activeDeadlineSeconds", "rayClusterSpec",
}  # fmt: skip
POD_FIELDS = {
    "serviceAccountName", "automountServiceAccountToken", "restartPolicy", "terminationGracePeriodSeconds",
    "securityContext", "nodeSelector", "affinity", "tolerations", "containers", "volumes",
}  # fmt: skip
CONTAINER_FIELDS = {"name", "image", "env", "ports", "resources", "securityContext", "volumeMounts"}
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@pytest.fixture(params=FILES)
def spec(request):
    return ray_cluster(request.param)["spec"]


def pods(spec):
    """Group → the pod of its template, the head's under 'head'."""
    found = {"head": spec["headGroupSpec"]["template"]["spec"]}
    return found | {one["groupName"]: one["template"]["spec"] for one in spec["workerGroupSpecs"]}


def test_the_fields_are_kuberays(spec) -> None:
    assert spec.keys() == CLUSTER_FIELDS
    assert spec["headGroupSpec"].keys() == HEAD_FIELDS
    assert [group["groupName"] for group in spec["workerGroupSpecs"]] == GROUPS
    for group in spec["workerGroupSpecs"]:
        assert group.keys() == WORKER_FIELDS and NAME.fullmatch(group["groupName"])
        assert group["labels"] == {"music-ray/group": group["groupName"]}
    for group, pod in pods(spec).items():
        assert pod.keys() <= POD_FIELDS, group
        (container,) = pod["containers"]
        assert container.keys() <= CONTAINER_FIELDS, group
        assert container["name"] == ("ray-head" if group == "head" else "ray-worker")
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            volume["name"] for volume in pod["volumes"]
        }


def test_job_and_cluster_are_the_same_cluster() -> None:
    assert ray_cluster(FILES[0])["spec"] == ray_cluster(FILES[1])["spec"]


def test_requests_are_limits_and_ray_is_told_no_more_than_the_pod_has(spec) -> None:
    """With more than the pod has, Ray would put onto one node what needs two; with less, start too many."""
    params = {"head": spec["headGroupSpec"]["rayStartParams"]}
    params |= {group["groupName"]: group["rayStartParams"] for group in spec["workerGroupSpecs"]}
    for group, pod in pods(spec).items():
        amounts = pod["containers"][0]["resources"]
        assert amounts["requests"] == amounts["limits"], group
        assert all(isinstance(value, str) for value in params[group].values()), group
        if group == "head":
            assert params[group] == {"num-cpus": "0"}
            continue
        assert params[group]["num-cpus"] == amounts["limits"]["cpu"]
        assert params[group].get("num-gpus") == amounts["limits"].get("nvidia.com/gpu")
        assert "resources" not in params[group]


def test_without_work_only_the_head_costs_and_idle_nodes_go(spec) -> None:
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["idleTimeoutSeconds"] == 600
    for group in spec["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]


def test_generation_is_on_spot_nodes_and_nothing_else_is(spec) -> None:
    spot = ("cloud.google.com/gke-spot", "true")
    for group, pod in pods(spec).items():
        tolerated = {(one["key"], one.get("value")) for one in pod.get("tolerations", [])}
        if group == "generation":
            assert spot in pod["nodeSelector"].items() and spot in tolerated
            assert "affinity" not in pod
            continue
        assert spot not in tolerated and spot[0] not in pod["nodeSelector"]
        node = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        (term,) = node["nodeSelectorTerms"]
        assert term["matchExpressions"] == [{"key": spot[0], "operator": "NotIn", "values": [spot[1]]}]


def test_pods_with_gpus_tolerate_the_taint_of_gpu_nodes_and_the_others_do_not(spec) -> None:
    for group, pod in pods(spec).items():
        tolerates = "nvidia.com/gpu" in {one["key"] for one in pod.get("tolerations", [])}
        assert tolerates == ("nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]), group


def test_ray_drains_before_kubernetes_kills(spec) -> None:
    for group, pod in pods(spec).items():
        environment = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
        drain = int(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert 0 < drain < pod["terminationGracePeriodSeconds"], group


def test_ray_waits_for_a_stopped_job_less_than_the_head_has_left(spec) -> None:
    for group, pod in pods(spec).items():
        environment = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
        assert environment["RAY_JOB_STOP_WAIT_TIME_S"] == "45", group
    assert pods(spec)["head"]["terminationGracePeriodSeconds"] == 600


def test_rays_reading_of_the_drain_time_has_that_name() -> None:
    from ray._private import ray_constants

    assert ray_constants.RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S == 30.0


def test_token_authentication_is_on_and_no_secret_stands_in_a_file(spec) -> None:
    assert spec["authOptions"] == {"mode": "token"}
    assert tuple(map(int, spec["rayVersion"].split(".")[:2])) >= (2, 52)  # what authOptions asks for
    for group, pod in pods(spec).items():
        environment = {one["name"]: one for one in pod["containers"][0]["env"]}
        assert environment["HF_TOKEN"]["valueFrom"] == {
            "secretKeyRef": {"name": "music-ray-hub", "key": "token"}
        }
        assert "value" not in environment["HF_TOKEN"], group
        # The operator sets these; a second setting would win or lose by its place in the list.
        assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} & environment.keys()


def test_nothing_is_reached_from_outside() -> None:
    kinds = []
    for name in [*FILES, "kuberay-access.yaml"]:
        for resource in documents(name):
            kinds.append(resource["kind"])
            for path, value in leaves(resource):
                assert value not in ("LoadBalancer", "NodePort", "0.0.0.0"), (name, path)
                assert path[-1] not in ("hostNetwork", "hostPort", "enableIngress", "externalIPs"), (
                    name,
                    path,
                )
        if name in FILES:
            assert ray_cluster(name)["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert kinds == ["RayCluster", "RayJob", "Namespace", "ServiceAccount", "NetworkPolicy"]


def test_only_the_namespace_and_the_operator_reach_the_pods() -> None:
    (policy,) = [one for one in documents("kuberay-access.yaml") if one["kind"] == "NetworkPolicy"]
    assert policy["spec"]["podSelector"] == {} and policy["spec"]["policyTypes"] == ["Ingress"]
    (rule,) = policy["spec"]["ingress"]
    assert rule == {
        "from": [
            {"podSelector": {}},
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-operator"}}},
        ]
    }


def test_everything_is_in_one_namespace_under_one_account() -> None:
    resources = [one for name in [*FILES, "kuberay-access.yaml"] for one in documents(name)]
    spaces = {one["metadata"].get("namespace") for one in resources if one["kind"] != "Namespace"}
    (space,) = [one["metadata"]["name"] for one in resources if one["kind"] == "Namespace"]
    (account,) = [one["metadata"]["name"] for one in resources if one["kind"] == "ServiceAccount"]
    assert spaces == {space}
    for name in FILES:
        assert {pod["serviceAccountName"] for pod in pods(ray_cluster(name)["spec"]).values()} == {account}


def test_only_the_heads_pod_has_the_token_that_may_change_pods(spec) -> None:
    """The autoscaler in it needs the token; all pods keep the account, from which the cloud's role comes."""
    mounted = {group: pod.get("automountServiceAccountToken", True) for group, pod in pods(spec).items()}
    assert mounted == {"head": True, "cpu": False, "generation": False, "training": False}
    assert {pod["serviceAccountName"] for pod in pods(spec).values()} == {"music-ray"}


def test_pods_run_as_the_images_user_and_can_gain_nothing(spec) -> None:
    for group, pod in pods(spec).items():
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000, group
        assert pod["containers"][0]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }


def test_the_job_runs_music_ray_and_is_tried_again_once() -> None:
    """KubeRay tries again after any failure, those included that only cost money again."""
    job = rendered("kuberay-job.yaml")["spec"]
    assert job.keys() == JOB_FIELDS
    (words,) = commands(job["entrypoint"])
    assert check(words) == "music_ray run"
    assert words[4].startswith("/opt/music_ray/configs/")
    assert job["shutdownAfterJobFinishes"] is True and job["backoffLimit"] == 1
    assert job["activeDeadlineSeconds"] == 168 * 3600
