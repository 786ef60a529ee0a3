"""Folders as the world gives them: every file is kept, dropped with a reason or quarantined with a reason code."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zlib
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from omnimill import rng
from omnimill.config import load_config
from omnimill.infra.dataset import Dataset
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.run import ingest
from omnimill.pipelines.summary import IngestResult

PROJECT = Path(__file__).parent.parent.parent
# Decoding any of the bombs would take more than ten times this.
PEAK_BYTES = 1536 << 20

HOSTILE_DAG = """\
dataset: hostile
sources:
  - {{name: media, type: files, path: "{folder}/media", max_quarantined_share: 1}}
  - {{name: samples, type: webdataset, path: "{folder}/tars", max_quarantined_share: 1}}
  - {{name: tables, type: parquet_text, path: "{folder}/tables", max_quarantined_share: 1}}
  - {{name: lines, type: jsonl, path: "{folder}/lines", max_quarantined_share: 1}}
"""


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG whose header claims a size; chunks follow it as they are given."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in (header, *chunks)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tar(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Broken, lying and oversized files, with a few good ones between them."""
    small = rng.generator("hostile").integers(0, 256, (24, 32, 3), dtype=np.uint8)
    jpeg = cv2.imencode(".jpg", cv2.resize(small, (320, 240)))[1].tobytes()
    zeros = zlib.compress(bytes(50 << 20))
    files = {
        "media/good.jpg": jpeg,
        "media/good.txt": b"Just some words in a plain text file.",
        "media/picture-named-text.txt": jpeg,
        "media/truncated.jpg": jpeg[: len(jpeg) // 2],
        "media/text.jpg": b"this is no picture at all",
        "media/empty.png": b"",
        "media/bomb.png": png(60_000, 60_000, (b"IDAT", zeros), (b"IEND", b"")),
        "media/text-bomb.png": png(8, 8, (b"zTXt", b"Comment\0\0" + zeros), (b"IDAT", zlib.compress(bytes(200)))),
        "media/playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "media/concat.mkv": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "media/pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n",
        "media/noise.mp3": rng.generator("noise").bytes(4000),
        "media/noise": rng.generator("more noise").bytes(4000),
        "media/list.json": b'{"about": "other files"}',
        "media/name with spaces, (and) 日本語.jpg": jpeg,
        "tars/broken.tar": tar({"a.jpg": jpeg, "a.txt": b"a caption", "b.jpg": jpeg, "c.jpg": jpeg})[:-12_000],
        "tars/escape.tar": tar({"../../escape.txt": b"out", "c.jpg": jpeg, "c.txt": b"fine"}),
        "tars/text.tar": b"no archive",
        "tables/unreadable.parquet": b"PAR1" + rng.generator("table").bytes(300) + b"PAR1",
        "lines/mixed.jsonl": b'{"text": "good"}\n{"text": \n{"text": 7}\n\xff\xfe\n[]\n{"text": "\\ud800"}\n',
        "lines/deep.jsonl": b"[" * 100_000 + b"\n",
    }
    for name, data in files.items():
        path = tmp_path / "hostile" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "hostile" / "media" / "outside.jpg").symlink_to("/etc/passwd")
    return tmp_path / "hostile"


def run(dag_file: Path, root: Path) -> IngestResult:
    result = ingest(load_config(dag_file, Dag), str(root))
    answer = result.as_json()["records"]
    assert answer["in"] == answer["kept"] + sum(answer["dropped"].values()) + sum(answer["quarantined"].values())
    for _, observed in result.dataset.commits():
        assert observed["peak_rss_bytes"] < PEAK_BYTES
    return result


def sources_by_file(result: IngestResult) -> dict[str, set[str]]:
    """For every input file, by its resolved path, the sources that read it."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for commit in result.manifest.commits:
        for ref in commit.inputs:
            found[str(Path(ref.uri).resolve())].add(commit.source)
    return found


def verdicts(dataset: Dataset, result: IngestResult) -> dict[str, str]:
    """What became of every record: ``kept``, or the reason it was dropped or quarantined for."""
    found: dict[str, str] = {}
    for commit in result.manifest.commits:
        for shard in commit.shards:
            found.update(dict.fromkeys(dataset.read(shard).column("key").to_pylist(), "kept"))
        for ref, folder in ((commit.drops, "drops"), (commit.quarantine, "quarantine")):
            if ref is not None:
                found.update({row["key"]: row["reason"] for row in dataset.read(ref, folder).to_pylist()})  # type: ignore[arg-type]
    return found


@pytest.mark.ray
def test_a_hostile_folder_is_accounted_for(hostile: Path, tmp_path: Path, ray_local: None) -> None:
    dag_file = tmp_path / "dag.yaml"
    dag_file.write_text(HOSTILE_DAG.format(folder=hostile))
    result = run(dag_file, tmp_path / "root")
    found = sources_by_file(result)
    assert set(found) == {str(path) for path in hostile.rglob("*") if path.is_file() and not path.is_symlink()}
    assert all(len(sources) == 1 for sources in found.values())
    verdict = verdicts(result.dataset, result)
    expected = {
        "good.jpg": "kept",
        "good.txt": "kept",
        "picture-named-text.txt": "kept",
        "name with spaces, (and) 日本語.jpg": "kept",
        "truncated.jpg": "image_truncated",
        "text.jpg": "mislabelled",
        "empty.png": "empty_file",
        "bomb.png": "image_too_large",
        "text-bomb.png": "image_undecodable",
        "playlist.mp4": "mislabelled",
        "concat.mkv": "mislabelled",
        "pointer.jpg": "pointer_file",
        "list.json": "sidecar",
        "noise": "unsupported_type",
        "escape.tar/c": "kept",
        "broken.tar/a": "kept",
    }
    assert {key: verdict.get(key) for key in expected} == expected
    assert verdict["noise.mp3"].startswith("audio_")
    assert "outside.jpg" not in verdict
    reasons = {source.pipeline.name: source.counts.quarantined for source in result.sources}
    assert reasons["tables"] == {"parquet_unreadable": 1}
    assert reasons["samples"] == {"archive_truncated": 2, "unsafe_member_name": 1}
    assert sum(reasons["lines"].values()) == 6
    assert not (hostile.parent / "escape.txt").exists()


@pytest.mark.ray
def test_hostile_input_gives_the_same_bytes_again(hostile: Path, tmp_path: Path, ray_local: None) -> None:
    dag_file = tmp_path / "dag.yaml"
    dag_file.write_text(HOSTILE_DAG.format(folder=hostile))
    assert run(dag_file, tmp_path / "one").digest == run(dag_file, tmp_path / "two").digest


def _real_folder() -> list[Path]:
    folder = Path(os.environ.get("OMNIMILL_REALDATA", PROJECT.parent / "shared" / "realdata"))
    return [folder] if folder.is_dir() else []


@pytest.mark.ray
@pytest.mark.fault
@pytest.mark.parametrize("folder", _real_folder())
def test_every_file_of_the_real_folder_belongs_to_one_source(
    folder: Path, tmp_path: Path, ray_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIMILL_REALDATA", str(folder))
    result = run(PROJECT / "pipelines" / "dags" / "realdata.yaml", tmp_path / "root")
    found = sources_by_file(result)
    files = {str(path.resolve()) for path in folder.rglob("*") if path.is_file()}
    assert files - set(found) == set()
    assert {file: sources for file, sources in found.items() if len(sources) > 1} == {}
    counts = result.manifest.counts
    assert counts.quarantined.get("unexpected_error", 0) == 0
    assert counts.quarantined.get("worker_crashed", 0) == 0
    corrupt = Counter(
        verdict for key, verdict in verdicts(result.dataset, result).items() if key.startswith(("truncated/", "bomb/"))
    )
    assert corrupt["unsupported_type"] == 0
    assert corrupt["image_truncated"] >= 5
