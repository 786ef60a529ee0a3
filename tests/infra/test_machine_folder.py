"""What a machine makes once: by one process, while others wait, and again only when it is not as it was."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from omnimill.infra.machine_folder import made_once


def test_of_many_who_want_it_at_once_one_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made: list[str] = []

    def wanted(state: str) -> str:
        def make(folder: Path) -> None:
            time.sleep(0.01)
            made.append(state)
            (folder / "content").write_text(state)

        with made_once("things", "one", state, make) as folder:
            return (folder / "content").read_text()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(wanted, ["first"] * 40)) == {"first"}
        assert made == ["first"]
        states = ["first", "second", "third"] * 20
        assert list(pool.map(wanted, states)) == states
    (home,) = tmp_path.iterdir()
    assert len([path for path in home.iterdir() if path.is_dir()]) == 1


def test_what_was_left_half_made_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"), made_once("things", "one", "now", fail):
        pass
    with made_once("things", "one", "now", lambda folder: (folder / "whole").touch()) as folder:
        assert [path.name for path in folder.iterdir()] == ["whole"]
