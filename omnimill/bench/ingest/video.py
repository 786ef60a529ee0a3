"""Films into committed shards: shots, a frame a second and 16 kHz sound, against ffmpeg's own recipes.

The recipe of three passes is the usual one (video2dataset cuts, samples frames and extracts sound in steps of their
own); that of one pass is the best that ffmpeg's command line can do. The ceiling is every frame decoded by PyAV and
thrown away, which is what one pass cannot go below. Here B-frames that nobody asked for are not decoded, and what is
left of decoding, about two thirds of it, is the limit: some 1.5 times the rate of one pass.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe
from numpy.typing import NDArray

from omnimill import rng
from omnimill.bench.contest import run_alone
from omnimill.bench.ingest.photos import SCENE_SIDE, SCENES, scene
from omnimill.bench.metric import OURS, Metric
from omnimill.infra.ray_session import ray_session
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.decoders.film import FilmWish, read_film
from omnimill.pipelines.decoders.probe import MediaLimits, probe
from omnimill.pipelines.decoders.shots import ShotSettings
from omnimill.pipelines.run import ingest

CLIPS = 200
# So many are really encoded; the others are the same streams in files of their own.
DISTINCT = 24
WIDTH, HEIGHT, FRAME_RATE = 1280, 720, 30
# What video sites serve 720p at.
BITS_PER_SECOND = 2_000_000
GRAIN = 6
SHOT_SECONDS = (1.2, 3.5)
SECONDS = (4.0, 10.0)
MAX_SIDE = 512
# Of ffmpeg's scene score; 0.3 to 0.4 is what its documentation suggests.
SCENE_SCORE = 0.3
FILMS_PER_UNIT = 8
SEED = 23


@dataclass(frozen=True)
class Clip:
    """A film of the contest. cuts: times of the first frames of its shots but the first, seconds."""

    path: Path
    cuts: tuple[float, ...]


def run() -> list[Metric]:
    """Clips per second from files to committed output, with every core busy, and how many cuts were found."""
    with tempfile.TemporaryDirectory() as folder:
        clips = write_clips(Path(folder) / "films", CLIPS)
        paths = [str(clip.path) for clip in clips]
        contestants: dict[str, Callable[[], Callable[[], None]]] = {
            OURS: partial(_ours, str(Path(folder) / "films"), str(Path(folder) / "root")),
            "ffmpeg_one_pass": partial(_ffmpeg, paths, str(Path(folder) / "one"), (_everything,)),
            "ffmpeg_three_passes": partial(_ffmpeg, paths, str(Path(folder) / "three"), (_cuts, _frames, _sound)),
        }
        runs = {name: run_alone(contestant) for name, contestant in contestants.items()}
        bare = run_alone(partial(_bare, paths))
        found = {OURS: _cuts_of_ours(clips[:DISTINCT]), "ffmpeg": _cuts_of_ffmpeg(clips[:DISTINCT])}
    rates = {name: len(paths) / run.seconds for name, run in runs.items()}
    memory = {name: run.peak_bytes / 2**20 for name, run in runs.items()}
    scores = {name: _f1([clip.cuts for clip in clips[:DISTINCT]], times) for name, times in found.items()}
    return [
        Metric.of("films", "clips/s", rates, best="largest", ceiling=len(paths) / bare.seconds),
        Metric.of("films_peak_memory", "MiB", memory, best="smallest"),
        Metric.of("cuts_found_f1", "share", scores, best="largest"),
    ]


def write_clips(folder: Path, count: int) -> list[Clip]:
    """720p H.264 and AAC of 4 to 10 s: a camera moves over made-up pictures with grain, with hard cuts between."""
    folder.mkdir(parents=True)
    views = [scene(number) for number in range(SCENES)]
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(partial(_clip, folder, views), range(min(count, DISTINCT))))
    clips = list(made)
    for number in range(len(made), count):
        same = made[number % len(made)]
        path = folder / f"{number:05d}.mp4"
        _call("-i", same.path, "-c", "copy", "-metadata", f"comment={number}", path)
        clips.append(Clip(path, same.cuts))
    return clips


def _clip(folder: Path, views: Sequence[NDArray[np.uint8]], number: int) -> Clip:
    draw = rng.generator(SEED, "clip", number)
    frames = round(draw.uniform(*SECONDS) * FRAME_RATE)
    starts = [0]
    while (following := starts[-1] + round(draw.uniform(*SHOT_SECONDS) * FRAME_RATE)) < frames - FRAME_RATE:
        starts.append(following)
    order = draw.permutation(len(views))
    path = folder / f"{number:05d}.mp4"
    picture = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", FRAME_RATE, "-i", "pipe:"]
    tone = f"anoisesrc=color=pink:sample_rate=44100:amplitude=0.3:seed={number}:duration={frames / FRAME_RATE}"
    rate = ["-b:v", BITS_PER_SECOND, "-maxrate", 2 * BITS_PER_SECOND, "-bufsize", 2 * BITS_PER_SECOND]
    coding = ["-c:v", "libx264", "-preset", "veryfast", *rate, "-pix_fmt", "yuv420p", "-threads", 1]
    arguments = [*picture, "-f", "lavfi", "-i", tone, *coding, "-c:a", "aac", "-b:a", "128k", path]
    process = subprocess.Popen([get_ffmpeg_exe(), *_QUIET, *map(str, arguments)], stdin=subprocess.PIPE)
    assert process.stdin is not None
    with process.stdin as pipe:
        for index in range(frames):
            shot = sum(index >= start for start in starts) - 1
            pipe.write(_view(views[order[shot % len(order)]], index - starts[shot], draw).tobytes())
    if process.wait():
        raise OSError(f"ffmpeg could not write {path}")
    return Clip(path, tuple(start / FRAME_RATE for start in starts[1:]))


def _view(view: NDArray[np.uint8], index: int, draw: np.random.Generator) -> NDArray[np.uint8]:
    """A frame of a camera that moves over a scene: uint8 [HEIGHT, WIDTH, 3]."""
    scale = (SCENE_SIDE - 200) / WIDTH
    across, along = 100 + 90 * np.sin(index / 40), 300 + 2 * (index % 150)
    to_source = np.array([[scale, 0, across], [0, scale, along]], np.float64)
    frame = cv2.warpAffine(view, to_source, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    grain = draw.integers(-GRAIN, GRAIN + 1, (HEIGHT, WIDTH, 1), np.int8)
    return np.asarray((frame + grain.astype(np.int16)).clip(0, 255), np.uint8)


def _ours(folder: str, root: str) -> Callable[[], None]:
    """Ingestion with the workers that it has after its first minute: they are started on a few films before."""
    dag = _dag(folder)
    session = ray_session()
    session.__enter__()
    ingest(_dag(folder, include=[f"0000{number}.mp4" for number in range(4)], files_per_unit=1), f"{root}-warm")
    return partial(_ingested, dag, root, session)


def _dag(folder: str, **settings: object) -> Dag:
    source = {
        "type": "video",
        "name": "films",
        "path": folder,
        "segments": "shots",
        "frames_per_second": 1,
        "max_side": MAX_SIDE,
        "files_per_unit": FILMS_PER_UNIT,
    }
    return Dag.model_validate({"dataset": "films", "sources": [source | settings], "decode_threads": 1})


def _ingested(dag: Dag, root: str, _: object) -> None:
    """Ingest in the session that `_` keeps until the process ends."""
    ingest(dag, root)


_Recipe = Callable[[str, Path], list[object]]
_QUIET = ("-nostdin", "-y", "-v", "error")


def _everything(path: str, out: Path) -> list[object]:
    return [
        *("-threads", 1, "-i", path, "-filter_complex_threads", 1, "-filter_complex"),
        f"[0:v]split=2[a][b];[a]select='gt(scene,{SCENE_SCORE})',metadata=print:file={out}/cuts.txt,nullsink;"
        f"[b]fps=1,scale='min({MAX_SIDE},iw)':-2[j]",
        *("-map", "[j]", "-q:v", 3, out / "%05d.jpg", "-map", "0:a", "-ac", 1, "-ar", 16_000, out / "sound.flac"),
    ]


def _cuts(path: str, out: Path) -> list[object]:
    chosen = f"select='gt(scene,{SCENE_SCORE})',metadata=print:file={out}/cuts.txt"
    return ["-threads", 1, "-i", path, "-vf", chosen, "-an", "-f", "rawvideo", os.devnull]


def _frames(path: str, out: Path) -> list[object]:
    scaled = f"fps=1,scale='min({MAX_SIDE},iw)':-2"
    return ["-threads", 1, "-i", path, "-vf", scaled, "-q:v", 3, "-an", out / "%05d.jpg"]


def _sound(path: str, out: Path) -> list[object]:
    return ["-threads", 1, "-i", path, "-vn", "-ac", 1, "-ar", 16_000, out / "sound.flac"]


def _ffmpeg(paths: Sequence[str], out: str, recipes: Sequence[_Recipe]) -> Callable[[], None]:
    """One ffmpeg per core, one thread each, which is faster than threads within each."""

    def one(path: str) -> None:
        folder = Path(out) / Path(path).stem
        folder.mkdir(parents=True)
        for recipe in recipes:
            _call(*recipe(path, folder))

    def work() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(one, paths))

    return work


def _bare(paths: Sequence[str]) -> Callable[[], None]:
    """Every frame decoded and thrown away, one film per core."""

    def one(path: str) -> None:
        with av.open(path) as film:
            film.streams.video[0].codec_context.thread_count = 1
            for _ in film.decode(video=0):
                pass

    def work() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(one, paths))

    return work


def _call(*arguments: object) -> None:
    subprocess.run([get_ffmpeg_exe(), *_QUIET, *map(str, arguments)], check=True, stdin=subprocess.DEVNULL)


def _cuts_of_ours(clips: Sequence[Clip]) -> list[tuple[float, ...]]:
    limits = MediaLimits()
    found = []
    for clip in clips:
        info = probe(str(clip.path), "video", limits)
        assert info.video is not None
        wish = FilmWish((), ((0.0, info.video.seconds),), False, ShotSettings(), MAX_SIDE)
        found.append(tuple(read_film(str(clip.path), info, wish, limits).cuts))
    return found


def _cuts_of_ffmpeg(clips: Sequence[Clip]) -> list[tuple[float, ...]]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for clip in clips:
            _call(*_cuts(str(clip.path), Path(folder)))
            text = (Path(folder) / "cuts.txt").read_text()
            found.append(tuple(float(time) for time in re.findall(r"pts_time:([\d.]+)", text)))
    return found


def _f1(planted: Sequence[Sequence[float]], found: Sequence[Sequence[float]]) -> float:
    """Harmonic mean of precision and recall; a cut counts as found within a frame."""
    hits = sum(
        any(abs(time - cut) < 1.5 / FRAME_RATE for time in times)
        for cuts, times in zip(planted, found, strict=True)
        for cut in cuts
    )
    return 2 * hits / (sum(map(len, planted)) + sum(map(len, found)))
