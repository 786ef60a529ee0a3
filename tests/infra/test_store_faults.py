"""An S3 server that fails, stalls, truncates and forgets to answer: results are those of one that does not."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from faults.s3 import FAULTS, Proxy, every, s3_server

from omnimill import rng
from omnimill.errors import StoreUnavailable
from omnimill.infra import retry, storage
from omnimill.infra.dataset import Dataset
from omnimill.infra.retry import Truncated, passing, patiently
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.sources.jsonl import JsonlSource

MIB = 1 << 20


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with s3_server(faulty=True) as one:
        assert one is not None
        yield one


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of a tenth of the usual length."""
    monkeypatch.setattr(retry, "_FIRST_SECONDS", {"transient": 0.01, "throttled": 0.1})


def noise(size: int) -> bytes:
    return rng.generator("noise", size).bytes(size)


def lines(file: int) -> bytes:
    rows = [json.dumps({"id": f"{file}-{i}", "text": f"line {i} of {file} " * 20}) for i in range(300)]
    return "\n".join(rows).encode()


def ingest(root: str, path: str) -> tuple[str, Dataset]:
    source = JsonlSource(name="texts", type="jsonl", path=path, id_field="id", bytes_per_unit=MIB)
    dataset = Dataset(root, "made")
    for unit in source.units():
        process_unit(source, (), unit, dataset)
    return dataset.publish_manifest("examples", [commit for commit, _ in dataset.commits()])[0], dataset


def test_a_failing_server_changes_no_byte_of_the_manifest(proxy: Proxy, tmp_path: Path) -> None:
    proxy.start(lambda n, method, path: None)
    for i in range(3):
        storage.publish_bytes(f"s3://bucket/in/{i}.jsonl", lines(i))
    calm, _ = ingest("s3://bucket/calm", "s3://bucket/in")
    proxy.start(every(4))
    faulty, dataset = ingest("s3://bucket/faulty", "s3://bucket/in")
    proxy.start(lambda n, method, path: None)
    assert faulty == calm
    keys = [key for commit in dataset.manifest()[1].commits for ref in commit.shards for key in _keys(dataset, ref)]
    assert len(keys) == len(set(keys)) == 3 * 300
    assert storage.list_folder("s3://bucket/faulty/made/shards") == storage.list_folder("s3://bucket/calm/made/shards")


def _keys(dataset: Dataset, ref: object) -> list[str]:
    return dataset.read(ref).column("key").to_pylist()  # type: ignore[arg-type, no-any-return]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_outlasted(proxy: Proxy, fault: str, tmp_path: Path) -> None:
    url = f"s3://bucket/each/{fault}"
    proxy.start(every(2, (fault,)))
    data = noise(3 * MIB + 7)
    storage.publish_bytes(url, data)
    assert storage.read_bytes(url) == data
    assert storage.stat(url)["bytes"] == len(data)
    assert storage.list_folder("s3://bucket/each").count(fault) == 1
    storage.download(url, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == data
    with storage.open_read(url) as stream:
        stream.seek(-10, 2)
        assert stream.read() == data[-10:]
        stream.seek(MIB - 5)
        assert stream.read(10) == data[MIB - 5 : MIB + 5]
    met = proxy.met.total()
    proxy.start(lambda n, method, path: None)
    assert met >= 3


def test_an_upload_in_parts_survives_a_part_that_fails(proxy: Proxy, tmp_path: Path) -> None:
    failed: list[str] = []

    def second_part(n: int, method: str, path: str) -> str | None:
        if "partNumber=2" in path and len(failed) < 3:  # more often than the client itself tries
            failed.append(path)
            return "500"
        return None

    proxy.start(second_part)
    scratch = tmp_path / "shard"
    scratch.write_bytes(data := noise(40 * MIB))
    storage.publish_file(scratch, "s3://bucket/large/shard")
    proxy.start(lambda n, method, path: None)
    assert len({path.partition("uploadId=")[2] for path in failed}) > 1, "the whole upload was tried again"
    assert not scratch.exists()
    assert storage.read_bytes("s3://bucket/large/shard") == data
    fs, _ = storage.filesystem("s3://bucket")
    assert fs.list_multipart_uploads("bucket") == [], "what was given up is not left behind"


@pytest.mark.fault
def test_folders_of_more_than_a_page(proxy: Proxy) -> None:
    fs, _ = storage.filesystem("s3://bucket")
    fs.pipe({f"bucket/many/{i:04d}": b"x" * (i % 7) for i in range(1100)})
    proxy.start(every(2, ("short", "503")))
    names = [f"{i:04d}" for i in range(1100)]
    assert storage.list_folder("s3://bucket/many") == names
    urls = storage.list_files("s3://bucket/many")
    marks = storage.stats([*urls, "s3://bucket/many/absent"])
    proxy.start(lambda n, method, path: None)
    assert urls == [f"s3://bucket/many/{name}" for name in names]
    assert marks.pop("s3://bucket/many/absent") is None
    assert [mark["bytes"] for mark in marks.values() if mark] == [i % 7 for i in range(1100)]
    assert marks[urls[5]] == storage.stat(urls[5]), "by listing as by asking"


def test_other_processes_are_seen(proxy: Proxy) -> None:
    storage.publish_bytes("s3://bucket/seen/a", b"1")
    assert storage.list_folder("s3://bucket/seen") == ["a"]
    other = type(storage.filesystem("s3://bucket")[0])(skip_instance_cache=True)
    other.pipe_file("bucket/seen/a", b"22")
    other.pipe_file("bucket/seen/b", b"1")
    assert storage.list_folder("s3://bucket/seen") == ["a", "b"]
    assert storage.stat("s3://bucket/seen/a")["bytes"] == 2
    assert storage.exists("s3://bucket/seen/b")


def test_a_store_that_stays_away_is_no_verdict_on_data(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy.start(lambda n, method, path: None)
    storage.publish_bytes("s3://bucket/gone/0.jsonl", lines(0))
    monkeypatch.setattr(retry, "GIVE_UP_SECONDS", 0.05)
    proxy.start(lambda n, method, path: "short" if method == "GET" and path.endswith("0.jsonl") else None)
    try:
        with pytest.raises(StoreUnavailable, match=r"reading s3://bucket/gone/0.jsonl: transient for .*Truncated"):
            ingest(str(tmp_path), "s3://bucket/gone")
    finally:
        proxy.start(lambda n, method, path: None)
    assert Dataset(str(tmp_path), "made").commits() == []


@pytest.mark.ray
@pytest.mark.fault
@pytest.mark.timeout(600)
def test_whole_runs_on_a_failing_server_that_are_killed_end_where_a_calm_one_does(proxy: Proxy, tmp_path: Path) -> None:
    proxy.start(lambda n, method, path: None)
    for i in range(12):
        storage.publish_bytes(f"s3://bucket/whole/{i:02d}.jsonl", lines(i))
    dag = tmp_path / "dag.yaml"
    dag.write_text("dataset: made\nsources: [{name: texts, type: jsonl, path: s3://bucket/whole, id_field: id}]\n")
    calm = run(dag, "s3://bucket/calm-run", tmp_path)
    proxy.start(every(5))
    for commits in (1, 5):
        process = start(dag, "s3://bucket/faulty-run", tmp_path)
        while len(storage.list_folder("s3://bucket/faulty-run/made/commits")) < commits and process.poll() is None:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    faulty = run(dag, "s3://bucket/faulty-run", tmp_path)
    proxy.start(lambda n, method, path: None)
    assert faulty["manifest"] == calm["manifest"]
    assert faulty["records"] == calm["records"]
    dataset = Dataset("s3://bucket/faulty-run", "made")
    keys = [key for commit in dataset.manifest()[1].commits for ref in commit.shards for key in _keys(dataset, ref)]
    assert len(keys) == len(set(keys)) == 12 * 300


def start(dag: Path, root: str, folder: Path) -> subprocess.Popen[str]:
    """``omnimill ingest`` as a program in a session of its own."""
    command = [Path(sys.executable).with_name("omnimill"), "ingest", dag, "--root", root, "--cpus", "2", "--json"]
    environment = {key: text for key, text in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.Popen(
        list(map(str, command)),
        env={**environment, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(dag: Path, root: str, folder: Path) -> dict[str, Any]:
    process = start(dag, root, folder)
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    answer: dict[str, Any] = json.loads(out)
    return answer


def test_faults_are_told_apart() -> None:
    def coded(code: str) -> OSError:
        error = OSError(errno.EINVAL, code)
        error.__cause__ = ClientError({"Error": {"Code": code}}, "GetObject")
        return error

    assert passing(coded("SlowDown")) == passing(OSError(errno.EBUSY, "")) == "throttled"
    assert passing(coded("InternalError")) == passing(coded("IncompleteBody")) == "transient"
    assert passing(EndpointConnectionError(endpoint_url="x")) == passing(TimeoutError()) == "transient"
    assert passing(Truncated("")) == passing(ConnectionResetError()) == "transient"
    assert passing(FileNotFoundError(errno.ENOENT, "")) is None
    assert passing(PermissionError(errno.EACCES, "")) is None
    assert passing(OSError(errno.ENOSPC, "")) is None
    assert passing(ValueError()) is passing(coded("NoSuchKey")) is None


def test_pauses_grow_and_the_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    clock = np.zeros(1)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(retry.time, "sleep", sleep)
    monkeypatch.setattr(retry.time, "monotonic", lambda: float(clock[0]))
    with pytest.raises(StoreUnavailable, match="throttled for"):
        patiently("reading x", lambda: (_ for _ in ()).throw(OSError(errno.EBUSY, "SlowDown")))
    assert 300 < clock[0] < 321
    assert max(pauses[:3]) < 4
    assert 10 < max(pauses) <= 20
    assert len(set(pauses)) == len(pauses)
