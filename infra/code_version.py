"""Which program made something: the commit of a checkout, or the digest of the installed files; and what it ran on."""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from blake3 import blake3
from mlflow.utils.mlflow_tags import MLFLOW_GIT_BRANCH, MLFLOW_GIT_COMMIT, MLFLOW_GIT_REPO_URL

import omnimill
from omnimill.infra.tracking import without_secrets

PACKAGE = Path(omnimill.__file__).parent
_GIT_SECONDS = 10
CODE_TAG, _VERSION_TAG, _PYTHON_TAG = "omnimill.code", "omnimill.version", "omnimill.python"
_DIRTY_TAG = "mlflow.source.git.dirty"  # as newer versions of MLflow name it
# Python's own leavings, and what no import or read touches.
_SKIPPED = ("__pycache__",)


@dataclass(frozen=True)
class CodeVersion:
    """The program's version.

    commit, branch, remote: of the checkout that the program lies in; None when it lies in none.
    digest: of the program's files, where no commit says what they are: outside a checkout, or in a changed one.
    """

    version: str
    commit: str | None
    branch: str | None
    remote: str | None
    digest: str | None

    @property
    def dirty(self) -> bool:
        """Whether the checkout's files of the program differ from its commit."""
        return self.commit is not None and self.digest is not None

    @property
    def name(self) -> str:
        """One string that is the same for the same program: a commit, or version or commit with the files' digest."""
        if self.digest is None:
            return str(self.commit)
        return f"{self.commit or self.version}+{self.digest[:12]}"

    def tags(self) -> dict[str, str]:
        """As tags of an MLflow run, in MLflow's own names where it has them."""
        git = {
            MLFLOW_GIT_COMMIT: self.commit,
            MLFLOW_GIT_BRANCH: self.branch,
            MLFLOW_GIT_REPO_URL: self.remote,
            _DIRTY_TAG: None if self.commit is None else str(self.dirty).lower(),
        }
        known = {name: value for name, value in git.items() if value}
        return {_VERSION_TAG: self.version, CODE_TAG: self.name, _PYTHON_TAG: platform.python_version(), **known}


@cache
def code_version(package: Path = PACKAGE) -> CodeVersion:
    """The version of the program that lies in a folder; found out once per process."""
    commit = branch = remote = None
    changed = False
    # A package that an unrelated checkout merely surrounds is not among the files that git knows.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is not None:
        commit = _git(package, "rev-parse", "HEAD")
    if commit is not None:
        branch = _git(package, "branch", "--show-current") or None
        found = _git(package, "remote", "get-url", "origin")
        remote = without_secrets(found) if found else None
        changed = bool(_git(package, "status", "--porcelain", "--", *sorted({str(one) for one in _folders(package)})))
    digest = None if commit is not None and not changed else files_digest(package)
    return CodeVersion(omnimill.__version__, commit, branch, remote, digest)


def files_digest(package: Path) -> str:
    """64 hex digits of blake3 over names and contents of a package's files."""
    hasher = blake3()
    for name, path in sorted(_files(package)):
        body = path.read_bytes()
        hasher.update(f"{name}\0{len(body)}\0".encode())
        hasher.update(body)
    return hasher.hexdigest()


@cache
def packages() -> dict[str, str]:
    """Version of every installed Python package, by name."""
    found = {one.name: one.version for one in metadata.distributions()}
    return dict(sorted(found.items(), key=lambda pair: pair[0].lower()))


def environment() -> dict[str, object]:
    """Interpreter, machine and packages of this process."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "packages": packages(),
    }


def user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, in a container
        return str(os.getuid())


def _folders(package: Path) -> Iterator[Path]:
    """The package's folder, and those that its links lead to."""
    yield package
    yield from (path.resolve() for path in package.iterdir() if path.is_dir())


def _files(package: Path) -> Iterator[tuple[str, Path]]:
    for where, folders, names in os.walk(package, followlinks=True):
        folders[:] = [one for one in folders if one not in _SKIPPED and not one.startswith(".")]
        for name in names:
            if not name.startswith("."):
                path = Path(where, name)
                yield path.relative_to(package).as_posix(), path


def _git(folder: Path, *arguments: str) -> str | None:
    """What git answers about a folder; None when there is no git, or it refuses."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
