"""The files for `ray up`, by Ray's own schema and loader, and what must hold of any cluster of ours."""

import json
import re

import pytest

from tests.cluster.commands import check, commands, told_by
from tests.cluster.files import GROUPS, RENDERED, ROOT, VM_FILES, leaves, rendered

SECRETS = re.compile(
    r"hf_\w{10}|AKIA\w{12}|-----BEGIN|aws_secret|ghp_\w{10}|ya29\.|[0-9a-f]{32}", re.IGNORECASE
)


@pytest.fixture(params=VM_FILES)
def config(request):
    return rendered(request.param)


def test_rays_own_schema_and_loader_take_it(config) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == sum(
        prepared["available_node_types"][group]["max_workers"] for group in GROUPS
    )


def test_the_schema_notices_a_misspelt_key(config) -> None:
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    config["idle_timeout_minute"] = config.pop("idle_timeout_minutes")
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute"):
        validate_config(prepare_config(config))


def test_nothing_is_left_to_rays_defaults_that_opens_a_port_or_installs_a_package(config) -> None:
    """The defaults start the dashboard on all addresses and install a nightly build of Ray."""
    from ray.autoscaler._private.util import prepare_config

    prepared = prepare_config(config)
    text = json.dumps(prepared)
    assert "0.0.0.0" not in text and "pip install" not in text
    for key in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands", "docker"):
        assert prepared[key], key


def test_the_head_carries_no_load_and_without_work_nothing_else_costs(config) -> None:
    types = config["available_node_types"]
    assert set(types) == {"head", *GROUPS} and config["head_node_type"] == "head"
    assert types["head"]["resources"] == {"CPU": 0}
    for group in GROUPS:
        assert types[group]["min_workers"] == 0 < types[group]["max_workers"], group
        assert types[group]["labels"] == {"music-ray/group": group}
    assert 0 < config["idle_timeout_minutes"] <= 30
    assert config["provider"]["cache_stopped_nodes"] is False


def test_every_command_is_one_that_ray_and_music_ray_take(config) -> None:
    kinds = []
    for key in (
        "head_start_ray_commands",
        "worker_start_ray_commands",
        "setup_commands",
        "initialization_commands",
    ):
        for line in config.get(key, []):
            kinds += [kind for words in commands(line) if (kind := check(words))]
    assert kinds == [
        "ray stop", "ray start", "ray stop", "ray start", "/opt/music_ray/cluster/spot_watch.py"
    ]  # fmt: skip


@pytest.mark.parametrize("name", VM_FILES)
def test_the_commands_that_the_file_tells_its_reader_work(name) -> None:
    told = [words for words in told_by(name) if words[0] in ("ray", "music-ray")]
    assert [check(words) for words in told] == ["ray up", "ray dashboard", "music-ray submit", "ray down"]
    assert {word for words in told for word in words if word.endswith(".yaml") and "rendered" in word} == {
        f"cluster/rendered/{name}"
    }


def test_the_head_and_the_workers_agree_on_ports_and_the_dashboard_stays_at_home(config) -> None:
    (head,) = [
        words
        for line in config["head_start_ray_commands"]
        for words in commands(line)
        if words[1:2] == ["start"]
    ]
    (worker,) = [
        words
        for line in config["worker_start_ray_commands"]
        for words in commands(line)
        if words[1:2] == ["start"]
    ]
    assert {"--head", "--port=6379", "--dashboard-host=127.0.0.1"} <= set(head)
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "--address=$RAY_HEAD_IP:6379" in worker
    assert {"--object-manager-port=8076"} <= set(head) & set(worker)


def test_token_authentication_is_on_in_every_container_and_the_token_comes_from_a_file(config) -> None:
    docker = config["docker"]
    assert "--env RAY_AUTH_MODE=token" in docker["run_options"]
    assert not {"head_image", "worker_image"} & docker.keys()
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "test -s ~/.ray/auth_token && test -r ~/.ray/auth_token" in config["setup_commands"]
    for path, value in leaves(config):
        assert "RAY_AUTH_MODE=disabled" not in str(value), path
        assert "RAY_AUTH_TOKEN=" not in str(value), path


def test_a_stopped_job_has_time_to_flush_and_stop_outwaits_ray(config) -> None:
    """Ray's own 3 seconds would kill it with finished rows in memory and its run not given back."""
    from ray.dashboard.modules.job.job_supervisor import JobSupervisor

    from music_ray.submit.stop import STOP_SECONDS

    assert JobSupervisor.DEFAULT_RAY_JOB_STOP_WAIT_TIME_S == 3
    assert "--env RAY_JOB_STOP_WAIT_TIME_S=45" in config["docker"]["run_options"]
    assert STOP_SECONDS == 60.0  # the rest is for Ray to see the end and to say so


def test_no_node_has_a_public_address_and_ssh_goes_through_the_clouds_own_proxy(config) -> None:
    assert config["provider"]["use_internal_ips"] is True
    assert config["auth"]["ssh_proxy_use_node_id"] is True
    assert "%h" in config["auth"]["ssh_proxy_command"] and "%p" in config["auth"]["ssh_proxy_command"]
    assert "ssh_private_key" not in config["auth"]  # Ray makes a key of its own in ~/.ssh
    text = json.dumps(config)
    assert (
        "accessConfigs" not in text and "AssociatePublicIpAddress" not in text and "IpPermissions" not in text
    )


def test_every_node_has_a_role_of_its_cloud_and_no_key() -> None:
    for group in ["head", *GROUPS]:
        (aws,) = rendered("aws.yaml")["available_node_types"][group]["node_config"][
            "IamInstanceProfile"
        ].items()
        assert aws == ("Name", "music-ray-head" if group == "head" else "music-ray-worker")
        (gcp,) = rendered("gcp.yaml")["available_node_types"][group]["node_config"]["serviceAccounts"]
        assert gcp["email"].startswith("music-ray-head@" if group == "head" else "music-ray-worker@")


@pytest.mark.parametrize(
    "path",
    sorted([*RENDERED.iterdir(), *(ROOT / "cluster").glob("[!.]*.*"), ROOT / "cluster/Dockerfile"]),
    ids=lambda path: path.name,
)
def test_no_file_holds_a_secret(path) -> None:
    assert SECRETS.findall(path.read_text()) == []
