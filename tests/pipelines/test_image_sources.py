"""Image folders and WebDataset tars: every picture, caption line and member is accounted for exactly once."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from omnimill.errors import ConfigError
from omnimill.infra.dataset import Dataset
from omnimill.pipelines.base import Source
from omnimill.pipelines.decoders import tars as tars_decoder
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.sources.files import FilesSource
from omnimill.pipelines.sources.image_folder import ImageFolderSource
from omnimill.pipelines.sources.webdataset_tars import WebDatasetSource
from omnimill.pipelines.verdicts import Outcome, decode_in_order, read_records
from omnimill.schema import Example


def outcomes(source: Source) -> list[Outcome]:
    return [found for unit in source.units() for found in decode_in_order(read_records(source.read, unit), 2)]


def examples(found: list[Outcome]) -> list[Example]:
    return [example for outcome in found for example in outcome.examples]


def reasons(found: list[Outcome]) -> Counter[str]:
    return Counter("kept" if one.rejection is None else one.rejection.reason for one in found)


def picture(seed: int = 0, form: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    shade = np.random.default_rng(seed).integers(0, 255, 3)
    Image.new("RGB", (40, 30), tuple(int(value) for value in shade)).save(stream, form)
    return stream.getvalue()


def folder(path: Path, **options: Any) -> ImageFolderSource:
    return ImageFolderSource(type="image_folder", name="photos", path=str(path), **options)


def write_folder(path: Path, names: list[str], captions: list[Mapping[str, Any] | str]) -> None:
    for i, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(picture(i))
    lines = (line if isinstance(line, str) else json.dumps(line) for line in captions)
    (path / "captions.jsonl").write_text("\n".join(lines))


@pytest.mark.parametrize("images_per_unit", [1, 2, 3, 100])
def test_every_picture_and_caption_line_is_accounted_for_once(tmp_path: Path, images_per_unit: int) -> None:
    names = ["b.jpg", "d.jpg", "sub/e.jpg", "x.jpg"]
    captions: list[Mapping[str, Any] | str] = [
        {"image": "d.jpg", "caption": "a dog", "alternatives": ["a hound", "a dog", ""]},
        {"image": "a_missing.jpg", "caption": "before all"},
        {"image": "./sub/e.jpg", "label": "thing", "url": "https://example.org/e", "licence": "CC0-1.0"},
        {"image": "d.jpg", "label": "dog", "caption": None},
        {"image": "c_missing.jpg", "caption": "between"},
        {"image": "z_missing.jpg", "caption": "after all"},
        {"image": "../b.jpg", "caption": "outside"},
        {"caption": "no name"},
        "{broken",
        "[1]",
        {"image": "notes.txt", "caption": "not a picture by its name"},
        {"image": "x.jpg", "caption": 7},
    ]
    write_folder(tmp_path, names, captions)
    source = folder(tmp_path, captions="captions.jsonl", images_per_unit=images_per_unit, licence="own")
    found = outcomes(source)
    assert reasons(found) == {
        "kept": 3,
        "missing_file": 4,
        "missing_field": 1,
        "invalid_json": 1,
        "wrong_type": 2,
    }
    assert len({one.record.key for one in found}) == len(found)
    kept = {example.key: example for example in examples(found)}
    assert [(text.role, text.text, text.image) for text in kept["d.jpg"].text] == [
        ("caption", "a dog", 0),
        ("caption", "a hound", 0),
        ("label", "dog", 0),
    ]
    assert kept["b.jpg"].text == []
    assert kept["sub/e.jpg"].meta.url == "https://example.org/e"
    assert kept["sub/e.jpg"].meta.licence == "CC0-1.0"
    assert kept["d.jpg"].meta.licence == "own"
    assert kept["d.jpg"].images[0].uri == str(tmp_path / "d.jpg")


@settings(max_examples=40)
@given(
    st.lists(st.text("abcd", min_size=1, max_size=3), unique=True, max_size=8),
    st.lists(st.text("abcd", min_size=1, max_size=3), max_size=12),
    st.integers(1, 5),
)
def test_captions_fall_to_one_unit_whatever_the_names(
    tmp_path_factory: pytest.TempPathFactory, there: list[str], named: list[str], size: int
) -> None:
    path = tmp_path_factory.mktemp("photos")
    write_folder(path, [f"{name}.jpg" for name in there], [{"image": f"{name}.jpg", "caption": "c"} for name in named])
    found = outcomes(folder(path, captions="captions.jsonl", images_per_unit=size))
    assert reasons(found) == +Counter(kept=len(there), missing_file=sum(name not in there for name in named))
    assert {example.key for example in examples(found) if example.text} == {f"{n}.jpg" for n in there if n in named}


def test_pictures_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    write_folder(
        tmp_path, ["good.jpg"], [{"image": "good.jpg", "caption": "fine"}, {"image": "cut.jpg", "caption": "x"}]
    )
    data = picture()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "page.jpg").write_bytes(b"<html><body>not found</body></html>")
    (tmp_path / "mine.png").write_bytes(data)
    options: dict[str, Any] = {"captions": "captions.jsonl"}
    assert reasons(outcomes(folder(tmp_path, **options))) == {
        "kept": 2,
        "image_truncated": 1,
        "empty_file": 1,
        "not_an_image": 1,
    }
    found = outcomes(folder(tmp_path, require_caption=True, exclude=("empty*", "page*"), **options))
    assert reasons(found) == {"kept": 1, "image_truncated": 1, "no_caption": 1}
    quarantined = {one.record.key: one.record.data for one in found if one.rejection is not None}
    assert quarantined["cut.jpg"] == data[: len(data) // 2]
    small = outcomes(folder(tmp_path, images={"max_bytes": 100}, include=("good.jpg",)))
    assert reasons(small) == {"file_too_large": 1}


def test_a_new_caption_is_a_new_example(tmp_path: Path) -> None:
    write_folder(tmp_path, ["a.jpg"], [{"image": "a.jpg", "caption": "one"}])
    source = folder(tmp_path, captions="captions.jsonl")
    first = examples(outcomes(source))[0]
    unit = next(source.units())
    before = [ref.digest for ref in source.inputs(unit)]
    write_folder(tmp_path, ["a.jpg"], [{"image": "a.jpg", "caption": "two"}])
    second = examples(outcomes(source))[0]
    assert first.id != second.id
    assert next(source.units()).id == unit.id
    assert [a == b for a, b in zip(before, (ref.digest for ref in source.inputs(unit)), strict=True)] == [False, True]


def test_a_captions_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture())
    with pytest.raises(ConfigError, match="no captions file"):
        list(folder(tmp_path, captions="captions.json").units())
    assert reasons(outcomes(folder(tmp_path))) == {"kept": 1}


Entry = tuple[str, bytes]


def write_tar(path: Path, entries: list[Entry], mode: str = "w") -> bytes:
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path.read_bytes()


def tars(path: Path, **options: Any) -> WebDatasetSource:
    return WebDatasetSource(type="webdataset", name="wds", path=str(path), **options)


def sample(key: str, seed: int = 0) -> list[Entry]:
    facts = json.dumps({"url": f"https://example.org/{key}", "caption": "from json"}).encode()
    return [(f"{key}.jpg", picture(seed)), (f"{key}.json", facts), (f"{key}.txt", f"picture {key}".encode())]


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tgz", "w:gz"), ("a.tar.gz", "w:gz")])
def test_members_of_one_key_are_a_sample(tmp_path: Path, name: str, mode: str) -> None:
    entries = [*sample("000/one", 1), *sample("000/two", 2), ("x.v1/three.png", picture(3, "PNG")), ("four.cls", b"1")]
    entries += [("four.webp", picture(4, "WEBP")), ("five.json", b'{"caption": "said"}'), ("five.JPG", picture(5))]
    entries += [("six.txt.gz", gzip.compress(b"only text")), ("seven.json", b"{}")]
    data = write_tar(tmp_path / name, entries, mode)
    found = outcomes(tars(tmp_path, classes=("cat", "dog")))
    assert reasons(found) == {"kept": 6, "no_content": 1}
    kept = {example.key.removeprefix(f"{name}/"): example for example in examples(found)}
    assert [(text.role, text.text) for text in kept["000/one"].text] == [("caption", "picture 000/one")]
    assert kept["000/one"].meta.url == "https://example.org/000/one"
    assert kept["000/one"].images[0].data == picture(1)
    assert kept["000/one"].images[0].uri == f"{tmp_path / name}#000/one.jpg"
    assert kept["x.v1/three"].text == []
    assert [(text.role, text.text) for text in kept["four"].text] == [("label", "dog")]
    assert [(text.role, text.text) for text in kept["five"].text] == [("caption", "said")]
    assert [(text.role, text.text, text.image) for text in kept["six"].text] == [("body", "only text", None)]
    where = kept["000/two"].provenance
    if mode == "w":
        assert picture(2) in data[where.offset : where.offset + where.length]  # type: ignore[operator]


def special(name: str, kind: bytes, target: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


def test_tricks_are_refused_and_neighbours_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:

        def add(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

        add("good.jpg", picture())
        add("../../escape.jpg", picture())
        add("/absolute.jpg", picture())
        add("a\\..\\b.jpg", picture())
        archive.addfile(special("link.jpg", tarfile.SYMTYPE, "/etc/passwd"))
        archive.addfile(special("hard.jpg", tarfile.LNKTYPE, "good.jpg"))
        archive.addfile(special("pipe.jpg", tarfile.FIFOTYPE))
        archive.addfile(special("folder", tarfile.DIRTYPE))
        add("giant.jpg", bytes(60_000))
        add("twice.txt", b"first")
        add("twice.txt", b"second")
        add("other.npy", b"\x93NUMPY")
        add("noextension", b"?")
        add("._good.jpg", b"resource fork")
        add("good.txt", b"too late")
        add("bomb.txt.gz", gzip.compress(bytes(1_000_000)))
        add("last.txt", b"fine")
    found = outcomes(tars(tmp_path, max_member_bytes=50_000))
    assert {
        one.record.key.removeprefix("a.tar/").split("@")[0]: one.rejection.reason for one in found if one.rejection
    } == {
        "../../escape": "unsafe_member_name",
        "/absolute": "unsafe_member_name",
        "a\\": "unsafe_member_name",
        "link": "link_member",
        "hard": "link_member",
        "pipe": "special_member",
        "giant": "member_too_large",
        "twice": "duplicate_member",
        "other": "unsupported_member",
        "noextension": "unsupported_member",
        "._good.jpg": "unsupported_member",
        "good": "split_sample",
        "bomb": "member_too_large",
    }
    assert [example.key for example in examples(found)] == ["a.tar/good", "a.tar/last"]
    assert reasons(outcomes(tars(tmp_path, max_member_bytes=50_000, ignore=("npy",))))["no_content"] == 1


def test_a_medium_is_what_its_content_says(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "a.tar", [("a.mp4", picture()), ("b.png", picture()), ("c.jpg", b"<html><body></body></html>")]
    )
    found = outcomes(tars(tmp_path))
    assert reasons(found) == {"kept": 2, "not_an_image": 1}
    assert [one.meta.tags for one in examples(found)] == [{"mislabelled": f"jpeg as .{end}"} for end in ("mp4", "png")]
    (tmp_path / "d.png").write_bytes(picture())
    (tmp_path / "e.jpg").write_bytes(picture())
    tags = [{"mislabelled": "jpeg as .png"}, {}]
    assert [one.meta.tags for one in examples(outcomes(folder(tmp_path)))] == tags
    anything = FilesSource(type="files", name="files", path=str(tmp_path), include=("*.jpg", "*.png"))
    assert [one.meta.tags for one in examples(outcomes(anything))] == tags


@settings(max_examples=60)
@given(st.data())
def test_what_a_cut_off_tar_still_holds_is_kept(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("tars")
    samples = [sample(f"{i:03d}", i) for i in range(4)]
    whole = write_tar(path / "a.tar", [entry for one in samples for entry in one])
    with tarfile.open(path / "a.tar") as archive:
        pictures = [member.offset_data + member.size for member in archive if member.name.endswith(".jpg")]
        end = max(member.offset_data + member.size for member in archive)
    cut = data.draw(st.integers(0, end + 400))
    (path / "a.tar").write_bytes(whole[:cut])
    found = outcomes(tars(path))
    kept = reasons(found)["kept"]
    # A sample is complete only when the next one has begun: otherwise its last members may be what is missing.
    assert kept == sum(picture <= cut for picture in pictures[1:])
    assert len(found) - kept == 1
    assert found[-1].rejection is not None
    assert found[-1].rejection.reason in ("archive_truncated", "archive_unreadable")


@pytest.mark.parametrize("place", ["start", "middle"])
def test_a_damaged_header_ends_the_archive_with_a_verdict(tmp_path: Path, place: str) -> None:
    data = bytearray(write_tar(tmp_path / "a.tar", [*sample("a"), *sample("b")]))
    with tarfile.open(tmp_path / "a.tar") as archive:
        offset = 0 if place == "start" else archive.getmember("b.jpg").offset
    data[offset : offset + 300] = b"\xaa" * 300
    (tmp_path / "a.tar").write_bytes(data)
    found = reasons(outcomes(tars(tmp_path)))
    assert found == ({"archive_unreadable": 1} if place == "start" else {"archive_damaged": 1})


def test_damaged_compression_and_no_tar_at_all(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tgz", [entry for i in range(20) for entry in sample(f"{i:03d}", i)], "w:gz")
    (tmp_path / "a.tgz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.tar").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "c.tar").write_bytes(b"")
    found = reasons(outcomes(tars(tmp_path)))
    assert 0 < found.pop("kept") < 20
    assert sum(found.values()) == 3
    assert set(found) <= {"archive_truncated", "archive_unreadable"}


def test_a_huge_extended_header_is_not_read_into_memory(tmp_path: Path) -> None:
    header = bytearray(special("x", tarfile.XHDTYPE, size=8 << 30).tobuf(tarfile.GNU_FORMAT))
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(10_000))
    assert reasons(outcomes(tars(tmp_path))) == {"archive_damaged": 1}


def test_a_tar_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars_decoder, "_FREE_EXPANSION", 1 << 20)
    with gzip.open(tmp_path / "a.tgz", "wb") as stream:
        stream.write(special("zeros.jpg", tarfile.REGTYPE, size=64 << 20).tobuf(tarfile.GNU_FORMAT))
        for _ in range(64):
            stream.write(bytes(1 << 20))
    assert reasons(outcomes(tars(tmp_path, max_member_bytes=1 << 20))) == {"archive_too_large": 1}


def test_a_folder_and_a_tar_balance_their_accounts(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", ["a.jpg", "b.jpg"], [{"image": "gone.jpg"}])
    write_tar(tmp_path / "in" / "t.tar", [*sample("a"), ("x.bin", b"?")])
    dataset = Dataset(str(tmp_path / "out"), "d")
    for source in (folder(tmp_path / "in", captions="captions.jsonl"), tars(tmp_path / "in")):
        for unit in source.units():
            commit = process_unit(source, (), unit, dataset)
            again = process_unit(source, (), unit, Dataset(str(tmp_path / "again"), "d"), threads=1)
            assert commit == again
            commit.counts.check(unit.id)
            assert commit.counts.records_in == (3 if source.name == "photos" else 2)


def test_real_tars_give_their_samples(realdata: Path) -> None:
    if (realdata / "webdataset" / "cc12m-train-0000.tar").exists():
        found = outcomes(tars(realdata / "webdataset" / "cc12m-train-0000.tar"))
        assert reasons(found) == {"kept": 32}
        assert all(example.text and example.images for example in examples(found))
