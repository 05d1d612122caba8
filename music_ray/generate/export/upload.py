"""One commit to a repository of the Hugging Face hub; what goes wrong there becomes one clear message.

Knows the hub and its client, not run folders. The token is never part of a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from music_ray.errors import InputError, MusicRayError, StageError
from music_ray.progress import say

RepoKind = Literal["dataset", "model"]
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_LONGEST_NAME = 96
_MESSAGE_SHOWN = 300
_DEFAULT_ENDPOINT = "https://huggingface.co"


def endpoint() -> str:
    """Where the hub is: HF_ENDPOINT, as for every program that uses the hub."""
    return (os.environ.get("HF_ENDPOINT") or _DEFAULT_ENDPOINT).rstrip("/")


def repo_url(repo: str, kind: RepoKind) -> str:
    """A repository's page."""
    return f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{repo}"


def check_repo(repo: str) -> None:
    """Refuses what is no name of a repository, before anything is asked.

    Raises:
        InputError: it is not OWNER/NAME.
    """
    plain = _REPO.fullmatch(repo) and "--" not in repo and ".." not in repo and not repo.endswith(".git")
    if not plain or len(repo) > _LONGEST_NAME:
        raise InputError(
            f"--repo {repo[:120]!r} is no OWNER/NAME of at most {_LONGEST_NAME} letters, digits, '-', '_' "
            "and '.': name one such as my-team/music-pairs"
        )


def read_token() -> str:
    """The token of the environment variable HF_TOKEN; a login's stored token is not taken.

    Raises:
        InputError: it is missing or holds something that can't be a token.
    """
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise InputError(
            f"HF_TOKEN is not set: make a token with write access at {endpoint()}/settings/tokens and put it "
            "into the environment"
        )
    if not re.fullmatch(r"[!-~]+", token):
        raise InputError("HF_TOKEN holds spaces or other characters that no token has: copy it again")
    return token


def commit(
    repo: str,
    kind: RepoKind,
    files: Mapping[str, Path | bytes],
    *,
    owned: Sequence[str],
    public: bool,
    token: str,
    message: str,
) -> str:
    """Puts files into a repository in one commit, which takes out what an earlier push left.

    The repository is made when it does not exist. All files are there afterwards, or nothing has changed.

    Args:
        files: by their names in the repository; text as bytes, data as a local file.
        owned: patterns of the files that a push owns: of these, those that are not in `files` are deleted.
        public: whether anybody may read it; an existing repository keeps its visibility.

    Returns:
        the commit's URL.

    Raises:
        InputError: the token is not accepted or may not write there, the owner is not known, the hub refuses
            the content, or the repository is public and `public` is not.
        StageError: the hub can't be reached, or fails.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    with _explained(repo, token):
        api = HfApi(endpoint=endpoint(), token=token)
        there = _open_repo(api, repo, kind, public)
        operations: list[Any] = [
            CommitOperationDelete(path_in_repo=name)
            for name in there
            if name not in files and any(fnmatch(name, pattern) for pattern in owned)
        ]
        operations += [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()
        ]
        # Not upload_folder: with many files that makes several commits, and a reader could meet half a set.
        done = api.create_commit(repo, operations, commit_message=message, repo_type=kind)
    return str(done.commit_url)


def _open_repo(api: Any, repo: str, kind: RepoKind, public: bool) -> list[str]:
    """The names of the files that a repository holds; it is made when there is none."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.repo_info(repo, repo_type=kind)
    except RepositoryNotFoundError:
        api.create_repo(repo, repo_type=kind, private=not public)
        return []
    if not info.private and not public:
        raise InputError(
            f"{repo} is there already, and it is public: say --public if everybody may read this, or name "
            "another --repo"
        )
    if info.private and public:
        say(f"push: {repo} is there already, and it stays private: the hub's settings page changes that")
    return [file.rfilename for file in info.siblings or ()]


@contextmanager
def _explained(repo: str, token: str) -> Iterator[None]:
    """Turns the client's errors into messages for the user."""
    from huggingface_hub import errors

    # HTTP errors of a reachable hub and all of an unreachable one; refused metadata is a ValueError, and an
    # upload that failed in a thread a RuntimeError.
    foreseen = (errors.HfHubHTTPError, errors.HTTPError, OSError, ValueError, RuntimeError)
    try:
        yield
    except MusicRayError:
        raise
    except foreseen as error:
        raise _explain(error, repo, token) from None


def _explain(error: BaseException, repo: str, token: str) -> MusicRayError:
    status = _status(error)
    cause = _cause(error, token)
    owner = repo.partition("/")[0]
    if status == 401:
        return InputError(
            f"the hub does not accept HF_TOKEN (401: {cause}): make a token with write access to {owner} at "
            f"{endpoint()}/settings/tokens"
        )
    if status == 403:
        return InputError(
            f"HF_TOKEN may not write to {repo} (403: {cause}): use a token with write access to {owner}, or "
            "name another --repo"
        )
    if status == 404:
        return InputError(f"the hub does not know {repo} (404: {cause}): check owner and name of --repo")
    if status is not None and 400 <= status < 500 and status not in (408, 429):
        return InputError(f"the hub refuses the push to {repo} ({status}: {cause})")
    if status is not None:
        return StageError(f"the hub fails ({status}: {cause}): the same command tries again later")
    if isinstance(error, ValueError):
        return InputError(f"the hub or its client refuses the push to {repo}: {cause}")
    return StageError(
        f"cannot reach the hub at {endpoint()}: {cause}; check the network and HF_ENDPOINT, then the same "
        "command tries again"
    )


def _status(error: BaseException | None) -> int | None:
    """The HTTP status of an error or of what caused it."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return int(status)
        error = error.__cause__
    return None


def _cause(error: BaseException, token: str) -> str:
    text = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return " ".join(str(text).replace(token, "***").split())[:_MESSAGE_SHOWN]
