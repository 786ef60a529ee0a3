"""Image-text sources: lists of URLs in the layouts of their publishers, and datasets that others are made from."""

from __future__ import annotations

import io
import json
import tarfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3
from image_server import ImageServer, picture

from layouts import Expected, Layout
from omnimill.infra.dataset import Commit, Counts, Dataset
from omnimill.schema import Example, Image, Meta, Provenance, Text, example_id, to_table

_SERVED = {"ALLOW_NETWORKS": "127.0.0.1"}


@cache
def server() -> ImageServer:
    """The web that the lists point to, for as long as this process lives."""
    return ImageServer()


def photo(number: int) -> str:
    return f"{server().url}/large/{number}.jpg"


def laion_aesthetics(folder: Path) -> Expected:
    """Columns of the subsets by predicted aesthetics, as published in Parquet with one row group a file."""
    rows = [
        (photo(0), "A lighthouse at dusk", 5.5, 0.01, 0.2),
        (photo(1), "Poster &quot;Alps&quot; in vintage style", 6.75, 0.0, 0.31),
        (photo(2), "dull", 4.6, 0.0, 0.1),
        (photo(3), "watermarked", 5.2, 0.0, 0.97),
        (photo(4), "unsafe", 5.4, 0.99, 0.1),
        (photo(5), "not scored for safety", 5.4, None, 0.1),
        (f"{server().url}/status/404", "gone", 5.1, 0.0, 0.1),
        (f"{server().url}/html/a.jpg", "login page", 5.1, 0.0, 0.1),
        (f"{server().url}/robots/a?value=noai", "asked to be left out", 5.1, 0.0, 0.1),
        (photo(6), "", 5.1, 0.0, 0.1),
        (f"{server().url}/picture/7.jpg", "small but large enough", 5.3, 0.1, 0.1),
    ]
    for part, some in enumerate((rows[:6], rows[6:])):
        url, text, score, unsafe, watermark = zip(*some, strict=True)
        table = pa.table(
            {
                "URL": pa.array(url, pa.string()),
                "TEXT": pa.array(text, pa.string()),
                "WIDTH": pa.array([640.0] * len(some), pa.float64()),
                "HEIGHT": pa.array([480.0] * len(some), pa.float64()),
                "similarity": pa.array([0.31] * len(some), pa.float64()),
                "punsafe": pa.array(unsafe, pa.float64()),
                "pwatermark": pa.array(watermark, pa.float64()),
                "AESTHETIC_SCORE": pa.array(score, pa.float64()),
                "hash": pa.array(range(len(some)), pa.int64()),
                "__index_level_0__": pa.array(range(len(some)), pa.int64()),
            }
        )
        path = folder / f"laion_aesthetics/data/train-{part:05}-of-00002-6f24391497df953f.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
    return Expected(
        records=11,
        examples=3,
        quarantined={"http_client_error": 1, "not_an_image": 1},
        dropped={
            "no_caption": 1,
            "robots_opt_out": 1,
            "score_missing": 1,
            "score_too_high": 2,
            "score_too_low": 1,
        },
        environment=_SERVED,
    )


def laion_400m(folder: Path) -> Expected:
    rows: list[tuple[Any, ...]] = [
        (1581282014547.0, photo(0), "Mountain lake", 480, 640, "?", "UNLIKELY", 0.33),
        (1060015000133.0, photo(1), "Red bicycle", 480, 640, "CC-BY", "UNSURE", 0.35),
        (3372497001073.0, photo(2), "something else", 480, 640, "?", "NSFW", 0.31),
        (1526212000441.0, f"{server().url}/status/410", "gone", 480, 640, "?", "UNLIKELY", 0.31),
        (None, "http://10.0.0.1/internal.jpg", "an internal address", 480, 640, "?", "UNLIKELY", 0.31),
    ]
    names = ("SAMPLE_ID", "URL", "TEXT", "HEIGHT", "WIDTH", "LICENSE", "NSFW", "similarity")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    table = pa.table(columns).cast(
        pa.schema(
            [
                ("SAMPLE_ID", pa.float64()),
                ("URL", pa.string()),
                ("TEXT", pa.string()),
                ("HEIGHT", pa.int32()),
                ("WIDTH", pa.int32()),
                ("LICENSE", pa.string()),
                ("NSFW", pa.string()),
                ("similarity", pa.float64()),
            ]
        )
    )
    path = folder / "laion_400m/part-00000-5b54c5d5-bbcf-484d-a2ce-0d6f73df1a36-c000.snappy.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table, path, compression="snappy")
    return Expected(
        records=5,
        examples=2,
        quarantined={"address_refused": 1, "http_client_error": 1},
        dropped={"tag_excluded": 1},
        environment=_SERVED,
    )


def cc3m(folder: Path) -> Expected:
    """A caption and a URL in a line, no header; one file to train and one to validate."""
    lines = {
        "Train_GCC-training.tsv": [
            f"a very typical bus station\t{photo(0)}",
            f'the "grand" hall , by night\t{photo(1)}',
            f"only a caption of {server().url}",
            f"a file of this machine\tfile://{folder}/cc3m/Train_GCC-training.tsv",
        ],
        "Validation_GCC-1.1.0-Validation.tsv": [f"author : a life in photography\t{photo(2)}"],
    }
    _write_lines(folder / "cc3m", lines)
    return Expected(
        records=5, examples=3, quarantined={"list_row_malformed": 1, "scheme_refused": 1}, environment=_SERVED
    )


def cc12m(folder: Path) -> Expected:
    """A URL and a caption in a line, no header; persons are masked."""
    lines = [
        f"{photo(0)}\t<PERSON> was the first US president to attend a tournament",
        f"{photo(1)}\tWind turbines off the coast",
        f"{server().url}/to/a?url={photo(2)}\tmoved to another place",
        f"{server().url}/loop/a\tmoved round and round",
        f"{server().url}/bomb/a.png\ta picture of 20,000 x 20,000 pixels",
    ]
    _write_lines(folder / "cc12m", {"cc12m.tsv": lines})
    return Expected(
        records=5, examples=3, quarantined={"image_too_large": 1, "redirect_refused": 1}, environment=_SERVED
    )


def redcaps(folder: Path) -> Expected:
    """A JSON document for every subreddit and year."""
    urls = {
        "birdpics_2019": [photo(0), photo(1)],
        "itookapicture_2020": [photo(2), f"{server().url}/status/404", f"{server().url}/empty/a.png"],
    }
    for name, found in urls.items():
        subreddit, year = name.split("_")
        annotations = [
            {
                "image_id": f"{name}{number}",
                "author": "someone",
                "url": url,
                "raw_caption": f"[OC] A picture No. {number}!",
                "caption": f"a picture no. {number}",
                "subreddit": subreddit,
                "score": 10 + number,
                "created_utc": 1_546_300_800 + number,
                "permalink": f"/r/{subreddit}/comments/{name}{number}/a_picture/",
                "crosspost_parents": None,
            }
            for number, url in enumerate(found)
        ]
        info = {
            "subreddit": subreddit,
            "year": int(year),
            "version": "v1.0",
            "description": "annotations of one subreddit and year",
        }
        path = folder / "redcaps" / "annotations" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"info": info, "annotations": annotations}))
    return Expected(records=5, examples=3, quarantined={"empty_file": 1, "http_client_error": 1}, environment=_SERVED)


def web_images(folder: Path) -> Expected:
    """What img2dataset leaves behind: a tar of samples, their metadata in Parquet, and statistics."""
    samples = {
        "000000000": (picture(0, 640, 480), "Harbour of a small town"),
        "000000001": (picture(1, 640, 480), "photo"),
        "000000002": (b"\xff\xd8\xff\xe0 broken", "Broken while it was fetched"),
    }
    path = folder / "web_images" / "00000.tar"
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as archive:
        for key, (data, caption) in samples.items():
            facts = {"caption": caption, "url": f"https://example.org/{key}.jpg", "key": key, "status": "success"}
            for ending, content in (("jpg", data), ("txt", caption.encode()), ("json", json.dumps(facts).encode())):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    pq.write_table(pa.table({"key": list(samples), "status": ["success"] * 3}), path.with_suffix(".parquet"))
    path.with_name("00000_stats.json").write_text(json.dumps({"count": 3, "successes": 3}))
    return Expected(records=3, examples=1, quarantined={"image_truncated": 1}, examples_dropped={"text_too_short": 1})


def ingested(folder: Path, dataset: str, pairs: int = 7) -> dict[str, str]:
    """A dataset of picture-caption pairs, and two examples of another kind, in two shards under a root of its own."""
    examples = [_example(dataset, number, picture(number, 320, 240)) for number in range(pairs)]
    examples.append(_example(dataset, pairs, None))
    examples.append(_example(dataset, pairs + 1, picture(99, 20, 20)))
    root = Dataset(str(folder / "root"), dataset)
    halves = (examples[:4], examples[4:])
    shards = tuple(root.publish_shard(to_table(half)) for half in halves)
    counts = Counts(records_in=len(examples), kept=len(examples), examples_written=len(examples))
    commit = Commit(unit=f"{dataset}-0", source=dataset, recipe="0", inputs=(), shards=shards, counts=counts)
    root.commit(commit)
    root.publish_manifest("examples", [commit])
    return {"ROOT": str(folder / "root")}


def _example(dataset: str, number: int, data: bytes | None) -> Example:
    url = f"https://example.org/{dataset}/{number}.jpg"
    digest = blake3(data or b"").hexdigest()
    key = f"list.tsv:{number}"
    images = []
    if data is not None:
        width, height = (20, 20) if len(data) < 1000 else (320, 240)
        images.append(Image(data=data, format="jpeg", width=width, height=height, digest=digest, uri=url))
    text = [Text(role="caption", text=f"picture {number}", image=0 if images else None)]
    tags = {"subreddit": "birdpics" if number < 3 else "itookapicture"}
    return Example(
        id=example_id(dataset, key, digest),
        source=dataset,
        unit=f"{dataset}-0",
        key=key,
        provenance=Provenance(uri=url, digest=digest),
        text=text,
        images=images,
        meta=Meta(url=url, licence="CC-BY-4.0", tags=tags),
    )


def interleaved(folder: Path, parent: str) -> Expected:
    # 4 pairs in the first shard, 4 pairs and a text alone in the second: one group each.
    return Expected(records=3, examples=2, dropped={"no_pair": 1}, environment=ingested(folder, parent))


def patches(folder: Path, parent: str) -> Expected:
    return Expected(records=9, examples=7, dropped={"no_room": 2}, environment=ingested(folder, parent))


def _write_lines(folder: Path, files: dict[str, list[str]]) -> None:
    folder.mkdir(parents=True)
    for name, lines in files.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))


LAYOUTS: dict[str, Layout] = {
    "laion_aesthetics": laion_aesthetics,
    "laion_400m": laion_400m,
    "cc3m": cc3m,
    "cc12m": cc12m,
    "redcaps": redcaps,
    "web_images": web_images,
    **{f"{name}_interleaved": partial(interleaved, parent=name) for name in ("cc3m", "cc12m", "redcaps")},
    **{f"{name}_patches": partial(patches, parent=name) for name in ("laion_aesthetics", "redcaps")},
}
