"""What a server could not be told yet: kept in a file, in its order, and told when the server is back.

While the server answers, a message is sent at once and nothing is written. When it stops answering, messages go to a
file and a thread tries again, so that a command whose server is away works on at its own pace. What still waits when
the command ends stays in the file, which whoever comes next sends: :func:`left_behind`.

A file belongs to the process that holds its lock, and the lock ends with the process; so what a killed command left is
told from what a living one still sends. Messages have to bear being sent twice: an answer may be lost.
"""

from __future__ import annotations

import fcntl
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from uuid import uuid4

from omnimill.config import digest_json
from omnimill.infra import storage
from omnimill.infra.machine_folder import machine_folder
from omnimill.progress import console

Message = Mapping[str, Any]

FOLDER = "unsent"
# Seconds between two tries to reach a server that is away: the first, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
# Times that a message is sent to a server that can be reached, before it is given up.
TRIES = 3
# Seconds that a command waits at its end for a server that is away.
PATIENCE = 10.0


class Server(Protocol):
    """What messages are sent to. name: for people. key: the same for the same server, without its secrets."""

    name: str
    key: str

    def send(self, message: Message) -> None:
        """Send one message; raises what went wrong."""

    def refuses(self, error: Exception) -> bool:
        """Whether the server has answered that it will not take the message, now or later."""

    def answers(self) -> bool:
        """Whether the server can be reached at all; then it is a message that is at fault if it comes to nothing."""

    def merged(self, first: Message, second: Message) -> Message | None:
        """Both messages as one; None when they cannot be."""


class Outbox:
    """The messages of one run to one server.

    Args:
        root: of the datasets and runs; what could not be sent is kept there, see :func:`folder`.
        run: id of the run, for the file's name.
        server: that is told.
    """

    def __init__(self, root: str, run: str, server: Server) -> None:
        self._root, self._server = root, server
        self._name = f"{run}-{server.key[:8]}-{uuid4().hex[:8]}.jsonl"
        self._lock = threading.Lock()  # of the file and of the order
        self._sending = threading.Lock()
        self._file: BinaryIO | None = None
        self._sent = 0  # bytes of the file
        self._tries = 0  # of the first message that waits
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def path(self) -> Path:
        """Where messages wait; there is no such file when none does."""
        return folder(self._root) / self._name

    def put(self, message: Message) -> None:
        """Send a message, or keep it until the server is back.

        Raises:
            Exception: the server refuses it; whatever the server's client raises.
        """
        with self._lock:
            if self._file is None:
                try:
                    self._server.send(message)
                    return
                except Exception as error:
                    if self._server.refuses(error):
                        raise
                    self._wait_from_here(error)
            assert self._file is not None
            _append(self._file, message)

    def close(self, patience: float | None = None) -> None:
        """Send what waits, for `patience` seconds or PATIENCE, and leave the rest to the next command."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        deadline = time.monotonic() + (PATIENCE if patience is None else patience)
        while not self._flush():
            if time.monotonic() >= deadline:
                self._leave()
                return
            time.sleep(FIRST_PAUSE / 2)

    def _wait_from_here(self, error: Exception) -> None:
        self._file = _open_locked(self.path, {"server": self._server.key})
        self._sent = self._file.tell()
        said = next(iter(str(error).splitlines()), "")[:300]
        console.print(
            f"{self._server.name} cannot be told ({type(error).__name__}: {said}); the work goes on, and what is to "
            f"be told waits in {self.path}",
            style="yellow",
            soft_wrap=True,
        )
        if not self._closing.is_set():
            self._thread = threading.Thread(target=self._retry, name="outbox", daemon=True)
            self._thread.start()

    def _retry(self) -> None:
        pause = FIRST_PAUSE
        while not self._closing.wait(pause):
            if self._flush():
                return
            pause = min(2 * pause, LONGEST_PAUSE)

    def _flush(self) -> bool:
        """Send what waits; whether all is sent."""
        with self._sending:
            while True:
                with self._lock:
                    if self._file is None:
                        return True
                    waiting = _read(self.path, self._sent)
                    if not waiting:
                        self._file.close()
                        self._file = None
                        self.path.unlink()
                        console.print(f"{self._server.name} has now been told all that waited", style="dim")
                        return True
                for message, end in _merged(waiting, self._server):
                    if not self._taken(message):
                        return False
                    self._sent, self._tries = end, 0

    def _taken(self, message: Message) -> bool:
        """Whether a message need not be sent again."""
        try:
            self._server.send(message)
        except Exception as error:  # noqa: BLE001 - clients raise anything
            if not self._server.refuses(error):
                self._tries += self._server.answers()
                if self._tries < TRIES:
                    return False
            _give_up(self._server, error)
        return True

    def _leave(self) -> None:
        assert self._file is not None
        where = str(self.path)
        with self._lock:
            if not storage.is_local(self._root):
                # Another machine may be the next to work under this root.
                where = storage.join(self._root, FOLDER, self._name)
                storage.publish_bytes(where, self.path.read_bytes())
                self.path.unlink()
            self._file.close()
            self._file = None
        console.print(
            f"{self._server.name} still cannot be told: all that it does not know waits in {where}. The next command "
            f"under this root tells it, or `omnimill lineage flush --root {self._root}`.",
            style="bold yellow",
            soft_wrap=True,
        )


def folder(root: str) -> Path:
    """Where this machine keeps what waits: under a local root, else below its temporary folder."""
    if storage.is_local(root):
        return Path(storage.filesystem(root)[1]) / FOLDER
    return machine_folder(FOLDER) / digest_json(root)[:16]


def left_behind(root: str, server: Server) -> int:
    """Send what commands that have ended could not tell a server.

    Returns:
        Number of messages that are told now.

    Raises:
        Exception: the server does not answer; whatever its client raises. What is not told stays.
    """
    told = 0
    home = folder(root)
    for path in sorted(home.glob("*.jsonl")) if home.exists() else ():
        with _taken_over(path) as mine:
            if mine and (waiting := _of_server(path.read_bytes(), server)) is not None:
                told += _send_all(waiting, server)
                path.unlink(missing_ok=True)
    if not storage.is_local(root):
        for name in storage.list_folder(storage.join(root, FOLDER)):
            url = storage.join(root, FOLDER, name)
            try:
                waiting = _of_server(storage.read_bytes(url), server)
            except FileNotFoundError:
                continue  # another command was faster
            if waiting is not None:
                told += _send_all(waiting, server)
                files, path_there = storage.filesystem(url)
                files.rm_file(path_there)
    return told


def _send_all(waiting: Sequence[tuple[Message, int]], server: Server) -> int:
    for message, _ in _merged(waiting, server):
        for tries in range(1, TRIES + 1):
            try:
                server.send(message)
                break
            except Exception as error:
                if not server.refuses(error):
                    if not server.answers():
                        raise
                    if tries < TRIES:
                        time.sleep(FIRST_PAUSE / 2)
                        continue
                _give_up(server, error)
                break
    return len(waiting)


def _give_up(server: Server, error: Exception) -> None:
    console.print(f"{server.name} did not take a message that waited, which is lost: {error}", style="yellow")


def _merged(waiting: Sequence[tuple[Message, int]], server: Server) -> Iterator[tuple[Message, int]]:
    """Messages with the byte behind each, neighbours merged."""
    before: tuple[Message, int] | None = None
    for message, end in waiting:
        if before is not None:
            both = server.merged(before[0], message)
            if both is not None:
                before = (both, end)
                continue
            yield before
        before = (message, end)
    if before is not None:
        yield before


def _open_locked(path: Path, head: Message) -> BinaryIO:
    """A new file that is this process's own from the moment it has its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nameless = path.with_suffix(".new")
    file = nameless.open("ab")
    fcntl.flock(file, fcntl.LOCK_EX)
    _append(file, head)
    nameless.rename(path)
    return file


@contextmanager
def _taken_over(path: Path) -> Iterator[bool]:
    """Whether a file has no living owner; then it is this process's for the length of the ``with`` block."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield path.exists()


def _append(file: BinaryIO, message: Message) -> None:
    file.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
    file.flush()


def _read(path: Path, start: int) -> list[tuple[Message, int]]:
    with path.open("rb") as file:
        file.seek(start)
        return _messages(file.read(), start)


def _messages(body: bytes, start: int = 0) -> list[tuple[Message, int]]:
    """Whole lines and the byte behind each; a line that its writer's death cut short was never promised."""
    found: list[tuple[Message, int]] = []
    for line in body.splitlines(keepends=True):
        start += len(line)
        if line.endswith(b"\n"):
            found.append((json.loads(line), start))
    return found


def _of_server(body: bytes, server: Server) -> list[tuple[Message, int]] | None:
    """The messages of a file, when they are for this server."""
    head, *messages = _messages(body) or [({}, 0)]
    return messages if head[0].get("server") == server.key else None
