"""Runs of the ffmpeg binary under limits, and the containers that media are read from.

Graphs are built with ffmpeg-python; the binary is the static one of the imageio-ffmpeg wheel.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import ffmpeg
from imageio_ffmpeg import get_ffmpeg_exe

from omnimill.errors import BadRecord

# Demuxers that read nothing but the one file they are given. Playlists and manifests (hls, dash, concat, sdp, …),
# image sequences and devices are not among them, whatever the file is called.
DEMUXERS = (
    "3g2,3gp,aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,gif,ivf,m4a,m4v,matroska,mj2,mov,mp3,mp4,mpeg,mpegts,"
    "mpegvideo,mxf,nistsphere,nut,ogg,rm,tta,w64,wav,webm,wv,y4m,yuv4mpegpipe"
)
MEMORY_BYTES = 4 << 30
_MAX_COMPLAINTS = 200
# A stored message must not differ between runs: addresses, the path of a local copy and the order in which threads end.
_VARIABLE = re.compile(r"\[[^\]\n]*@ 0x[0-9a-f]+\] ?|file:\S+|.*(?:thread|Task|Conversion).*")


def source(path: str, demuxer: str, **options: Any) -> Any:
    """The input node of a graph: a local file read by one demuxer, from no other protocol than plain files."""
    return ffmpeg.input(
        f"file:{path}", f=demuxer, protocol_whitelist="file", format_whitelist=DEMUXERS, threads=1, **options
    )


@contextmanager
def piped(output: Any, kind: str, seconds: float) -> Iterator[IO[bytes]]:
    """Run a graph and read what it writes to its pipe; the process is gone when the block is left.

    Args:
        output: output node whose target is ``pipe:``.
        kind: video or audio, the first part of the reason codes.
        seconds: limit on wall-clock time and on CPU time.

    Raises:
        BadRecord: ``<kind>_timeout``, or ``<kind>_undecodable`` when ffmpeg fails and all it wrote has been read.
    """
    arguments = output.global_args("-nostdin", "-hide_banner", "-v", "error", "-filter_threads", "1").compile(
        cmd=get_ffmpeg_exe()
    )
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"AV_LOG_FORCE_NOCOLOR": "1", "LC_ALL": "C"},
    )
    _limit(process.pid, seconds)
    assert process.stdout is not None
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(seconds, expire)
    complaints: set[str] = set()
    listener = threading.Thread(target=_listen, args=(process.stderr, complaints), daemon=True)
    timer.start()
    listener.start()
    try:
        yield process.stdout
        finished = process.stdout.read(1) == b""
        code = process.wait() if finished else 0
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        listener.join()
        process.stdout.close()
    if expired.is_set():
        raise BadRecord(f"{kind}_timeout", f"not decoded after {seconds:g} s")
    if code:
        raise BadRecord(f"{kind}_undecodable", "ffmpeg failed: " + " | ".join(sorted(complaints)[:3]))


def _limit(pid: int, seconds: float) -> None:
    """Cap the memory and CPU time of a child that has just started (`preexec_fn` is not safe beside threads)."""
    if sys.platform != "linux":
        return
    try:
        resource.prlimit(pid, resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.prlimit(pid, resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
    except ProcessLookupError:
        pass  # it has ended already


def _listen(stream: IO[bytes], complaints: set[str]) -> None:
    """Collect the different things that the process says; the rest is read and forgotten."""
    with stream:
        while line := stream.readline(500):
            text = _VARIABLE.sub("", line.decode("utf-8", "replace")).strip()
            if text and len(complaints) < _MAX_COMPLAINTS:
                complaints.add(text)
