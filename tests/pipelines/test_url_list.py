"""Pictures from URL lists: fetched once, by img2dataset, and every row of every list accounted for."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from image_server import ImageServer, gzip_bomb, picture, serving
from pydantic import ValidationError

from omnimill.errors import BadRecord, ConfigError, IntegrityError
from omnimill.infra.dataset import Commit, Dataset
from omnimill.pipelines.fetching import engine
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.recipe import recipe_digest
from omnimill.pipelines.sources.list_files import ListFormat, Row
from omnimill.pipelines.sources.url_list import UrlListSource
from omnimill.schema import Example, from_row

FETCH = {"allow_networks": "127.0.0.1", "timeout_seconds": 2, "retries": 1, "backoff_seconds": 0.01}


@pytest.fixture(scope="module")
def server() -> Iterator[ImageServer]:
    gzip_bomb()  # made once, and not while a client waits
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def source(path: Path | str, **options: Any) -> UrlListSource:
    options["fetch"] = {**FETCH, **options.get("fetch", {})}
    return UrlListSource.model_validate({"type": "url_list", "name": "web", "path": str(path), **options})


def write_list(path: Path, urls: Sequence[Any], **columns: Sequence[Any]) -> Path:
    pq.write_table(pa.table({"url": urls, "caption": [f"caption {i}" for i in range(len(urls))], **columns}), path)
    return path


def done(web: UrlListSource, dataset: Dataset) -> list[Commit]:
    return [process_unit(web, (), unit, dataset) for unit in web.units()]


def examples(dataset: Dataset, commits: Sequence[Commit]) -> list[Example]:
    shards = (shard for commit in commits for shard in commit.shards)
    return [from_row(row) for shard in shards for row in dataset.read(shard).to_pylist()]


def rejected(dataset: Dataset, commits: Sequence[Commit]) -> dict[str, tuple[str, str]]:
    """By key: uri and reason."""
    tables = (table for commit in commits for _, table in dataset.rejected(commit))
    return {row["key"]: (row["uri"], row["reason"]) for table in tables for row in table.to_pylist()}


def test_every_row_ends_as_an_example_or_with_a_reason(server: ImageServer, tmp_path: Path, scratch: Path) -> None:
    expected = {
        "/picture/1.jpg": "kept",
        "/picture/2.png": "kept",
        "/picture/3.webp": "kept",
        "/mistyped/4.jpg": "kept",
        "/gzipped/5.jpg": "kept",
        "/to/a?url=../picture/6.jpg": "kept",
        "/flaky/1/500/a.jpg": "kept",
        "/status/404/a.jpg": "http_client_error",
        "/status/500/a.jpg": "http_server_error",
        "/status/429/a.jpg": "http_rate_limited",
        "/slow/4/a.jpg": "fetch_timeout",
        "/truncated/a.jpg": "connection_broken",
        "/loop/a.jpg": "redirect_refused",
        "/to/a?url=http://127.1.2.3/a.jpg": "address_refused",
        "/to/a?url=http://169.254.169.254/a.jpg": "address_refused",
        "/huge/a.jpg": "response_too_large",
        "/gzipbomb/a.jpg": "response_too_large",
        "/bomb/a.png": "image_too_large",
        "/html/a.jpg": "not_an_image",
        "/empty/a.jpg": "empty_file",
        "/robots/a.jpg?value=noimageai": "robots_opt_out",
    }
    urls: list[str | None] = [server.url + path for path in expected]
    others: dict[str, str | None] = {
        "http://10.0.0.1/a.jpg": "address_refused",
        "https://[::1]/a.jpg": "address_refused",
        "file:///etc/passwd": "scheme_refused",
        "http:///a.jpg": "url_invalid",
        "http://no-such-host.invalid/a.jpg": None,
    }
    urls += [*others, None, server.url + "/picture/1.jpg"]
    web = source(write_list(tmp_path / "list.parquet", urls))
    dataset = Dataset(str(tmp_path / "root"), "made")
    (commit,) = done(web, dataset)
    told = rejected(dataset, [commit])
    found = examples(dataset, [commit])
    assert commit.counts.records_in == len(urls)
    assert len(found) + len(told) == len(urls)
    for row, (path, reason) in enumerate(expected.items()):
        if reason != "kept":
            assert told[f"list.parquet:0:{row}"] == (server.url + path, reason)
    for row, (url, reason) in enumerate(others.items(), len(expected)):
        assert told[f"list.parquet:0:{row}"] in [(url, reason), (url, "dns_failure"), (url, "dns_unavailable")]
    assert told[f"list.parquet:0:{len(urls) - 2}"] == (str(tmp_path / "list.parquet"), "missing_field")
    # In the order of the list, the bytes that were sent, and where they are from.
    kept = [url for url in urls if url is not None and expected.get(url.removeprefix(server.url)) == "kept"]
    assert [example.meta.url for example in found] == kept
    sent = [picture(1), picture(2, form="PNG"), picture(3, form="WEBP"), picture(4), picture(5), picture(6), picture(1)]
    assert [example.provenance.digest for example in found[:7]] == [blake3(data).hexdigest() for data in sent]
    assert [example.images[0].data for example in found[:7]] == sent
    assert found[0].images[0].uri == found[0].provenance.uri == server.url + "/picture/1.jpg"
    assert found[0].text[0].text == "caption 0"
    assert found[0].id != found[-1].id  # the same URL on another row
    assert server.hits["/flaky/1/500/a.jpg"] == 2
    assert list(scratch.iterdir()) == []


def test_a_committed_unit_is_never_fetched_again(server: ImageServer, tmp_path: Path) -> None:
    path = write_list(tmp_path / "list.parquet", [f"{server.url}/picture/{i}.jpg" for i in range(20, 26)])
    dataset = Dataset(str(tmp_path / "root"), "made")
    web = source(path, urls_per_unit=4)
    first = done(web, dataset)
    hits = server.hits.copy()
    path.touch()
    other = source(path, urls_per_unit=4, fetch={"threads": 3, "user_agent": "another", "timeout_seconds": 2})
    assert recipe_digest(other, ()) == recipe_digest(web, ())
    assert done(other, dataset) == first
    assert server.hits == hits
    # A row that changes costs its own slice only.
    urls = [f"{server.url}/picture/{i}.jpg" for i in (20, 21, 22, 23, 24, 30)]
    write_list(path, urls)
    second = done(web, dataset)
    assert second[0] == first[0]
    assert second[1] != first[1]
    assert server.hits - hits == {"/picture/24.jpg": 1, "/picture/30.jpg": 1}


def test_the_same_responses_give_the_same_bytes(server: ImageServer, tmp_path: Path) -> None:
    urls = [f"{server.url}/{kind}" for i in range(12) for kind in (f"picture/{i}.jpg", f"slow/0.0{i % 5}/{i}")]
    path = write_list(tmp_path / "list.parquet", urls)
    commits = [
        done(source(path, fetch={"threads": threads}), Dataset(str(tmp_path / f"root{threads}"), "made"))
        for threads in (1, 16)
    ]
    assert commits[0] == commits[1]


def test_rows_are_turned_down_before_anything_is_fetched(server: ImageServer, tmp_path: Path) -> None:
    urls = [f"{server.url}/picture/{i}.jpg?rules" for i in range(60, 67)]
    path = tmp_path / "list.parquet"
    table = pa.table(
        {
            "url": urls,
            "caption": ["kept", "too low", "too high", "no score", "excluded", "   ", "not a number of any kind"],
            "AESTHETIC_SCORE": pa.array([6.0, 4.0, 6.0, None, 6.0, 6.0, float("nan")]),
            "punsafe": pa.array([0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1], pa.float32()),
            "NSFW": ["UNLIKELY"] * 4 + ["NSFW"] + ["UNLIKELY"] * 2,
            "licence": ["CC0-1.0"] * 7,
        }
    )
    pq.write_table(table, path)
    web = source(
        path,
        scores={"AESTHETIC_SCORE": "aesthetic", "punsafe": "unsafe"},
        tags={"NSFW": "nsfw"},
        licence_field="licence",
        min_score={"aesthetic": 5},
        max_score={"unsafe": 0.5},
        exclude_tags={"nsfw": ["NSFW"]},
        require_caption=True,
    )
    dataset = Dataset(str(tmp_path / "root"), "made")
    commits = done(web, dataset)
    assert commits[0].counts.records_dropped == {
        "no_caption": 1,
        "score_missing": 2,
        "score_too_high": 1,
        "score_too_low": 1,
        "tag_excluded": 1,
    }
    (kept,) = examples(dataset, commits)
    assert kept.meta.scores == {"aesthetic": 6.0, "unsafe": pytest.approx(0.1)}
    assert (kept.meta.tags, kept.meta.licence) == ({"nsfw": "UNLIKELY"}, "CC0-1.0")
    assert [server.hits[f"/picture/{i}.jpg?rules"] for i in range(60, 67)] == [1, 0, 0, 0, 0, 0, 0]


def test_rules_about_columns_that_are_not_read_are_errors() -> None:
    with pytest.raises(ValidationError, match="aesthetics"):
        source("list.parquet", scores={"AESTHETIC_SCORE": "aesthetic"}, min_score={"aesthetics": 5})
    with pytest.raises(ValidationError, match="nsfw"):
        source("list.parquet", exclude_tags={"nsfw": ["NSFW"]})


def test_a_compressed_list_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "list.tsv.gz").write_bytes(b"x")
    with pytest.raises(ConfigError, match="decompress"):
        list(source(tmp_path / "list.tsv.gz").units())


def test_without_img2dataset_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"omnimill\[fetch\]"):
        list(source(tmp_path).units())


def test_a_failure_of_the_machine_is_not_committed(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_list(tmp_path / "list.parquet", [f"{server.url}/picture/1.jpg", f"{server.url}/picture/2.jpg"])
    dataset = Dataset(str(tmp_path / "root"), "made")

    isolated = engine.isolated

    def lose_one(kind: str, seconds: float, function: Any, urls: list[str], *others: Any) -> None:
        isolated(kind, seconds, function, urls[:1], *others)

    monkeypatch.setattr(engine, "isolated", lose_one)
    with pytest.raises(IntegrityError, match="accounts for 1 of 2 URLs"):
        done(source(path), dataset)
    assert dataset.commits() == []


def test_a_fetch_that_fails_as_a_whole_is_told_for_every_url(server: ImageServer, tmp_path: Path) -> None:
    path = write_list(tmp_path / "list.parquet", [f"{server.url}/slow/5/{i}" for i in range(3)])
    web = source(path, fetch={"timeout_seconds": 60, "unit_seconds": 30})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_GRACE_SECONDS", -29.0)
        (commit,) = done(web, Dataset(str(tmp_path / "root"), "made"))
    assert commit.counts.quarantined == {"fetch_timeout": 3}


@pytest.mark.fault
def test_fetching_ends_with_the_process_that_wanted_it(server: ImageServer, tmp_path: Path, scratch: Path) -> None:
    path = write_list(tmp_path / "list.parquet", [f"{server.url}/slow/0.5/{i}" for i in range(400)])
    program = (
        "import sys, tempfile\nfrom omnimill.infra.dataset import Dataset\n"
        "from omnimill.pipelines.process import process_unit\n"
        "from omnimill.pipelines.sources.url_list import UrlListSource\n"
        "tempfile.tempdir = sys.argv[2]\n"
        "web = UrlListSource.model_validate_json(sys.argv[1])\n"
        "process_unit(web, (), next(web.units()), Dataset(sys.argv[2] + '/root', 'made'))"
    )
    web = source(path, fetch={"threads": 4, "timeout_seconds": 5})
    process = subprocess.Popen([sys.executable, "-c", program, web.model_dump_json(), str(scratch)])
    deadline = time.monotonic() + 60
    while not any(path.startswith("/slow/0.5/") for path in server.hits) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(3)
    hits = server.hits.total()
    time.sleep(2)
    assert server.hits.total() == hits


ROWS = [
    {"url": f"http://example.org/{i}", "caption": text} for i, text in enumerate(["a", "", 'b "c"', "d, e", "ü"] * 9)
]


def as_file(folder: Path, ending: str) -> tuple[Path, ListFormat]:
    """The rows as a list file, and how it is read, in small slices."""
    path = folder / f"list.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=17)
    elif ending == "json":
        path.write_text(json.dumps({"info": {}, "annotations": ROWS}))
    elif ending == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS))
    elif ending == "csv":
        quoted = (row["caption"].replace('"', '""') for row in ROWS)
        lines = [f'{row["url"]},"{text}"' for row, text in zip(ROWS, quoted, strict=True)]
        path.write_text("\ufeffurl,caption\r\n" + "\r\n".join(lines))
    else:
        path.write_text("".join(f"{row['url']}\t{row['caption']}\n" for row in ROWS))
    columns = ("url", "caption") if ending == "tsv" else None
    return path, ListFormat(columns, "annotations", rows_per_slice=5, bytes_per_slice=100)


def read_slices(path: Path, form: ListFormat) -> list[Row]:
    parts = list(form.slices(str(path)))
    assert len(parts) > 5
    return [row for part in parts for row in form.rows(str(path), part, ["url", "caption"])]


@pytest.mark.parametrize("ending", ["parquet", "tsv", "csv", "jsonl", "json"])
def test_slices_hold_every_row_once(tmp_path: Path, ending: str) -> None:
    rows = read_slices(*as_file(tmp_path, ending))
    assert [row.values for row in rows] == ROWS
    assert len({row.place for row in rows}) == len(ROWS)


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n"), min_size=1), min_size=2, max_size=2)
    ),
    st.integers(1, 200),
)
def test_lines_are_read_once_wherever_they_are_cut(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.tsv"
    path.write_bytes("".join("\t".join(row) + "\n" for row in rows).encode())
    form = ListFormat(("url", "caption"), "", 1, cut)
    found = [row for part in form.slices(str(path)) for row in form.rows(str(path), part, [])]
    # A byte order mark is none of a line's text, and a line of spaces alone is no row.
    expected = [row for row in rows if "\t".join(row).strip()]
    values = [row.values for row in found]
    assert [list(value.values()) for value in values if isinstance(value, dict)] == [
        [row[0].removeprefix("\ufeff"), row[1]] for row in expected
    ]


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        (
            "a.tsv",
            b"http://a\tx\nhttp://b\nhttp://c\tx\ty\n\xff\tx\n",
            ["row", "list_row_malformed", "list_row_malformed", "invalid_utf8"],
        ),
        ("a.csv", b'http://a,"open\nhttp://b,"a"b\n', ["list_row_malformed", "list_row_malformed"]),
        (
            "a.jsonl",
            b'{"url": 1}\n[1]\n{broken\n' + b"x" * (2 << 20),
            ["row", "wrong_type", "invalid_json", "line_too_long"],
        ),
        ("a.json", b'{"annotations": [{"url": "x"}, 7, null]}', ["row", "wrong_type", "wrong_type"]),
        ("b.json", b'{"annotations": {"a": 1}}', "wrong_type"),
        ("c.json", b'{"annotations": [', "invalid_json"),
        ("a.parquet", b"PAR1 broken PAR1", "parquet_unreadable"),
    ],
)
def test_damaged_lists(tmp_path: Path, name: str, data: bytes, expected: list[str] | str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    form = ListFormat(("url", "caption"), "annotations", 100, 4 << 20)
    (part,) = form.slices(str(path))
    if isinstance(expected, str):
        with pytest.raises(BadRecord) as verdict:
            list(form.rows(str(path), part, ["url"]))
        assert verdict.value.reason == expected
        return
    found = [row.values for row in form.rows(str(path), part, ["url"])]
    assert [value.reason if isinstance(value, BadRecord) else "row" for value in found] == expected


def test_a_text_that_is_not_utf8_costs_its_row_only(tmp_path: Path) -> None:
    captions = pa.array([b"good", b"\xff\xfe", b"good"]).cast(pa.binary())
    table = pa.table({"url": ["a", "b", "c"], "caption": captions})
    path = tmp_path / "list.parquet"
    pq.write_table(table, path)
    rows = list(
        ListFormat(None, "", 10, 10).rows(str(path), {"row_group": 0, "start": 0, "rows": 3}, ["url", "caption"])
    )
    assert [isinstance(row.values, BadRecord) for row in rows] == [False, True, False]


@pytest.mark.parametrize("fault", [errno.ENOENT, errno.EACCES])
def test_a_temporary_folder_that_cannot_be_made_is_no_verdict_on_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    write_list(tmp_path / "list.parquet", ["http://127.0.0.1:1/a.jpg"])
    if fault == errno.ENOENT:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    else:  # folders do not refuse a test that is run by root

        def refused(*args: Any, **named: Any) -> str:
            raise PermissionError(fault, os.strerror(fault))

        monkeypatch.setattr("tempfile.mkdtemp", refused)
    dataset = Dataset(str(tmp_path / "root"), "made")
    with pytest.raises(IntegrityError, match="no temporary folder can be made"):
        done(source(tmp_path), dataset)
    assert dataset.commits() == []


def test_a_list_that_cannot_be_read_is_one_quarantined_record(tmp_path: Path) -> None:
    (tmp_path / "list.parquet").write_bytes(b"PAR1 broken PAR1")
    (commit,) = done(source(tmp_path), Dataset(str(tmp_path / "root"), "made"))
    assert commit.counts.quarantined == {"parquet_unreadable": 1}
    assert commit.inputs[0].bytes == 16
