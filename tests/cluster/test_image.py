"""The Dockerfile: what it copies is there and is sent, what it installs is locked, who it runs as."""

import re
import tomllib

from packaging.requirements import Requirement

from tests.cluster.files import CLUSTER, ROOT

TEXT = (CLUSTER / "Dockerfile").read_text()
LINES = re.sub(
    r"\\\n\s*", " ", "\n".join(line for line in TEXT.splitlines() if not line.startswith("#"))
).splitlines()
STEPS = [tuple(line.split(maxsplit=1)) for line in LINES if line.strip()]
SENT = [
    line[1:]
    for line in (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    if line.startswith("!")
]


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / name).read_text(), flags=re.MULTILINE))


def copied() -> list[str]:
    return [source for step, rest in STEPS if step == "COPY" for source in rest.split()[:-1]]


def test_every_source_is_there_and_is_sent_to_the_builder() -> None:
    assert (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()[1] == "*"
    for source in copied():
        assert (ROOT / source).exists(), source
        assert any(source == sent or sent.startswith(f"{source}/") for sent in SENT), f"{source} is not sent"
    assert {sent.split("/*")[0] for sent in SENT} == set(copied())


def test_nothing_that_may_hold_a_secret_is_sent() -> None:
    assert not [sent for sent in SENT if sent.startswith((".", "runs", "evaluations", "tests"))]
    assert not re.search(r"TOKEN|SECRET|PASSWORD|_KEY", TEXT)
    assert "ADD " not in TEXT


def test_the_packages_come_from_the_locks_by_the_set_up_script() -> None:
    (install,) = [rest for step, rest in STEPS if step == "RUN" and "install.sh" in rest]
    assert 'cluster/install.sh "${FLAVOUR}"' in install and "VENV=/opt/venv" in install
    assert "--no-deps" in install and "--requirements cluster/requirements-clouds.lock" in install
    script = (CLUSTER / "install.sh").read_text()
    # What the script reads of the checkout is there when it runs.
    before = TEXT[: TEXT.index('cluster/install.sh "${FLAVOUR}"')]
    for needed in (
        "pyproject.toml",
        "requirements-gpu.lock",
        "requirements-cpu.lock",
        "cluster/pip_settings.py",
    ):
        assert needed in before and needed.split("-")[0].split(".")[0] in script
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["readme"] in before and project["license-files"][0] in before


def test_the_programs_that_others_call_in_a_container_are_installed() -> None:
    """KubeRay probes by `bash -c "wget … | grep success"`; the slim base has bash and grep but no wget."""
    (packages,) = [rest for step, rest in STEPS if step == "RUN" and "apt-get install" in rest]
    (named,) = re.findall(r"apt-get install --yes --no-install-recommends ([^&]*?) +&&", packages)
    assert named.split() == ["g++", "openssh-client", "rsync", "wget"]


def test_the_flavours_are_those_of_the_set_up_script() -> None:
    assert ("ARG", "FLAVOUR=gpu") in STEPS
    assert "cpu | gpu)" in (CLUSTER / "install.sh").read_text()


def test_the_code_comes_after_the_packages() -> None:
    """A change of the code must not install gigabytes anew."""
    order = [step + " " + rest for step, rest in STEPS]
    install = next(index for index, line in enumerate(order) if 'install.sh "${FLAVOUR}"' in line)
    assert order.index("COPY music_ray music_ray") > install
    assert order.index("COPY configs configs") > install


def test_the_base_is_a_pinned_parameter_with_the_locks_python() -> None:
    (base,) = [rest for step, rest in STEPS if step == "ARG" and rest.startswith("BASE_IMAGE")]
    assert re.fullmatch(r"BASE_IMAGE=python:3\.11\.\d+-slim-bookworm", base)
    assert ("FROM", "${BASE_IMAGE}") in STEPS
    assert "--python-version 3.11" in (CLUSTER / "lock.sh").read_text()


def test_it_runs_as_a_user_whose_home_ray_finds() -> None:
    steps = [step for step, _ in STEPS]
    assert STEPS[steps.index("USER")] == ("USER", "ray")
    assert "RUN" not in steps[steps.index("USER") :]
    (made,) = [rest for step, rest in STEPS if step == "RUN" and "useradd" in rest]
    assert "--uid 1000" in made and "/home/ray/.ray" in made and "/home/ray/.cache/huggingface" in made
    # A login shell sets PATH anew, and `ray up` uses one.
    assert "/etc/profile.d/" in made
    (environment,) = [rest for step, rest in STEPS if step == "ENV"]
    assert "HOME=/home/ray" in environment and "RAY_AUTH_MODE=token" in environment


def test_what_the_clusters_call_in_the_image_is_where_they_say() -> None:
    assert ("WORKDIR", "/opt/music_ray") in STEPS
    assert "cluster/spot_watch.py" in copied() and "configs" in copied()


def test_the_autoscalers_packages_go_with_the_gpu_lock() -> None:
    """All that they ask for is there in a version that they take, python-dateutil by its own line."""
    clouds, gpu = pins("cluster/requirements-clouds.lock"), pins("requirements-gpu.lock")
    assert {"boto3", "google-api-python-client"} <= clouds.keys()
    replaced = {name for name in clouds.keys() & gpu.keys() if clouds[name] != gpu[name]}
    assert replaced == {"python-dateutil"}
    assert clouds["python-dateutil"] == pins("requirements-cpu.lock")["python-dateutil"]
    together = gpu | clouds
    from importlib.metadata import PackageNotFoundError, requires

    for name in clouds:
        try:
            asked = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:  # Google's are not installed for the tests
            continue
        for one in asked:
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                assert one.specifier.contains(together[one.name.lower()]), f"{name} asks for {one}"
