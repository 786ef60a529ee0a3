"""Pictures fetched from a web server on this machine into committed shards, against img2dataset alone.

Both fetch the same list with the same number of processes and threads, shrink to the same size and encode with one
quality. Ours uses img2dataset for the fetching and then checks, decodes, shrinks, judges and commits what came; the
peer writes WebDataset tars. Ray and the tracking store are up before the clock starts, everything else counts on both
sides: starting the processes and loading the libraries in them, listing, writing.
"""

from __future__ import annotations

import os
import socketserver
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from omnimill.bench.contest import run_alone
from omnimill.bench.ingest.photos import write_photos
from omnimill.bench.metric import OURS, Metric

PICTURES = 4_000
URLS_PER_UNIT = 500
THREADS = 64
SHORT_SIDE = 384
QUALITY = 90


def run() -> list[Metric]:
    """Fetch the same pictures with both; pictures a second, and memory."""
    if find_spec("img2dataset") is None:
        sys.stderr.write("img2dataset is not installed (the `fetch` extra): nothing can be fetched\n")
        return []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_photos(folder / "photos", PICTURES)
        with serving(folder / "photos") as base:
            table = pa.table({"url": [f"{base}/{path.name}" for path in paths], "caption": [p.stem for p in paths]})
            pq.write_table(table, folder / "list.parquet")
            contests = {OURS: partial(_ours, str(folder)), "img2dataset": partial(_img2dataset, str(folder))}
            runs = {contestant: run_alone(prepare) for contestant, prepare in contests.items()}
    incomplete = {contestant: done.value for contestant, done in runs.items() if done.value != PICTURES}
    if incomplete:
        raise AssertionError(f"not every picture was fetched: {incomplete}")
    return [
        Metric.of(
            "fetch_pictures_per_second",
            "1/s",
            {contestant: PICTURES / done.seconds for contestant, done in runs.items()},
            best="largest",
        ),
        Metric.of(
            "fetch_peak_memory",
            "MB",
            {contestant: done.peak_bytes / 1e6 for contestant, done in runs.items()},
            best="smallest",
        ),
    ]


def _ours(folder: str) -> Callable[[], int]:
    from omnimill.infra import lineage  # noqa: PLC0415 - in the contestant's process
    from omnimill.infra.ray_session import start_ray  # noqa: PLC0415
    from omnimill.pipelines.dag import Dag  # noqa: PLC0415
    from omnimill.pipelines.run import ingest  # noqa: PLC0415

    source = {
        "name": "web",
        "type": "url_list",
        "path": f"{folder}/list.parquet",
        "urls_per_unit": URLS_PER_UNIT,
        "fetch": {"threads": THREADS, "max_per_host": THREADS, "allow_networks": "127.0.0.1", "retries": 0},
        "operators": [{"op": "image_resize", "short_side": SHORT_SIDE}],
    }
    dag = Dag.model_validate({"dataset": "fetched", "sources": [source]})
    root = f"{folder}/root"
    lineage.runs(root)

    def work() -> int:
        return ingest(dag, root).manifest.rows

    start_ray()
    return work


def _img2dataset(folder: str) -> Callable[[], int]:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    from img2dataset import download  # noqa: PLC0415

    def work() -> int:
        download(
            url_list=f"{folder}/list.parquet",
            input_format="parquet",
            url_col="url",
            caption_col="caption",
            output_format="webdataset",
            output_folder=f"{folder}/tars",
            processes_count=os.cpu_count() or 1,
            thread_count=THREADS,
            number_sample_per_shard=URLS_PER_UNIT,
            image_size=SHORT_SIDE,
            resize_mode="keep_ratio",
            resize_only_if_bigger=True,
            encode_quality=QUALITY,
            extract_exif=False,
        )
        return sum(
            status == "success"
            for path in sorted(Path(folder, "tars").glob("*.parquet"))
            for status in pq.read_table(path).column("status").to_pylist()
        )

    return work


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A web server over the files of a folder, in a process of its own; its address."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(str(folder), there), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.kill()
        process.join()


def _serve(folder: str, address: Connection) -> None:
    files = {f"/{path.name}".encode(): path.read_bytes() for path in Path(folder).iterdir()}

    class Handler(socketserver.BaseRequestHandler):
        """Answers one GET; as little work as can be, for it shares the cores with the contestants."""

        def handle(self) -> None:
            request = b""
            while b"\r\n\r\n" not in request:
                received = self.request.recv(4096)
                if not received:
                    return
                request += received
            body = files[request.split(b" ", 2)[1]]
            head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n"
            self.request.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)

    class Server(socketserver.ThreadingTCPServer):
        request_queue_size = 1024
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address.send(server.server_address[1])
        threading.Event().wait()
