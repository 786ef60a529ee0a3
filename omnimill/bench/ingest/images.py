"""JPEG files into committed shards, against img2dataset, Daft and plain Ray Data, and a bare pool of threads.

Every contestant reads the same files from a local folder and writes pictures whose short side is at most 384 pixels as
JPEG of quality 90 with 4:2:0 chroma; smaller ones keep their bytes. Ours also proves every file, filters by size,
aspect, uniformity and blur, hashes, and commits units of 256 files under a manifest; no peer does the last three.
img2dataset gets its filters of size and aspect, ``file://`` addresses in place of a web server, and hashing off.
Ray Data maps what img2dataset does too (OpenCV: decode, area means, encode) over files and writes Parquet. Daft uses
its own image functions, which resize to one size for all and have no setting of quality, and writes Parquet.

The ceiling is a bare pool of as many threads as there are cores whose function decodes no larger than needed, resizes
and encodes; it keeps nothing and writes nothing. A second row gives that function to Daft and Ray Data: what is left
there is the cost of getting pictures in and out.

Every contestant finds its inputs in the page cache. Each but img2dataset, which starts its processes anew each time,
has done a few other pictures before the clock: Ray is started, workers are there and libraries loaded.
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
COMMON_SIZE = (512, 384)
QUALITY = 90
MIN_SIDE = 64
MAX_ASPECT = 3.0
FILES_PER_TAR = 1_000
FEW = "few"
# Small units enough to last until Ray has started a worker on every core.
FEW_UNITS_PER_CORE = 32
FILES_PER_FEW_UNIT = 8
CEILING = "bare_threads"
TARS = "omnimill_tars"
# Ends the names of peers that run our function.
GIVEN = "_given_function"

Contest = Callable[[], int]
Convert = Callable[[bytes], bytes]


def run() -> list[Metric]:
    """Images per second and peak memory of all contestants, and ours from tars."""
    runs: dict[str, Run[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), FILES)
        for name, prepare in contests(folder).items():
            _read_all(Path(folder))
            runs[name] = run_alone(prepare)
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


def _read_all(folder: Path) -> None:
    """Have the inputs in the page cache: this is about processors, not about whose files the system has let go."""
    for path in (*folder.glob("photos/*"), *folder.glob("tars/*")):
        path.read_bytes()


def contests(folder: str) -> dict[str, Callable[[], Contest]]:
    """All contestants that are installed, by name."""
    found: dict[str, Callable[[], Contest]] = {
        CEILING: partial(_bare_threads, folder),
        OURS: partial(_ours, folder, "image_folder", "photos"),
        TARS: partial(_ours, folder, "webdataset", "tars"),
        "ray_data": partial(_ray_data, folder, usual),
        "ray_data" + GIVEN: partial(_ray_data, folder, bare),
        "daft": partial(_daft, folder, None),
        "daft" + GIVEN: partial(_daft, folder, bare),
        "img2dataset": partial(_img2dataset, folder),
    }
    missing = [name for name in ("daft", "img2dataset") if find_spec(name) is None]
    for name in missing:
        sys.stderr.write(f"{name} is not installed (the `bench` extra): left out\n")
    return {name: prepare for name, prepare in found.items() if name.removesuffix(GIVEN) not in missing}


def write_inputs(folder: Path, count: int) -> None:
    """`count` photos in a folder and in tars with a caption each, and a few more to start with."""
    photos = write_photos(folder / "photos", count)
    _write_tars(photos, folder / "tars", min(FILES_PER_TAR, -(-count // _cores())))
    few = write_photos(folder / FEW / "photos", FEW_UNITS_PER_CORE * FILES_PER_FEW_UNIT * _cores())
    _write_tars(few, folder / FEW / "tars", FILES_PER_FEW_UNIT)


def _write_tars(paths: list[Path], folder: Path, size: int) -> None:
    folder.mkdir()
    for number, start in enumerate(range(0, len(paths), size)):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as archive:
            for path in paths[start : start + size]:
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

    def work(folder: str) -> int:
        with ThreadPoolExecutor(_cores()) as pool:
            return sum(pool.map(lambda path: len(bare(path.read_bytes())) > 0, _photos(folder)))

    work(f"{folder}/{FEW}")
    return partial(work, folder)


def _ours(folder: str, source: str, inputs: str) -> Contest:
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
    session = ray_session(_cores())
    session.__enter__()

    def work(path: str, dataset: str, **settings: int) -> int:
        entry = {"name": "photos", "type": source, "path": path, "operators": operators, **settings}
        dag = Dag.model_validate({"dataset": dataset, "sources": [entry]})
        return ingest(dag, f"{folder}/root_of_{inputs}").manifest.rows

    few = {"images_per_unit": FILES_PER_FEW_UNIT} if source == "image_folder" else {}
    work(f"{folder}/{FEW}/{inputs}", "few", **few)

    def timed() -> int:
        rows = work(f"{folder}/{inputs}", "photos")
        session.__exit__(None, None, None)
        return rows

    return timed


def _ray_data(folder: str, function: Convert) -> Contest:
    import ray  # noqa: PLC0415

    from omnimill.infra.ray_session import ray_session  # noqa: PLC0415

    session = ray_session(_cores())
    session.__enter__()

    def one(row: dict[str, bytes]) -> dict[str, bytes]:
        return {"path": row["path"], "jpeg": function(row["bytes"])}

    def work(folder: str) -> int:
        output = f"{folder}/ray_data_{function.__name__}"
        files = ray.data.read_binary_files(f"{folder}/photos", include_paths=True)
        files.map(one).write_parquet(output)
        return _parquet_rows(output)

    work(f"{folder}/{FEW}")

    def timed() -> int:
        rows = work(folder)
        session.__exit__(None, None, None)
        return rows

    return timed


def _daft(folder: str, function: Convert | None) -> Contest:
    import daft  # noqa: PLC0415

    daft.set_runner_native()

    def work(folder: str) -> int:
        output = f"{folder}/daft_{'own' if function is None else function.__name__}"
        files = daft.from_glob_path(f"{folder}/photos/*.jpg")
        data = files["path"].download()
        if function is None:
            jpeg = data.decode_image(mode="RGB").resize(*COMMON_SIZE).encode_image("jpeg")
        else:
            jpeg = daft.func(function, return_dtype=daft.DataType.binary())(data)
        files.select(files["path"], jpeg.alias("jpeg")).write_parquet(output)
        return _parquet_rows(output)

    work(f"{folder}/{FEW}")
    return partial(work, folder)


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
