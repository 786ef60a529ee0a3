"""Lists of URLs fetched by img2dataset: its downloader, resizer and WebDataset writer, behind a client of our own.

Needs the optional extra ``fetch`` (img2dataset). It runs in a child process, in which every ``urlopen`` is
`client.Client`'s; its resizer passes bytes on as they came, so that what is kept, checked and hashed is what the server
sent.
"""

from __future__ import annotations

import importlib.util
import os
import tarfile
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from omnimill.errors import BadRecord, ConfigError, IntegrityError, OmnimillError, RecordDropped
from omnimill.pipelines.fetching.client import Client, Told
from omnimill.pipelines.fetching.scratch import scratch_folder
from omnimill.pipelines.fetching.settings import FetchSettings
from omnimill.pipelines.fetching.urls import parse_url
from omnimill.pipelines.isolation import isolated

# What the child may take beyond the unit's own limit: it stops by itself, this is for the case that it does not.
_GRACE_SECONDS = 120.0
_STACK_BYTES = 1 << 20
# img2dataset numbers samples within a shard by as many digits.
_SAMPLES = 10**7

Fetched = bytes | BadRecord | RecordDropped


def require_extra() -> None:
    """Raise ConfigError when img2dataset is not installed."""
    if importlib.util.find_spec("img2dataset") is None:
        raise ConfigError("URL lists are fetched by img2dataset: pip install 'omnimill[fetch]'")


@contextmanager
def fetched(urls: Sequence[str], settings: FetchSettings) -> Iterator[Iterator[Fetched]]:
    """Fetch URLs: for each, in order, the bytes or the verdict. What lies on disk meanwhile goes with the block.

    Raises:
        IntegrityError: a failure of this machine and not of the URLs (a full disk, …).
        ImportError: img2dataset is not installed.
    """
    if not urls:
        yield iter(())
        return
    with scratch_folder() as folder:
        try:
            isolated("fetch", settings.unit_seconds + _GRACE_SECONDS, run_img2dataset, list(urls), folder, settings)
        except BadRecord as fault:
            # The child hung, died or ran out of memory: nobody knows of which URL, so all are to be tried again.
            yield (BadRecord(fault.reason, fault.message) for _ in urls)
            return
        except OmnimillError as fault:
            raise IntegrityError(f"fetching failed: {fault}") from fault
        yield _fetched_bodies(len(urls), folder)


def run_img2dataset(urls: Sequence[str], folder: Path, settings: FetchSettings) -> None:
    """Fetch URLs into ``0.tar`` and ``0.parquet`` in `folder`; in a process made for that."""
    # Its import would ask a package registry whether there is a newer version of albumentations.
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    # glibc's resolver would try each of its servers for longer than a fetch may take.
    os.environ.setdefault("RES_OPTIONS", "timeout:3 attempts:2")
    from img2dataset.downloader import Downloader  # noqa: PLC0415 - optional extra, takes seconds
    from img2dataset.resizer import Resizer  # noqa: PLC0415
    from img2dataset.writer import WebDatasetSampleWriter  # noqa: PLC0415

    threading.stack_size(_STACK_BYTES)
    urllib.request.install_opener(Client(settings))
    order = _by_turns(urls)
    table = pa.table({"url": [urls[row] for row in order], "row": pa.array(order, pa.int64())})
    rows = folder / "rows.feather"
    with rows.open("wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    downloader = Downloader(
        sample_writer_class=WebDatasetSampleWriter,
        resizer=Resizer(image_size=1, resize_mode="no", resize_only_if_bigger=False, disable_all_reencoding=True),
        thread_count=min(settings.threads, len(urls)),
        save_caption=False,
        extract_exif=False,
        output_folder=str(folder),
        column_list=["row", "url"],
        timeout=settings.timeout_seconds,
        number_sample_per_shard=_SAMPLES,
        oom_shard_count=1,
        compute_hash=None,
        verify_hash_type=None,
        encode_format="jpg",
        retries=0,  # the client's own come with pauses
        user_agent_token=None,
        disallowed_header_directives=None,  # the client asks, and before the body is fetched
    )
    with _ending_with_parent():
        downloader.download_shard((0, str(rows)))


def _by_turns(urls: Sequence[str]) -> list[int]:
    """Rows in the order to fetch them: every host's first, every host's second, …

    Lists are often sorted by host; in their own order all threads would wait for the slots of one.
    """
    seen: Counter[str] = Counter()
    turns = []
    for row, url in enumerate(urls):
        host = parse_url(url).host
        turns.append((seen[host], row))
        seen[host] += 1
    return [row for _, row in sorted(turns)]


@contextmanager
def _ending_with_parent() -> Iterator[None]:
    """A child in the middle of a call does not see that its parent was killed; in this block it ends with it."""
    parent, over = os.getppid(), threading.Event()

    def watch() -> None:
        while not over.wait(1):
            if os.getppid() != parent:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _fetched_bodies(count: int, folder: Path) -> Iterator[Fetched]:
    try:
        yield from _read_back(count, folder)
    except (OSError, pa.ArrowException, tarfile.TarError) as fault:
        raise IntegrityError(f"what was fetched cannot be read back: {fault}") from fault


def _read_back(count: int, folder: Path) -> Iterator[Fetched]:
    """What img2dataset wrote, in the order of the rows."""
    columns = pq.read_table(folder / "0.parquet", columns=["row", "key", "error_message"]).to_pydict()
    told = zip(columns["row"], columns["key"], columns["error_message"], strict=True)
    outcomes = {row: (key, error) for row, key, error in told}
    with (folder / "0.tar").open("rb") as file:
        places = _places(file)
        if len(outcomes) != count or len(places) != sum(error is None for _, error in outcomes.values()):
            # It prints the exceptions of its writer and goes on: a full disk looks like this.
            raise IntegrityError(f"img2dataset accounts for {len(outcomes)} of {count} URLs, in {len(places)} files")
        for row in range(count):
            key, error = outcomes[row]
            yield os.pread(file.fileno(), *places[key]) if error is None else _verdict(error)


def _places(file: BinaryIO) -> dict[str, tuple[int, int]]:
    """Size and offset of the bodies in a tar, by sample key."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        return {
            member.name.removesuffix(".jpg"): (member.size, member.offset_data)
            for member in archive
            if member.name.endswith(".jpg")
        }


def _verdict(error: str) -> Fetched:
    verdict = Told.understood(error)
    if verdict is None:
        # Neither the client's nor, as bytes are passed on, a decoder's: the process ran out of something.
        raise IntegrityError(f"a fetch ended without a verdict: {error or 'out of memory'}")
    return verdict
