"""pipelines/dags/pages.yaml on a folder of saved pages and an archive; the same bytes whatever the threads."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts.pages import jpeg, obelics
from layouts.text import prose

from omnimill.config import load_config
from omnimill.infra.dataset import Dataset
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.run import ingest

DAGS = Path(__file__).parents[2] / "pipelines" / "dags"


def page(name: str, picture: str) -> bytes:
    first, second = (f"<p>{prose(f'{name} {part}', 6, 6)}</p>" for part in "ab")
    body = f"<main>{first}<img src='{picture}'>{second}</main>"
    return f"<html lang=en><title>{name}</title><body>{body}</body></html>".encode()


def response(url: str, content_type: str, body: bytes) -> bytes:
    block = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n".encode() + body
    head = ["WARC/1.0", "WARC-Type: response", f"WARC-Target-URI: {url}", "WARC-Date: 2024-01-02T03:04:05Z"]
    head += ["Content-Type: application/http; msgtype=response", f"Content-Length: {len(block)}"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


@pytest.fixture
def dag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dag:
    """The DAG, with three saved pages and an archive of two pages and a picture to read."""
    saved, archives = tmp_path / "saved", tmp_path / "archives"
    (saved / "mill_files").mkdir(parents=True)
    archives.mkdir()
    (saved / "mill.html").write_bytes(page("mill", "mill_files/mill.jpg"))
    (saved / "mill_files" / "mill.jpg").write_bytes(jpeg("mill"))
    (saved / "short.html").write_text("<html><body><p>Too short to be of use.</p></body></html>")
    (saved / "not.html").write_bytes(bytes(range(128, 256)))
    site = "https://example.org"
    records = [
        response(f"{site}/lock", "text/html", page("lock", "/lock.jpg")),
        response(f"{site}/lock.jpg", "image/jpeg", jpeg("lock")),
        response(f"{site}/quay", "text/html", page("quay", "/gone.jpg")),
    ]
    (archives / "crawl.warc").write_bytes(b"".join(records))
    monkeypatch.setenv("PAGES", str(saved))
    monkeypatch.setenv("ARCHIVES", str(archives))
    return load_config(DAGS / "pages.yaml", Dag)


@pytest.mark.ray
def test_saved_pages_and_archives_become_one_dataset(dag: Dag, tmp_path: Path, ray_local: None) -> None:
    result = ingest(dag, str(tmp_path / "root"))
    counts = result.manifest.counts
    assert counts.records_in == 6
    assert counts.quarantined == {"invalid_utf8": 1}
    assert counts.records_dropped == {"sidecar": 1}
    assert counts.examples_dropped == {"text_too_short": 1}
    rows = [
        row
        for commit in result.manifest.commits
        for shard in commit.shards
        for row in result.dataset.read(shard).to_pylist()
    ]
    assert sorted((row["key"], len(row["images"])) for row in rows) == [
        ("crawl.warc:0", 1),
        ("crawl.warc:2", 0),
        ("mill.html", 1),
    ]


@pytest.mark.parametrize("name", ["pages", "obelics"])
def test_threads_do_not_change_a_byte(name: str, dag: Dag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "obelics":
        obelics(tmp_path / "data")
        monkeypatch.setenv("DATA", str(tmp_path / "data"))
        dag = load_config(DAGS / "pretrain" / "obelics.yaml", Dag)
    found = []
    for threads in (1, 4):
        dataset = Dataset(str(tmp_path / f"root-{threads}"), name)
        units = [(pipeline, unit) for pipeline in dag.sources for unit in pipeline.source.units()]
        found.append([process_unit(one.source, one.operators, unit, dataset, threads=threads) for one, unit in units])
    assert found[0] == found[1]
    assert sum(commit.counts.examples_written for commit in found[0]) > 1
