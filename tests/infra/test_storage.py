"""Publishing is atomic and the same over local disks and other stores."""

from pathlib import Path

import fsspec
import pytest
from blake3 import blake3

from omnimill.errors import OmnimillError
from omnimill.infra import storage


@pytest.mark.parametrize("base", ["{tmp}", "file://{tmp}", "memory://bucket"])
def test_publish_read_list(tmp_path: Path, base: str) -> None:
    root = base.format(tmp=tmp_path) + "/data"
    storage.publish_bytes(storage.join(root, "a", "one.json"), b"1")
    storage.publish_bytes(storage.join(root, "two.json"), b"22")
    scratch = storage.scratch_path(storage.join(root, "three.arrow"))
    scratch.write_bytes(b"333")
    storage.publish_file(scratch, storage.join(root, "three.arrow"))
    assert not scratch.exists()
    assert storage.read_bytes(storage.join(root, "three.arrow")) == b"333"
    assert storage.list_folder(root) == ["three.arrow", "two.json"]
    names = [url for url in storage.list_files(root) if ".partial" not in url]
    assert [url.removeprefix(root) for url in names] == ["/a/one.json", "/three.arrow", "/two.json"]
    assert [storage.read_bytes(url) for url in names] == [b"1", b"333", b"22"]
    assert storage.stat(storage.join(root, "two.json"))["bytes"] == 2
    assert storage.digest_file(storage.join(root, "two.json")) == blake3(b"22").hexdigest()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path / "file")
    storage.publish_bytes(url, b"old")

    def full_disk(self: Path, data: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(data[:1])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        storage.publish_bytes(url, b"new")
    assert storage.read_bytes(url) == b"old"


def test_missing_folders_list_as_empty_and_bad_urls_say_so(tmp_path: Path) -> None:
    assert storage.list_folder(str(tmp_path / "none")) == []
    assert storage.list_files(str(tmp_path / "none")) == []
    with pytest.raises(OmnimillError, match="nosuch"):
        storage.filesystem("nosuch://bucket/x")


def test_protocols_of_the_design_are_known() -> None:
    assert {"s3", "gs", "file"} <= set(fsspec.available_protocols())
