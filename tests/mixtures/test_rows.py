from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnimill.errors import ConfigError, IntegrityError
from omnimill.infra.dataset import Dataset, Manifest
from omnimill.mixtures import items
from omnimill.mixtures.config import Task
from omnimill.mixtures.rows import TaskRows, scan
from omnimill.mixtures.versions import TokenData
from omnimill.tokens import TOKEN_SCHEMA, TOKEN_VERSION_KEY

Maker = Callable[..., Any]


def task(**values: Any) -> Task:
    return Task.model_validate({"name": "t", "rate": 1, "sources": ["s"], "target": "text:caption", **values})


def keys(rows: TaskRows) -> list[str]:
    return [rows.fetch(i).key for i in range(len(rows))]


# What each row of the table below is for stands in its key.
def table(row: Maker) -> list[dict[str, Any]]:
    return [
        row("plain", [("caption", 4)]),
        row("empty text", [("caption", 0)], images=1),
        row("one token", [("caption", 1)], images=1),
        row("asked", [("caption", 4), ("question", 3)], images=1),
        row("film", [("caption", 4)], images=3, audio=3),
        row("film, last one not encoded", [("caption", 4)], images=2, audio=2, image_codes=0, audio_codes=0),
        row("blank picture", [("caption", 4)], images=1, patches=0),
        row("sound", [("caption", 4)], audio=1),
    ]


FILMS = ["film", "film, last one not encoded"]
CASES = [
    ({}, ["plain", "one token", "asked", *FILMS, "blank picture", "sound"], {"no_text:caption": 1}),
    ({"inputs": ["image"]}, ["one token", "asked", *FILMS], {"no_image": 3, "no_text:caption": 1}),
    (
        {"inputs": ["image_history"]},
        FILMS,
        {"no_image_history": 6},
    ),
    ({"inputs": ["audio"]}, [*FILMS, "sound"], {"no_audio": 5}),
    ({"inputs": ["audio", "audio_history"]}, FILMS, {"no_audio": 5, "no_audio_history": 1}),
    (
        {"prompts": ["{question}", "Say what you see."]},
        ["asked"],
        {"no_text:caption": 1, "no_text:question": 6},
    ),
    ({"target": "image"}, ["empty text", "one token", "asked", "film", "blank picture"], {"no_image_codes": 3}),
    (
        {"target": "image", "objective": "image_denoising"},
        ["empty text", "one token", "asked", "film"],
        {"no_image": 3, "no_image_codes": 1},
    ),
    (
        {"target": "image", "objective": "token_budgets", "optional": ["audio"]},
        ["empty text", "one token", "asked", "film"],
        {"no_image": 3, "no_image_codes": 1},
    ),
    (
        {"target": "image", "inputs": ["image_history"], "prompts": ["{caption}"]},
        ["film"],
        {"no_image_codes": 1, "no_image_history": 6},
    ),
    ({"target": "audio", "objective": "audio_denoising"}, ["film", "sound"], {"no_audio": 5, "no_audio_codes": 1}),
    (
        {"objective": "cm3"},
        ["plain", "asked", *FILMS, "blank picture", "sound"],
        {"no_text:caption": 1, "target_too_short": 1},
    ),
    (
        {"objective": "text_denoising"},
        ["plain", "asked", *FILMS, "blank picture", "sound"],
        {"no_text:caption": 1, "target_too_short": 1},
    ),
]


@pytest.mark.parametrize(("settings", "expected", "reasons"), CASES)
def test_rows_that_hold_what_the_task_needs_are_eligible_and_others_counted_by_reason(
    tmp_path: Path, row: Maker, tokens: Maker, settings: dict[str, Any], expected: list[str], reasons: dict[str, int]
) -> None:
    rows = table(row)
    manifest = tokens(tmp_path, {"s": rows, "other": [row("elsewhere", [("caption", 9)], images=5, audio=5)]})
    found = TaskRows.open(TokenData(str(tmp_path), (manifest,)), task(**settings))
    assert keys(found) == expected
    assert dict(found.reasons["s"]) == reasons
    assert len(found) + sum(reasons.values()) == len(rows)


def test_a_task_without_a_row_says_why(tmp_path: Path, row: Maker, tokens: Maker) -> None:
    manifest = tokens(tmp_path, {"s": [row("a", [("caption", 4)]), row("b"), row("c", images=1)]})
    with pytest.raises(ConfigError, match=r"task 't': no eligible row: s: no_image 2, no_text:caption 1; gone: has no"):
        TaskRows.open(TokenData(str(tmp_path), (manifest,)), task(inputs=["image"], sources=["s", "gone"]))


def test_lengths_and_content_are_those_of_the_stored_row(tmp_path: Path, row: Maker, tokens: Maker) -> None:
    stored = [
        row(f"row {i}", [("caption", i + 1), ("label", 2, 0, None)], images=i % 3, audio=i % 2) for i in range(600)
    ]
    # One shard of several record batches and one short shard.
    rows = TaskRows.open(TokenData(str(tmp_path), (tokens(tmp_path, {"s": stored}, shard_rows=590),)), task())
    assert len(rows) == 600
    for i in (0, 255, 256, 589, 590, 599):
        lengths, content = rows.lengths(i), rows.fetch(i)
        for name in ("text_roles", "text_images", "text_audio", "text_lengths", "image_patches", "history_patches"):
            assert getattr(lengths, name) == getattr(content, name) == stored[i][name]
        for name in ("audio_patches", "image_codes_lengths", "audio_codes_lengths", "target_roles", "text_items"):
            assert getattr(lengths, name) == getattr(content, name) == stored[i][name]
        assert (content.id, content.key, content.source) == (stored[i]["id"], stored[i]["key"], "s")
        assert rows.id(i) == content.id
        assert (content.image_data, content.audio_data) == (stored[i]["image_data"], stored[i]["audio_data"])
        assert [ids.tolist() for ids in content.text_ids] == stored[i]["text_ids"]
        assert [ids.dtype for ids in content.text_ids] == [np.int32, np.int32]
        assert [codes.tolist() for codes in content.image_codes] == stored[i]["image_codes"]
        assert [codes.tolist() for codes in content.audio_codes] == stored[i]["audio_codes"]
    for outside in (-1, 600):
        with pytest.raises(IndexError, match=f"600 rows, asked for row {outside}"):
            rows.lengths(outside)


@given(have=st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.booleans()), min_size=1, max_size=25))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_are_numbered_in_manifest_order_and_found_by_id(
    tmp_path: Path, row: Maker, tokens: Maker, have: list[tuple[str, bool]]
) -> None:
    stored: dict[str, list[dict[str, Any]]] = {"c": [], "a": [], "b": []}
    for number, (source, captioned) in enumerate(have):
        stored[source].append(row(str(number), [("caption", 3)] if captioned else []))
    manifest = tokens(tmp_path, stored, shard_rows=4)
    rows = scan(TokenData(str(tmp_path), (manifest,)), [task(sources=["a", "c"])])[0]
    expected = [one["id"] for source in "ac" for one in stored[source] if one["text_roles"]]
    assert [rows.id(i) for i in range(len(rows))] == expected
    assert list(rows.sizes.elements()) == [s for s in "ac" for one in stored[s] if one["text_roles"]]
    for source in "abc":
        for one in stored[source]:
            assert rows.locate_ids({one["id"]}) == ([expected.index(one["id"])] if one["id"] in expected else [])
    assert rows.locate_ids({"id of nobody"}) == []


def test_rows_can_be_sent_to_another_process(tmp_path: Path, row: Maker, tokens: Maker) -> None:
    manifest = tokens(tmp_path, {"s": [row("a"), row("b", [("caption", 2)])]})
    rows = TaskRows.open(TokenData(str(tmp_path), (manifest,)), task())
    assert keys(pickle.loads(pickle.dumps(rows))) == ["b"]


def test_a_dataset_that_is_not_on_a_local_disk_reads_the_same(row: Maker, tokens: Maker) -> None:
    root = "memory://rows-test"
    manifest: Manifest = tokens(root, {"s": [row("a", [("caption", 2)], images=1), row("b")]})
    rows = TaskRows.open(TokenData(root, (manifest,)), task(inputs=["image"]))
    assert keys(rows) == ["a"]
    assert rows.shard(0).startswith("memory://")


def test_texts_of_the_current_picture_or_clip_win(tmp_path: Path, row: Maker, tokens: Maker) -> None:
    texts = [
        ("action", 2, 0, None),
        ("action", 2, 2, None),
        ("instruction", 5, None, None),
        ("action", 0, 2, None),
        ("heard", 3, None, 0),
        ("heard", 3, None, 1),
        ("early", 3, 1, None),
    ]
    manifest = tokens(tmp_path, {"s": [row("a", texts, images=3, audio=2)]})
    lengths = TaskRows.open(TokenData(str(tmp_path), (manifest,)), task(target="text:action")).lengths(0)
    assert items.texts(lengths, "action", None) == [1]
    assert items.texts(lengths, "instruction", None) == [2]
    assert items.texts(lengths, "heard", None) == [5]
    assert items.texts(lengths, "early", None) == [6]
    assert items.texts(lengths, "missing", None) == []


def test_a_shard_of_another_version_is_refused(tmp_path: Path, row: Maker) -> None:
    dataset = Dataset(str(tmp_path), "tokens")
    schema = TOKEN_SCHEMA.with_metadata({TOKEN_VERSION_KEY: b"99"})
    shard = dataset.publish_shard(pa.Table.from_pylist([{**row("a"), "source": "s"}], schema))
    commit = {"unit": "s-0", "source": "s", "recipe": "r", "inputs": [], "shards": [shard.model_dump()]}
    manifest = Manifest.model_validate({"dataset": "tokens", "kind": "tokens", "commits": [commit]})
    with pytest.raises(
        IntegrityError,
        match=r"token schema version 99, but this omnimill reads version 3.*run `omnimill tokenize` again",
    ):
        TaskRows.open(TokenData(str(tmp_path), (manifest,)), task())
