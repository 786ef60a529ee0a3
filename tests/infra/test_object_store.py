"""Sources and datasets on an S3 server over real HTTP: the same commits as from a local disk."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import s3fs
import simplejpeg
from faults.s3 import s3_server

from omnimill.infra import storage
from omnimill.infra.dataset import Dataset
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.sources.image_folder import ImageFolderSource
from omnimill.rng import generator


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URL of an empty bucket on a local S3 server."""
    with s3_server():
        yield "s3://bucket"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of three pictures with captions, one of them cut off."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b", "c"):
        pixels = generator("picture", name).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        (folder / f"{name}.jpg").write_bytes(simplejpeg.encode_jpeg(pixels, colorspace="RGB"))
    (folder / "c.jpg").write_bytes((folder / "c.jpg").read_bytes()[:500])
    (folder / "captions.jsonl").write_text('{"image": "a.jpg", "caption": "A."}\n{"image": "b.jpg", "caption": "B."}\n')
    return folder


def manifest(path: str, root: str) -> str:
    source = ImageFolderSource(name="photos", type="image_folder", path=path, captions="captions.jsonl")
    dataset = Dataset(root, "pictures")
    for unit in source.units():
        process_unit(source, (), unit, dataset)
    digest, published = dataset.publish_manifest("examples", [commit for commit, _ in dataset.commits()])
    assert dataset.manifest(digest)[1] == published
    assert (published.counts.kept, sum(published.counts.quarantined.values())) == (2, 1)
    (ref,) = published.commits[0].shards
    assert dataset.read(ref).column("key").to_pylist() == ["a.jpg", "b.jpg"]
    return digest


def test_ingest_from_and_to_a_bucket(bucket: str, pictures: Path, tmp_path: Path) -> None:
    for file in pictures.iterdir():
        storage.publish_bytes(storage.join(bucket, "in", file.name), file.read_bytes())
    on_s3 = manifest(f"{bucket}/in", f"{bucket}/root")
    assert manifest(f"{bucket}/in", str(tmp_path / "local")) == on_s3
    shutil.rmtree(tmp_path / "local")
    assert manifest(f"{bucket}/in", f"{bucket}/root") == on_s3


def test_storage_on_a_bucket(bucket: str, tmp_path: Path) -> None:
    url = storage.join(bucket, "files", "x.arrow")
    scratch = storage.scratch_path(url)
    scratch.write_bytes(b"123")
    storage.publish_file(scratch, url)
    assert not scratch.exists()
    assert storage.read_bytes(url) == b"123"
    assert storage.exists(url)
    assert not storage.exists(storage.join(bucket, "files", "y"))
    assert storage.list_files(f"{bucket}/files") == [url]
    before = storage.stat(url)
    storage.publish_bytes(url, b"124")
    assert storage.stat(url)["mark"] != before["mark"]


def test_what_another_process_writes_after_a_listing_is_found(bucket: str) -> None:
    storage.publish_bytes(f"{bucket}/late/first", b"1")
    files = storage.filesystem(bucket)[0]
    for look in (lambda: storage.list_folder(f"{bucket}/late"), lambda: files.ls(f"{bucket}/late")):
        look()
        elsewhere = s3fs.S3FileSystem(skip_instance_cache=True)
        elsewhere.pipe_file(f"{bucket}/late/second", b"2")
        assert storage.read_bytes(f"{bucket}/late/second") == b"2"
        elsewhere.rm_file(f"{bucket}/late/second")
