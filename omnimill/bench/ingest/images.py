"""JPEG files into committed shards, against img2dataset, Daft and plain Ray Data, and a bare pool of threads.

Every contestant reads the same files from a local folder and writes pictures whose short side is at most 384 pixels as
JPEG of quality 90 with 4:2:0 chroma; smaller ones keep their bytes. Ours also proves every file, filters by size,
aspect, uniformity and blur, hashes, and commits units of 256 files under a manifest; no peer does the last three.
img2dataset gets its filters of size and aspect, ``file://`` addresses in place of a web server, and hashing off.
Daft and Ray Data run on every row what img2dataset does too (OpenCV: decode, area means, encode) and write Parquet.

The ceiling is a bare pool of as many threads as there are cores whose function decodes no larger than needed, resizes
and encodes; it keeps nothing and writes nothing. A second row gives that function to Daft and Ray Data as well: what is
left there is the cost of getting pictures in and out.

Ray is started before the clock, for us and for Ray Data; workers start with the work.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from omnimill.bench.contest import Run, run_alone
from omnimill.bench.ingest.photos import write_photos
from omnimill.bench.metric import OURS, Metric

FILES = 20_000
SHORT_SIDE = 384
QUALITY = 90
MIN_SIDE = 64
MAX_ASPECT = 3.0
FILES_PER_TAR = 1_000
CEILING = "bare_threads"
TARS = "omnimill_tars"
# Ends the names of peers that run our function.
GIVEN = "_given_function"

Contest = Callable[[], int]
Convert = Callable[[bytes], bytes]


def run() -> list[Metric]:
    """Images per second and peak memory of all contestants, and ours from tars."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "photos")
        paths = write_photos(inputs, FILES)
        write_tars(paths, Path(folder, "tars"))
        runs = {name: run_alone(prepare) for name, prepare in contests(folder).items()}
    for name, done in runs.items():
        if done.value != FILES:
            sys.stderr.write(f"{name} wrote {done.value} of {FILES} pictures\n")
    return metrics(runs)


def metrics(runs: dict[str, Run[int]]) -> list[Metric]:
    speed = {name: done.value / done.seconds for name, done in runs.items()}
    ceiling, tars = speed.pop(CEILING), speed.pop(TARS)
    given = {name: speed.pop(name + GIVEN) for name in ("ray_data", "daft") if name + GIVEN in speed}
    memory = {name: done.peak_bytes / 1e6 for name, done in runs.items() if name in speed}
    return [
        Metric.of("jpeg_images", "1/s", speed, best="largest", ceiling=ceiling),
        Metric.of("jpeg_images_same_function", "1/s", {OURS: speed[OURS], **given}, best="largest", ceiling=ceiling),
        Metric.of("jpeg_images_from_tars", "1/s", {OURS: tars}, best="largest", ceiling=ceiling),
        Metric.of("jpeg_images_peak_memory", "MB", memory, best="smallest"),
        Metric.of("jpeg_images_from_tars_peak_memory", "MB", {OURS: runs[TARS].peak_bytes / 1e6}, best="smallest"),
    ]


def contests(folder: str) -> dict[str, Callable[[], Contest]]:
    """All contestants that are installed, by name."""
    found: dict[str, Callable[[], Contest]] = {
        CEILING: partial(_bare_threads, folder),
        OURS: partial(_ours, folder, {"type": "image_folder", "path": f"{folder}/photos"}),
        TARS: partial(_ours, folder, {"type": "webdataset", "path": f"{folder}/tars"}),
        "ray_data": partial(_ray_data, folder, usual),
        "ray_data" + GIVEN: partial(_ray_data, folder, bare),
        "daft": partial(_daft, folder, usual),
        "daft" + GIVEN: partial(_daft, folder, bare),
        "img2dataset": partial(_img2dataset, folder),
    }
    missing = [name for name in ("daft", "img2dataset") if find_spec(name) is None]
    for name in missing:
        sys.stderr.write(f"{name} is not installed (the `bench` extra): left out\n")
    return {name: prepare for name, prepare in found.items() if name.removesuffix(GIVEN) not in missing}


def write_tars(paths: list[Path], folder: Path) -> None:
    """The files as tars of samples with a caption each."""
    folder.mkdir()
    for start in range(0, len(paths), FILES_PER_TAR):
        with tarfile.open(folder / f"{start // FILES_PER_TAR:05d}.tar", "w") as archive:
            for path in paths[start : start + FILES_PER_TAR]:
                archive.add(path, path.name)
                caption = b"A made-up photograph."
                header = tarfile.TarInfo(f"{path.stem}.txt")
                header.size = len(caption)
                archive.addfile(header, io.BytesIO(caption))


def bare(data: bytes) -> bytes:
    """Decode no larger than needed, resize, encode: what every picture costs at least."""
    import cv2  # noqa: PLC0415 - in the contestants' processes only
    import simplejpeg  # noqa: PLC0415

    cv2.setNumThreads(1)
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    scale = SHORT_SIDE / min(width, height)
    if scale >= 1:
        simplejpeg.decode_jpeg(data, "RGB")  # the proof that it can be read
        return data
    size = round(width * scale), round(height * scale)
    # Up to half the size libjpeg-turbo's transform is vectorised, and bilinear interpolation leaves no pixel out.
    half = {"min_width": -(-width // 2), "min_height": -(-height // 2)} if scale <= 0.5 else {}
    small = cv2.resize(simplejpeg.decode_jpeg(data, "RGB", **half), size, interpolation=cv2.INTER_LINEAR)
    return bytes(simplejpeg.encode_jpeg(small, QUALITY, colorspace="RGB", colorsubsampling="420"))


def usual(data: bytes) -> bytes:
    """Decode, resize by area means, encode, as img2dataset does."""
    import cv2  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    cv2.setNumThreads(1)
    pixels = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    height, width = pixels.shape[:2]
    scale = SHORT_SIDE / min(width, height)
    if scale >= 1:
        return data
    small = cv2.resize(pixels, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1])


def _bare_threads(folder: str) -> Contest:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    paths = _photos(folder)
    bare(paths[0].read_bytes())

    def work() -> int:
        with ThreadPoolExecutor(_cores()) as pool:
            return sum(pool.map(lambda path: len(bare(path.read_bytes())) > 0, paths))

    return work


def _ours(folder: str, source: dict[str, str]) -> Contest:
    from omnimill.infra import lineage  # noqa: PLC0415
    from omnimill.infra.ray_session import ray_session  # noqa: PLC0415
    from omnimill.pipelines.dag import Dag  # noqa: PLC0415
    from omnimill.pipelines.run import ingest  # noqa: PLC0415

    operators: list[dict[str, str | float]] = [
        {"op": "image_size", "min_side": MIN_SIDE},
        {"op": "image_aspect", "max_ratio": MAX_ASPECT},
        {"op": "image_uniform"},
        {"op": "image_blur"},
        {"op": "image_resize", "short_side": SHORT_SIDE, "quality": QUALITY},
    ]
    root = f"{folder}/{source['type']}"
    lineage.runs(root)  # makes the tracking store, once for all runs under a root
    dag = Dag.model_validate({"dataset": "photos", "sources": [{"name": "photos", **source, "operators": operators}]})
    session = ray_session(_cores())
    session.__enter__()

    def work() -> int:
        rows = ingest(dag, root).manifest.rows
        session.__exit__(None, None, None)
        return rows

    return work


def _ray_data(folder: str, function: Convert) -> Contest:
    import ray  # noqa: PLC0415

    from omnimill.infra.ray_session import ray_session  # noqa: PLC0415

    session = ray_session(_cores())
    session.__enter__()

    def one(row: dict[str, bytes]) -> dict[str, bytes]:
        return {"path": row["path"], "jpeg": function(row["bytes"])}

    def work() -> int:
        files = ray.data.read_binary_files(f"{folder}/photos", include_paths=True)
        files.map(one).write_parquet(f"{folder}/ray_data_{function.__name__}")
        rows = _parquet_rows(f"{folder}/ray_data_{function.__name__}")
        session.__exit__(None, None, None)
        return rows

    return work


def _daft(folder: str, function: Convert) -> Contest:
    import daft  # noqa: PLC0415

    daft.set_runner_native()
    expression = daft.func(function, return_dtype=daft.DataType.binary())

    def work() -> int:
        files = daft.from_glob_path(f"{folder}/photos/*.jpg")
        loaded = files.with_column("data", files["path"].download())
        converted = loaded.select(loaded["path"], expression(loaded["data"]).alias("jpeg"))
        converted.write_parquet(f"{folder}/daft_{function.__name__}")
        return _parquet_rows(f"{folder}/daft_{function.__name__}")

    return work


def _img2dataset(folder: str) -> Contest:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks the web for a newer version of itself
    from img2dataset import download  # noqa: PLC0415

    urls = Path(folder, "urls.txt")
    urls.write_text("\n".join(path.as_uri() for path in _photos(folder)))

    def work() -> int:
        with redirect_stdout(sys.stderr):
            download(
                url_list=str(urls),
                output_folder=f"{folder}/img2dataset",
                output_format="webdataset",
                processes_count=_cores(),
                thread_count=8,
                number_sample_per_shard=FILES_PER_TAR,
                image_size=SHORT_SIDE,
                resize_mode="keep_ratio",
                resize_only_if_bigger=True,
                skip_reencode=True,
                encode_quality=QUALITY,
                min_image_size=MIN_SIDE,
                max_aspect_ratio=MAX_ASPECT,
                compute_hash=None,
                extract_exif=False,
            )
        return sum(1 for _ in _tar_pictures(f"{folder}/img2dataset"))

    return work


def _tar_pictures(folder: str) -> Iterator[str]:
    for path in Path(folder).glob("*.tar"):
        with tarfile.open(path) as archive:
            yield from (name for name in archive.getnames() if name.endswith(".jpg"))


def _parquet_rows(folder: str) -> int:
    import pyarrow.parquet as pq  # noqa: PLC0415

    return sum(pq.read_metadata(path).num_rows for path in Path(folder).glob("*.parquet"))


def _photos(folder: str) -> list[Path]:
    return sorted(Path(folder, "photos").glob("*.jpg"))


def _cores() -> int:
    return len(os.sched_getaffinity(0))
