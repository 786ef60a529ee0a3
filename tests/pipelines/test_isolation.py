"""Calls in a child process: every way in which hostile input may end one is a verdict on that input alone."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from omnimill.errors import BadRecord, OmnimillError
from omnimill.pipelines.decoders.transcripts import parse_transcript
from omnimill.pipelines.isolation import isolated


def test_a_call_returns_its_value_from_another_process() -> None:
    assert isolated("video", 20, sorted, [3, 1, 2]) == [1, 2, 3]
    assert isolated("video", 20, os.getpid) != os.getpid()


def test_a_child_is_kept_for_the_next_call() -> None:
    assert isolated("video", 20, os.getpid) == isolated("audio", 20, os.getpid)


def test_a_crash_is_a_verdict_and_the_next_call_works() -> None:
    with pytest.raises(BadRecord) as caught:
        isolated("mesh", 20, os._exit, 3)
    assert caught.value.reason == "mesh_crash"
    assert isolated("mesh", 20, abs, -1) == 1


def test_a_hang_ends_at_its_limit() -> None:
    started = time.monotonic()
    with pytest.raises(BadRecord) as caught:
        isolated("video", 0.3, time.sleep, 60)
    assert caught.value.reason == "video_timeout"
    assert time.monotonic() - started < 10


def test_memory_is_limited() -> None:
    with pytest.raises(BadRecord) as caught:
        isolated("mesh", 20, bytearray, 16 << 30)
    assert caught.value.reason == "mesh_memory"


def test_verdicts_and_unforeseen_errors_come_back() -> None:
    with pytest.raises(BadRecord) as caught:
        isolated("text", 20, parse_transcript, b"", "vtt")
    assert caught.value.reason == "transcript_malformed"
    with pytest.raises(OmnimillError, match="ValueError: invalid literal"):
        isolated("text", 20, int, "no number")


def test_threads_share_the_children() -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda number: isolated("video", 20, abs, -number), range(12)))
    assert found == list(range(12))
