"""Objaverse: assets with the names, tags and licences that its metadata tell."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trimesh

from omnimill.pipelines.sources.objaverse import ObjaverseSource
from omnimill.schema import Example

Read = Callable[[ObjaverseSource], tuple[list[Example], dict[str, str]]]

UIDS = ["8476c4170df24cf5bbe6967222d1a42d", "8ff7f1f2465347cd8b80c9b206c2781e", "c786b97d08b94d02a1fa3b87d2e86cf1"]


def about(uid: str, **other: Any) -> dict[str, Any]:
    return {
        "uri": f"https://api.sketchfab.com/v3/models/{uid}",
        "uid": uid,
        "name": "Iron chair ",
        "viewerUrl": f"https://sketchfab.com/3d-models/{uid}",
        "isAgeRestricted": False,
        "tags": [{"name": "chair", "slug": "chair"}, {"name": "iron", "slug": "iron"}],
        "categories": [{"name": "furniture-home"}],
        "license": "by",
        **other,
    }


@pytest.fixture
def objaverse(tmp_path: Path) -> Callable[..., ObjaverseSource]:
    def write(metadata: bytes | None, **settings: Any) -> ObjaverseSource:
        folder = tmp_path / "glbs" / "000-023"
        folder.mkdir(parents=True)
        (tmp_path / "metadata").mkdir()
        for size, uid in enumerate(UIDS, start=1):
            box = trimesh.creation.box(extents=(1, size, 1))
            (folder / f"{uid}.glb").write_bytes(trimesh.Scene([box]).export(file_type="glb"))
        if metadata is not None:
            (tmp_path / "metadata" / "000-023.json.gz").write_bytes(metadata)
        return ObjaverseSource(type="objaverse", name="objaverse", path=str(tmp_path), views=2, size=32, **settings)

    return write


def test_assets_with_what_is_known_of_them(objaverse: Callable[..., ObjaverseSource], read_source: Read) -> None:
    known = {UIDS[0]: about(UIDS[0]), UIDS[1]: about(UIDS[1], isAgeRestricted=True)}
    examples, verdicts = read_source(objaverse(gzip.compress(json.dumps(known).encode())))
    assert verdicts == {
        f"glbs/000-023/{UIDS[0]}.glb": "kept",
        f"glbs/000-023/{UIDS[1]}.glb": "age_restricted",
        f"glbs/000-023/{UIDS[2]}.glb": "metadata_missing",
    }
    (example,) = examples
    assert [(text.role, text.text) for text in example.text] == [("label", "Iron chair")]
    assert example.meta.licence == "CC-BY-4.0"
    assert example.meta.url == f"https://sketchfab.com/3d-models/{UIDS[0]}"
    assert example.meta.tags == {"tags": "chair, iron", "categories": "furniture-home"}
    assert (len(example.images), len(example.views)) == (2, 2)
    assert example.views[0].bins == [499, 499, 999, 499]


@pytest.mark.parametrize(("code", "licence"), [("cc0", "CC0-1.0"), ("by-nc-sa", "CC-BY-NC-SA-4.0"), ("st", "st")])
def test_licences(code: str, licence: str, objaverse: Callable[..., ObjaverseSource], read_source: Read) -> None:
    known = {uid: about(uid, license=code) for uid in UIDS}
    examples, _ = read_source(objaverse(gzip.compress(json.dumps(known).encode())))
    assert {example.meta.licence for example in examples} == {licence}


@pytest.mark.parametrize(
    "metadata",
    [b"no gzip", gzip.compress(b"[1]"), gzip.compress(b"{")],
    ids=["no gzip", "list", "cut"],
)
def test_damaged_metadata(metadata: bytes, objaverse: Callable[..., ObjaverseSource], read_source: Read) -> None:
    _, verdicts = read_source(objaverse(metadata))
    assert set(verdicts.values()) == {"metadata_malformed"}


def test_metadata_may_be_left_out(objaverse: Callable[..., ObjaverseSource], read_source: Read) -> None:
    examples, verdicts = read_source(objaverse(None, require_metadata=False, licence="unknown"))
    assert set(verdicts.values()) == {"kept"}
    assert {example.meta.licence for example in examples} == {"unknown"}
