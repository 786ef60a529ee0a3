"""The program's version says which program it was: by commit, or by what its files hold."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from omnimill.infra.code_version import code_version, environment


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *settings, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def _forget() -> None:
    code_version.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose package links to a room beside it, as this one's do."""
    package, room = tmp_path / "package", tmp_path / "room"
    package.mkdir()
    room.mkdir()
    (package / "__init__.py").write_text("")
    (room / "code.py").write_text("A = 1\n")
    (package / "room").symlink_to(Path("..") / "room")
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "remote", "add", "origin", "https://me:secret@example.org/it.git")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    found = code_version(checkout / "package")
    assert found.name == found.commit == git(checkout, "rev-parse", "HEAD")
    assert not found.dirty
    tags = found.tags()
    assert (tags["mlflow.source.git.branch"], tags["mlflow.source.git.dirty"]) == ("main", "false")
    assert "secret" not in str(tags)


@pytest.mark.parametrize("change", ["room/code.py", "room/new.py"])
def test_a_changed_checkout_is_its_commit_and_its_files(checkout: Path, change: str) -> None:
    commit = code_version(checkout / "package").commit
    names = set()
    for text in ("A = 2\n", "A = 3\n"):
        code_version.cache_clear()
        (checkout / change).write_text(text)
        found = code_version(checkout / "package")
        assert (found.commit, found.dirty) == (commit, True)
        names.add(found.name)
    assert len(names) == 2


def test_data_beside_the_program_does_not_change_it(checkout: Path) -> None:
    (checkout / "notes.txt").write_text("mine")
    (checkout / "room" / "__pycache__").mkdir()
    assert not code_version(checkout / "package").dirty


def test_an_installed_program_is_its_version_and_files_whatever_surrounds_it(checkout: Path) -> None:
    names = []
    for place in ("environment", "another"):
        package = checkout / place / "package"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        found = code_version(package)
        assert (found.commit, found.dirty) == (None, False)
        names.append(found.name)
    assert names[0] == names[1]
    (package / "__init__.py").write_text("B = 1\n")
    code_version.cache_clear()
    assert code_version(package).name != names[0]


def test_the_environment_names_packages_with_their_versions() -> None:
    import pyarrow

    assert environment()["packages"]["pyarrow"] == pyarrow.__version__  # type: ignore[index]
