"""Local copies of shards: whole or not there, shared by processes, never beyond their limit, never lost to a reader."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from blake3 import blake3

from omnimill.errors import IntegrityError
from omnimill.infra import storage
from omnimill.infra.shard_cache import ShardCache
from omnimill.rng import generator

SIZE = 100_000


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    """URLs of a store's shards of `SIZE` bytes each."""
    folder = tmp_path / "store"
    folder.mkdir()
    urls = []
    for number in range(6):
        data = generator("shard", number).bytes(SIZE)
        path = folder / f"{blake3(data).hexdigest()}.arrow"
        path.write_bytes(data)
        urls.append(str(path))
    return urls


@pytest.fixture
def open_cache(tmp_path: Path) -> Iterator[Callable[..., ShardCache]]:
    """Opens caches in one folder."""
    opened = []

    def open_one(shards: float = 100.0) -> ShardCache:
        opened.append(ShardCache(tmp_path / "cache", round(shards * SIZE), downloads=1))
        return opened[-1]

    yield open_one
    for cache in opened:
        cache.close()


def copies(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").iterdir()} - {".room"}


def names(urls: list[str]) -> set[str]:
    return {Path(url).name for url in urls}


def content(cache: ShardCache, url: str) -> bytes:
    path = cache.path(url)
    assert path is not None
    return path.read_bytes()


def test_a_copy_is_the_shard_and_is_fetched_once(
    shards: list[str], open_cache: Callable[..., ShardCache], tmp_path: Path
) -> None:
    one, other = open_cache(), open_cache()
    wanted = Path(shards[0]).read_bytes()
    one.hold(shards[0])
    one.hold(shards[0])
    assert content(one, shards[0]) == wanted
    Path(shards[0]).unlink()  # who asks the store now gets nothing
    other.hold(shards[0])
    assert content(other, shards[0]) == wanted
    assert not one.release(shards[0])
    assert one.release(shards[0])
    one.hold(shards[0])
    assert content(one, shards[0]) == wanted
    assert copies(tmp_path) == names(shards[:1])


def test_what_was_used_longest_ago_goes_and_nothing_that_somebody_holds(
    shards: list[str], open_cache: Callable[..., ShardCache], tmp_path: Path
) -> None:
    one, other = open_cache(3), open_cache(3)
    for url in shards[:3]:
        one.hold(url)
        one.path(url)
    one.release(shards[1])
    one.release(shards[0])
    other.hold(shards[3])
    other.path(shards[3])
    assert copies(tmp_path) == names([shards[0], shards[2], shards[3]])
    # The one that is left over has been asked for again, and the only others are in use.
    one.hold(shards[0])
    one.path(shards[0])
    other.hold(shards[4])
    assert other.path(shards[4]) is None
    assert copies(tmp_path) == names([shards[0], shards[2], shards[3]])
    one.release(shards[2])
    assert content(other, shards[4]) == Path(shards[4]).read_bytes()
    assert copies(tmp_path) == names([shards[0], shards[3], shards[4]])


def test_a_shard_that_came_damaged_is_refused_and_not_kept(
    shards: list[str], open_cache: Callable[..., ShardCache], tmp_path: Path
) -> None:
    Path(shards[0]).write_bytes(Path(shards[1]).read_bytes())
    cache = open_cache()
    cache.hold(shards[0])
    with pytest.raises(IntegrityError, match=r"is damaged: its 100000 bytes have the digest"):
        cache.path(shards[0])
    assert copies(tmp_path) == set()


def test_a_download_that_was_killed_leaves_nothing_that_is_taken_for_a_shard(
    shards: list[str], open_cache: Callable[..., ShardCache], tmp_path: Path
) -> None:
    program = f"""
import os, signal
from pathlib import Path
from omnimill.infra import storage
from omnimill.infra.shard_cache import ShardCache

def half(stream):
    yield stream.read({SIZE // 2})
    os.kill(os.getpid(), signal.SIGKILL)

storage.chunks = half
cache = ShardCache(Path({str(tmp_path / "cache")!r}), {SIZE})
cache.hold({shards[0]!r})
cache.path({shards[0]!r})
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert copies(tmp_path) == {f"{Path(shards[0]).stem}.part"}
    cache = open_cache(1)
    # Its room is given to others, and it comes whole when it is asked for again.
    for url in (shards[1], shards[0]):
        cache.hold(url)
        assert content(cache, url) == Path(url).read_bytes()
        cache.release(url)
    assert copies(tmp_path) == names(shards[:1])


def start(number: int, draws: int, shards: list[str], tmp_path: Path) -> subprocess.Popen[bytes]:
    """A process that uses shards in a random order, the next one held ahead, and looks at every byte."""
    program = f"""
import sys
from pathlib import Path
from blake3 import blake3
from omnimill.infra.shard_cache import ShardCache
from omnimill.rng import generator

urls, folder = sys.argv[1:], Path({str(tmp_path / "cache")!r})
cache = ShardCache(folder, {3 * SIZE}, downloads=2)
draws = generator("uses", {number}).integers(0, len(urls), {draws})
cache.hold(urls[draws[0]])
for now, ahead in zip(draws, draws[1:]):
    cache.hold(urls[ahead])
    path = cache.path(urls[now])
    if path is not None:
        assert blake3(path.read_bytes()).hexdigest() == path.stem
    cache.release(urls[now])
"""
    return subprocess.Popen([sys.executable, "-c", program, *shards])


def test_processes_that_share_a_folder_read_what_they_hold_within_its_limit(shards: list[str], tmp_path: Path) -> None:
    running = [start(number, 120, shards, tmp_path) for number in range(2)]
    most = 0
    while any(process.poll() is None for process in running):
        most = max(most, _taken(tmp_path / "cache"))
    assert [process.returncode for process in running] == [0, 0]
    assert 0 < most <= 3 * SIZE
    assert not list((tmp_path / "cache").glob("*.part"))


@pytest.mark.fault
def test_processes_that_are_killed_at_many_moments_disturb_no_other(shards: list[str], tmp_path: Path) -> None:
    steady = [start(number, 3000, shards, tmp_path) for number in range(2)]
    killed = 0
    while any(process.poll() is None for process in steady):
        victim = start(100 + killed, 100_000, shards, tmp_path)
        time.sleep(0.5 + generator("kill", killed).uniform(0, 0.3))
        victim.kill()
        assert victim.wait() == -signal.SIGKILL
        killed += 1
        assert _taken(tmp_path / "cache") <= 3 * SIZE
    assert [process.returncode for process in steady] == [0, 0]
    assert killed > 3
    assert start(0, 50, shards, tmp_path).wait() == 0
    assert len(copies(tmp_path)) <= 3


def _taken(folder: Path) -> int:
    """Bytes of all copies, at a moment when nobody makes room."""
    if not (folder / ".room").exists():
        return 0
    with (folder / ".room").open() as room:
        fcntl.flock(room, fcntl.LOCK_EX)
        found = {}
        for path in folder.glob("*.*"):
            with suppress(FileNotFoundError):  # it has got its name
                found[path.stat().st_ino] = path.stat().st_size
        return sum(found.values())


def test_closing_does_not_wait_for_a_download_to_end(
    shards: list[str], open_cache: Callable[..., ShardCache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(stream: object) -> Iterator[bytes]:
        for _ in range(1000):
            begun.set()
            go_on.wait(0.01)
            yield b"x"

    monkeypatch.setattr(storage, "chunks", slow)
    with closing(open_cache()) as cache:
        cache.hold(shards[0])
        cache.hold(shards[1])
        assert begun.wait(10)
    assert copies(tmp_path) == set()
