"""Which files are sent: what git ignores and what holds secrets by custom stays here."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from music_ray.errors import InputError
from music_ray.submit.package import find_package, size_bound

ROOT = Path(__file__).resolve().parents[2]
SENT = [
    ".gitignore", "configs/a.yaml", "data/kept.parquet", "data/pairs.jsonl", "docs/runs/page.md",
    "music_ray/__main__.py", "src/.rayignore", "src/model.py",
]  # fmt: skip


def test_what_is_sent_of_a_checkout(checkout: Path) -> None:
    assert list(find_package(checkout).files) == SENT
    assert list(find_package(checkout, ["/data", "*.md"]).files) == [
        name for name in SENT if not name.startswith("data/") and not name.endswith(".md")
    ]


def test_the_same_files_as_rays_own_upload_but_for_our_excludes(checkout: Path, tmp_path: Path) -> None:
    """Ray's rules are followed through its private functions: a new Ray must not change what is sent."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    target = tmp_path / "rays.zip"
    create_package(str(checkout), target, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    names = {name for name in zipfile.ZipFile(target).namelist() if not name.endswith("/")}
    secrets = {".env", ".env.production", ".envrc", ".aws/credentials"}
    assert names - set(find_package(checkout).files) == {*secrets, "runs/a/manifest.json"}
    assert set(find_package(checkout).files) <= names


def test_this_checkout_sends_what_git_knows(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs the repository")
    package = find_package(ROOT)
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    known = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())
    assert set(package.files) <= known
    assert {"music_ray/cli.py", "music_ray/miniature/weights/model.safetensors", "configs/demo.yaml"} <= set(
        package.files
    )
    assert package.write(tmp_path / "a.zip", size_bound()) < 20 * 2**20


def test_what_a_package_holds(checkout: Path) -> None:
    package = find_package(checkout)
    for path in ("data/pairs.jsonl", "data", "data/", "src"):
        assert package.holds(path), path
    for path in ("data/big.parquet", "private", "runs/a", "dat", ".venv"):
        assert not package.holds(path), path


def test_the_archive_is_of_the_files_and_depends_on_nothing_else(checkout: Path, tmp_path: Path) -> None:
    size = find_package(checkout).write(tmp_path / "one.zip", 2**20)
    archive = zipfile.ZipFile(tmp_path / "one.zip")
    assert archive.namelist() == SENT
    assert archive.read("src/model.py") == b"x"
    (checkout / "src/model.py").touch()  # a new date is no new content
    assert find_package(checkout).write(tmp_path / "two.zip", 2**20) == size
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_too_much_is_refused_with_size_bound_and_the_largest_files(checkout: Path, tmp_path: Path) -> None:
    import random

    for name, size in (("data/corpus.txt", 3), ("weights.bin", 2), ("notes.txt", 1)):
        (checkout / name).write_bytes(random.Random(0).randbytes(size * 2**20))
    with pytest.raises(InputError) as caught:
        find_package(checkout).write(tmp_path / "a.zip", 4 * 2**20)
    assert str(caught.value) == (
        f"the working directory {checkout} is too large to be sent with a job: its 11 files hold 6.0 MiB, "
        "and do not pack into the 4 MiB that Ray takes. The largest are data/corpus.txt (3.0 MiB), "
        "weights.bin (2.0 MiB), notes.txt (1.0 MiB): name what the job does not need in .rayignore, and put "
        "data and models on storage that the nodes see"
    )


def test_rays_bound_is_what_its_job_server_takes() -> None:
    assert size_bound() == 100 * 2**20


def test_links_are_followed_but_not_in_circles(checkout: Path) -> None:
    (checkout / "src/up").symlink_to(checkout)
    (checkout / "src/self").symlink_to(checkout / "src")
    (checkout / "src/linked").symlink_to(checkout / "data")
    (checkout / "src/gone").symlink_to(checkout / "nothing")
    found = set(find_package(checkout).files) - set(SENT)
    assert found == {"src/linked/pairs.jsonl", "src/linked/kept.parquet"}


def test_a_file_that_cannot_be_read_is_named(checkout: Path, tmp_path: Path) -> None:
    package = find_package(checkout)
    (checkout / "src/model.py").unlink()
    with pytest.raises(
        InputError, match=r"src/model.py can't be sent \(No such file or directory\): name it in"
    ):
        package.write(tmp_path / "a.zip", 2**20)
