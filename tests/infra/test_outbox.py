"""What a server cannot be told waits in its order, and is told by whoever comes next."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimill.infra import outbox
from omnimill.infra.outbox import FOLDER, Message, Outbox, left_behind

KILLED = """
import os, sys
from omnimill.infra.outbox import Outbox

class Away:
    name, key = "a server", "key"
    def send(self, message): raise ConnectionError("away")
    def refuses(self, error): return False
    def answers(self): return False
    def merged(self, first, second): return None

box = Outbox(sys.argv[1], "run", Away())
for i in range(3):
    box.put({"i": i})
print("ready", flush=True)
if sys.argv[2] == "wait":
    sys.stdin.read()
os._exit(1)
"""


class Recorder:
    """Takes messages while it is there; refuses those that are bad."""

    name = "a server"

    def __init__(self, key: str = "key") -> None:
        self.key, self.away = key, False
        self.calls = 0
        self.told: list[Message] = []

    def send(self, message: Message) -> None:
        self.calls += 1
        if self.away:
            raise ConnectionError("nobody is there")
        if message.get("bad"):
            raise ValueError("not this")
        if message.get("poison"):
            raise ConnectionError("a fault of the server's own")
        self.told.append(message)

    def refuses(self, error: Exception) -> bool:
        return isinstance(error, ValueError)

    def answers(self) -> bool:
        return not self.away

    def merged(self, first: Message, second: Message) -> Message | None:
        return {"i": [*first["i"], *second["i"]]} if "many" in first and "many" in second else None


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FIRST_PAUSE", 0.01)


@pytest.fixture
def remote() -> Iterator[str]:
    root = f"memory://{uuid4().hex}"
    yield root
    files = fsspec.filesystem("memory")
    if files.exists(root):
        files.rm(root, recursive=True)


@given(events=st.lists(st.sampled_from(["put", "put", "away", "back"]), max_size=20), last=st.booleans())
def test_all_arrives_in_order_whatever_the_outages(
    events: list[str], last: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root, server = str(tmp_path_factory.mktemp("root")), Recorder()
    box = Outbox(root, "run", server)
    for i, event in enumerate(events):
        if event == "put":
            box.put({"i": i})
        else:
            server.away = event == "away"
    server.away = last
    box.close(patience=0)
    server.away = False
    left_behind(root, server)
    assert server.told == [{"i": i} for i, event in enumerate(events) if event == "put"]
    assert not list(Path(root).glob(f"{FOLDER}/*"))


def test_a_long_outage_costs_one_try_and_no_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FIRST_PAUSE", 60.0)
    server = Recorder()
    server.away = True
    box = Outbox(str(tmp_path), "run", server)
    for i in range(1000):
        box.put({"i": i})
    assert server.calls == 1
    server.away = False
    box.close()
    assert len(server.told) == 1000


def test_a_file_that_waits_is_told_at_the_next_run_and_only_to_its_own_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Recorder()
    server.away = True
    box = Outbox(str(tmp_path), "run", server)
    box.put({"i": 1})
    box.close(patience=0)
    (waiting,) = (tmp_path / FOLDER).iterdir()
    assert str(waiting) in capsys.readouterr().err.replace("\n", "")
    assert left_behind(str(tmp_path), Recorder("another")) == 0
    with pytest.raises(ConnectionError):
        left_behind(str(tmp_path), server)
    server.away = False
    assert left_behind(str(tmp_path), server) == 1
    assert left_behind(str(tmp_path), server) == 0


def test_what_a_server_refuses_is_raised_at_once_or_given_up_later(tmp_path: Path) -> None:
    server = Recorder()
    box = Outbox(str(tmp_path), "run", server)
    with pytest.raises(ValueError, match="not this"):
        box.put({"bad": True})
    server.away = True
    for message in ({"i": 1}, {"bad": True}, {"i": 2}):
        box.put(message)
    server.away = False
    box.close()
    assert server.told == [{"i": 1}, {"i": 2}]


@pytest.mark.parametrize("left", [False, True])
def test_a_message_that_no_server_can_take_holds_up_no_other(tmp_path: Path, left: bool) -> None:
    server = Recorder()
    server.away = left
    box = Outbox(str(tmp_path), "run", server)
    for message in ({"poison": True}, {"i": 1}):
        box.put(message)
    box.close(patience=0 if left else 10)
    server.away = False
    assert left_behind(str(tmp_path), server) == 2 * left
    assert server.told == [{"i": 1}]


def test_what_waits_is_merged_where_it_can_be(tmp_path: Path) -> None:
    server = Recorder()
    server.away = True
    box = Outbox(str(tmp_path), "run", server)
    for i in range(3):
        box.put({"many": True, "i": [i]})
    box.close(patience=0)
    server.away = False
    left_behind(str(tmp_path), server)
    assert [message["i"] for message in server.told] in ([[0, 1], [2]], [[0, 1, 2]])


def test_a_killed_command_leaves_its_file_and_a_living_one_keeps_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    subprocess.run([*command, "die"], check=False, capture_output=True)
    (torn,) = (tmp_path / FOLDER).glob("*.jsonl")
    with torn.open("ab") as file:
        file.write(b'{"i": 3')
    server = Recorder()
    assert left_behind(str(tmp_path), server) == 3
    assert server.told == [{"i": 0}, {"i": 1}, {"i": 2}]
    with subprocess.Popen([*command, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as living:
        assert living.stdout is not None
        assert living.stdout.readline() == b"ready\n"
        assert left_behind(str(tmp_path), server) == 0
        living.kill()
    assert left_behind(str(tmp_path), server) == 3


def test_under_a_remote_root_another_machine_can_tell_it(remote: str) -> None:
    server = Recorder()
    server.away = True
    box = Outbox(remote, "run", server)
    box.put({"i": 1})
    assert box.path.exists()
    box.close(patience=0)
    assert not box.path.exists()
    (name,) = fsspec.filesystem("memory").ls(f"{remote}/{FOLDER}", detail=False)
    lines = [json.loads(line) for line in fsspec.filesystem("memory").cat_file(name).splitlines()]
    assert lines == [{"server": "key"}, {"i": 1}]
    server.away = False
    assert left_behind(remote, server) == 1
    assert left_behind(remote, server) == 0
