"""Near-duplicate pictures by perceptual hashes, against imagehash and, where it is installed, imagededup.

Speed is hashes per second of processor time, from JPEG files in memory. Recall is measured for one kind of change at a
time: the share of 200 pictures that are found to be the same as their changed copy; precision is the share of all pairs
found, among originals and copies of all kinds, that belong together. Ours goes through the bands of the `image_near`
step; the peers compare every pair and take 64-bit pHashes for the same that differ in up to 10 bits, imagededup's
default.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec

import cv2
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from omnimill.bench.contest import run_alone
from omnimill.bench.ingest import photos
from omnimill.bench.metric import OURS, Metric

PICTURES = 200
PEER_DISTANCE = 10
TIMED = 3

Pixels = NDArray[np.uint8]
Pairs = set[tuple[int, int]]
# What a contestant returns: hashes per second of processor time, and the pairs that it found, by numbers of pictures.
Found = tuple[float, Pairs]


def _cut(share: float, rgb: Pixels) -> Pixels:
    """Without a share of its height and width on each side."""
    y, x = (round(side * share) for side in rgb.shape[:2])
    return np.ascontiguousarray(rgb[y : rgb.shape[0] - y, x : rgb.shape[1] - x])


def _resized(rgb: Pixels, width: int, height: int) -> Pixels:
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _decoded(data: bytes) -> Pixels:
    """A JPEG file's pixels, uint8 [height, width, 3]."""
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


CHANGES: Mapping[str, tuple[Callable[[Pixels], Pixels], int]] = {
    "encoded_again": (lambda rgb: rgb, 40),
    "half_size": (lambda rgb: _resized(rgb, rgb.shape[1] // 2, rgb.shape[0] // 2), 85),
    "thumbnail": (lambda rgb: _resized(rgb, 160, 120), 85),
    "grey": (lambda rgb: np.repeat(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)[:, :, None], 3, 2), 85),
    "brighter": (lambda rgb: np.asarray(cv2.convertScaleAbs(rgb, alpha=1.2, beta=10), np.uint8), 85),
    "mirrored": (lambda rgb: np.ascontiguousarray(rgb[:, ::-1]), 85),
    "cut_1_percent": (partial(_cut, 0.01), 85),
    "cut_2_percent": (partial(_cut, 0.02), 85),
    "cut_5_percent": (partial(_cut, 0.05), 85),
}


def run() -> list[Metric]:
    """Time all contestants on the same files and compare the pairs that they find with those that were planted."""
    contests: dict[str, Callable[[], Callable[[], Found]]] = {"omnimill": _ours}
    for name, prepare in {"imagehash": _imagehash, "imagededup": _imagededup}.items():
        if find_spec(name) is None:
            sys.stderr.write(f"{name} is not installed: not among the peers for near-duplicate pictures\n")
        else:
            contests[name] = prepare
    runs = {name: run_alone(prepare).value for name, prepare in contests.items()}
    speed = {name: found[0] for name, found in runs.items()}
    metrics = [Metric.of("image_hashes_per_core_second", "1/s", speed, best="largest")]
    for number, change in enumerate(CHANGES, start=1):
        planted = {(i, i + number * PICTURES) for i in range(PICTURES)}
        recalls = {name: len(planted & pairs) / PICTURES for name, (_, pairs) in runs.items()}
        metrics.append(_share(f"image_near_recall_{change}", recalls))
    precisions = {
        name: sum(a % PICTURES == b % PICTURES for a, b in pairs) / max(len(pairs), 1)
        for name, (_, pairs) in runs.items()
    }
    return [*metrics, _share("image_near_precision", precisions)]


def _share(name: str, values: Mapping[str, float]) -> Metric:
    """A share, which has no meaningful ratio: it may be 0."""
    peers = {peer: value for peer, value in values.items() if peer != OURS}
    return Metric(name, "share", values[OURS], peers, None, None, None)


def files() -> list[bytes]:
    """JPEG files: `PICTURES` originals, then as many copies for each of `CHANGES`, in order."""
    scenes = [photos.scene(i) for i in range(photos.SCENES)]
    originals = [photos.photo(scenes, i) for i in range(PICTURES)]
    pixels = [_decoded(data) for data in originals]
    copies = [_jpeg(change(rgb), quality) for change, quality in CHANGES.values() for rgb in pixels]
    return originals + copies


def _jpeg(rgb: Pixels, quality: int) -> bytes:
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), settings)[1])


def _ours() -> Callable[[], Found]:
    import pyarrow as pa  # noqa: PLC0415 - in the contestant's process

    from omnimill.pipelines.dedup.base import NODE  # noqa: PLC0415
    from omnimill.pipelines.dedup.image_hash import hash_picture  # noqa: PLC0415
    from omnimill.pipelines.dedup.steps.image_near import ImageNear  # noqa: PLC0415
    from omnimill.schema import Image  # noqa: PLC0415

    images = []
    for data in files():
        height, width = _decoded(data).shape[:2]
        images.append(Image(data=data, format="jpeg", width=width, height=height, digest=blake3(data).hexdigest()))

    def work() -> Found:
        speed = _speed(hash_picture, images[:PICTURES])
        hashes = [hash_picture(image) for image in images]
        column = pa.array([None if pair is None else pair.tobytes() for pair in hashes], pa.binary(64))
        index = np.arange(len(images))
        node = [index.astype(field.type.to_pandas_dtype()) for field in NODE]
        step = ImageNear(step="image_near")
        edges = step.link(step.keyed(pa.table([*node, column], names=[*NODE.names, "hash"])))
        ends = [edges.column(f"{end}_row").to_pylist() for end in "ba"]
        return speed, {(min(pair), max(pair)) for pair in zip(*ends, strict=True)}

    return work


def _imagehash() -> Callable[[], Found]:
    import imagehash  # noqa: PLC0415 - in the contestant's process
    from PIL import Image  # noqa: PLC0415

    def compute(data: bytes) -> NDArray[np.uint8]:
        return np.packbits(imagehash.phash(Image.open(io.BytesIO(data))).hash)

    return partial(_compare, compute, files())


def _imagededup() -> Callable[[], Found]:
    from imagededup.methods import PHash  # noqa: PLC0415 - in the contestant's process

    method = PHash(verbose=False)

    def compute(data: bytes) -> NDArray[np.uint8]:
        return np.frombuffer(bytes.fromhex(method.encode_image(image_array=_decoded(data))), np.uint8)

    return partial(_compare, compute, files())


def _compare(compute: Callable[[bytes], NDArray[np.uint8]], data: list[bytes]) -> Found:
    """Hashes of 8 bytes, every pair compared."""
    speed = _speed(compute, data[:PICTURES])
    hashes = np.stack([compute(one) for one in data]).view(np.uint64)[:, 0]
    left, right = np.triu_indices(len(hashes), 1)
    near = np.bitwise_count(hashes[left] ^ hashes[right]) <= PEER_DISTANCE
    return speed, set(zip(left[near].tolist(), right[near].tolist(), strict=True))


def _speed(compute: Callable[..., object], data: Sequence[object]) -> float:
    """Hashes per second of processor time: the median of some passes."""
    seconds = []
    for _ in range(TIMED):
        started = time.process_time()
        for one in data:
            compute(one)
        seconds.append(time.process_time() - started)
    return len(data) / float(np.median(seconds))
