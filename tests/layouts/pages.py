"""The layout of OBELICS: Parquet of documents, and pictures as img2dataset fetches them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from layouts import Expected, Layout
from omnimill import rng

DOCUMENTS = pa.schema(
    [
        ("images", pa.list_(pa.string())),
        ("metadata", pa.string()),
        ("general_metadata", pa.string()),
        ("texts", pa.list_(pa.string())),
    ]
)
_FETCHED = pa.schema(
    [
        ("url", pa.string()),
        ("key", pa.string()),
        ("status", pa.string()),
        ("error_message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),
    ]
)


def jpeg(name: str, width: int = 320, height: int = 240) -> bytes:
    """A picture with smooth shapes, the same for the same name."""
    small = rng.generator("layouts", name).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return bytes(cv2.imencode(".jpg", cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))[1].tobytes())


def document(page: str, *places: tuple[str | None, str | None]) -> dict[str, Any]:
    """A row of OBELICS; every place holds the URL of a picture or a text."""
    details = [
        None
        if url is None
        else {
            "document_url": page,
            "unformatted_src": url,
            "src": url,
            "formatted_filename": url.rsplit("/", 1)[-1].split(".")[0],
            "alt_text": f"what {url.rsplit('/', 1)[-1]} shows",
            "original_width": 1600,
            "original_height": 1200,
            "format": "jpeg",
        }
        for url, _ in places
    ]
    general = {
        "url": page,
        "warc_filename": "crawl-data/CC-MAIN-2021-04/segments/1/warc/CC-MAIN-20210115-00001.warc.gz",
        "warc_record_offset": 93211,
        "warc_record_length": 8311,
    }
    return {
        "images": [url for url, _ in places],
        "metadata": json.dumps(details),
        "general_metadata": json.dumps(general),
        "texts": [text for _, text in places],
    }


def write_fetched(folder: Path, shard: str, pictures: dict[str, bytes | None]) -> None:
    """A shard of img2dataset in its webdataset format; None is a picture that could not be fetched."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    with tarfile.open(folder / f"{shard}.tar", "w") as archive:
        for i, (url, data) in enumerate(pictures.items()):
            key = f"{shard}{i:04}"
            row = {"url": url, "key": key, "status": "success" if data else "failed_to_download"}
            rows.append(row | ({} if data else {"error_message": "HTTP Error 404: Not Found"}))
            for ending, content in (("jpg", data), ("json", json.dumps(row).encode())) if data else ():
                header = tarfile.TarInfo(f"{key}.{ending}")
                header.size = len(content or b"")
                archive.addfile(header, io.BytesIO(content or b""))
    pq.write_table(pa.Table.from_pylist(rows, schema=_FETCHED), folder / f"{shard}.parquet")
    (folder / f"{shard}_stats.json").write_text(json.dumps({"count": len(rows)}))


def obelics(data: Path) -> Expected:
    folder = data / "obelics"
    site = "https://images.example.org"
    words = "The harbour lies below the old town, and the boats come in before the sun is up."
    rows = [
        document(
            "https://a.example.org/", (f"{site}/1.jpg", None), (None, words), (f"{site}/2.jpg", None), (None, words)
        ),
        document("https://b.example.org/", (None, words), (f"{site}/gone.jpg", None), (None, words)),
        document("https://c.example.org/", (f"{site}/3.jpg", None), (f"{site}/gone.jpg", None), (None, words)),
        document("https://d.example.org/", (f"{site}/icon.jpg", None), (None, words)),
        document("https://e.example.org/", (f"{site}/1.jpg", None), (None, "Too short.")),
    ]
    name = "train-00000-of-01335"
    path = folder / "opt_out_docs_removed_2023_07_12" / f"{name}.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=DOCUMENTS), path, row_group_size=3)
    first = {f"{site}/1.jpg": jpeg("1"), f"{site}/gone.jpg": None, f"{site}/2.jpg": jpeg("2")}
    write_fetched(folder / "pictures" / name, "00000", first)
    write_fetched(
        folder / "pictures" / name, "00001", {f"{site}/3.jpg": jpeg("3"), f"{site}/icon.jpg": jpeg("4", 64, 64)}
    )
    return Expected(records=5, examples=2, dropped={"few_pictures": 2}, examples_dropped={"text_too_short": 1})


LAYOUTS: dict[str, Layout] = {"obelics": obelics}
