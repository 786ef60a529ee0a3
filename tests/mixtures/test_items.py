"""Which item of a row a task reads: the rules for one row, and that a shard's rows are judged by the same."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimill.mixtures import eligibility
from omnimill.mixtures.config import Task
from omnimill.mixtures.items import Needs, complete_items, needs, pictures, texts
from omnimill.mixtures.row_columns import RowLengths
from omnimill.tokens import LENGTH_COLUMNS, TOKEN_SCHEMA

Text = tuple[str, int | None, int]
Picture = tuple[str, int | None, int]


def lengths_of(
    segments: list[Text], targets: list[Picture] | None = None, shown: list[int | None] | None = None, images: int = 0
) -> RowLengths:
    """A row of texts (role, item, tokens) and target pictures (role, item, codes).

    shown: the pictures that the texts, or without texts the targets, belong to.
    """
    targets = targets or []
    row: dict[str, Any] = {name: [] for name in LENGTH_COLUMNS}
    row |= {
        "text_roles": [role for role, _, _ in segments],
        "text_items": [item for _, item, _ in segments],
        "text_lengths": [tokens for *_, tokens in segments],
        "text_images": (shown or [None] * len(segments)) if segments else [],
        "text_audio": [None] * len(segments),
        "image_patches": [4] * images,
        "target_roles": [role for role, _, _ in targets],
        "target_items": [item for _, item, _ in targets],
        "target_images": shown or [None] * len(targets) if not segments else [None] * len(targets),
        "target_codes_lengths": [codes for *_, codes in targets],
    }
    return RowLengths(**row)


def task(target: str, prompts: list[str], objective: str = "generate") -> Task:
    told = {"name": "t", "rate": 1, "sources": ["s"], "target": target, "prompts": prompts, "objective": objective}
    return Task.model_validate(told)


def reasons(rows: list[RowLengths], asked: Task) -> list[str | None]:
    schema = pa.schema([TOKEN_SCHEMA.field(name) for name in LENGTH_COLUMNS])
    table = pa.Table.from_pylist([vars(row) for row in rows], schema)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return eligibility.reasons(frame, asked).to_list()


ANSWER = task("text:answer", ["{question}"])
CASES: dict[str, tuple[RowLengths, Task, list[int | None], str | None]] = {
    "pairs": (
        lengths_of([("question", 0, 3), ("answer", 0, 1), ("question", 1, 3), ("answer", 1, 2)]),
        ANSWER,
        [0, 1],
        None,
    ),
    "an item without an answer": (
        lengths_of([("question", 0, 3), ("question", 1, 3), ("answer", 1, 2)]),
        ANSWER,
        [1],
        None,
    ),
    "a question for all": (
        lengths_of([("question", None, 3), ("answer", 4, 1), ("answer", 2, 1)]),
        ANSWER,
        [2, 4],
        None,
    ),
    "no item": (lengths_of([("question", None, 3), ("answer", None, 1)]), ANSWER, [None], None),
    "items that do not matter": (
        lengths_of([("question", None, 3), ("answer", None, 1), ("answer", 0, 1)]),
        ANSWER,
        [None],
        None,
    ),
    "boxes of all, and of the class that an item names": (
        lengths_of([("boxes", None, 9), ("label", 0, 1), ("boxes", 0, 4), ("label", 1, 1), ("label", None, 1)]),
        task("text:boxes", ["{label}"]),
        [None],
        None,
    ),
    "what some item has, each has for itself": (
        lengths_of([("boxes", None, 9), ("label", 0, 1), ("boxes", 0, 4), ("label", 1, 1)]),
        task("text:boxes", ["{label}"]),
        [0],
        None,
    ),
    "apart": (lengths_of([("question", 0, 3), ("answer", 1, 1)]), ANSWER, [], "no_item"),
    "empty": (lengths_of([("question", 0, 3), ("answer", 0, 0)]), ANSWER, [], "no_text:answer"),
    "a mask of the expression": (
        lengths_of([("expression", 0, 3), ("expression", 1, 2)], [("segmentation", 1, 4)]),
        task("image:segmentation", ["{expression}"]),
        [1],
        None,
    ),
    "a mask that was not encoded": (
        lengths_of([("expression", 0, 3)], [("segmentation", 0, 0)]),
        task("image:segmentation", ["{expression}"]),
        [],
        "no_image:segmentation",
    ),
    "a map of the whole picture": (lengths_of([], [("depth", None, 4)]), task("image:depth", []), [None], None),
    "no need": (lengths_of([("caption", 3, 2)]), task("image", []), [None], "no_image_codes"),
    "text that is denoised is whole": (
        lengths_of([("body", 0, 1), ("body", 1, 1)]),
        task("text:body", [], "text_denoising"),
        [None],
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_item_serves_with_what_has_none(name: str) -> None:
    row, asked, items, reason = CASES[name]
    assert complete_items(row, needs(asked)) == items
    assert reasons([row], asked) == [reason]


def test_what_an_item_has_wins_over_what_has_none_and_the_current_picture_over_others() -> None:
    row = lengths_of(
        [("label", None, 1), ("label", 0, 1), ("label", 0, 1), ("label", 0, 0), ("label", 1, 1), ("area", None, 1)],
        shown=[1, 0, 1, 1, 0, 0],
        images=2,
    )
    assert texts(row, "label", 0) == [2]
    assert texts(row, "label", 1) == [4]
    assert texts(row, "label", 2) == texts(row, "label", None) == [0]
    assert texts(row, "area", 1) == [5]
    assert texts(row, "other", 1) == []
    row = lengths_of([], [("edited", 0, 4), ("edited", 1, 4), ("edited", 1, 4), ("edited", 1, 0)], [0, 0, 1, 1], 2)
    assert pictures(row, "edited", 1) == [2]
    assert pictures(row, "edited", 0) == [0]


ITEMS = st.sampled_from([None, None, 0, 1, 5])
TEXTS = st.lists(st.tuples(st.sampled_from("abcd"), ITEMS, st.integers(0, 2)), max_size=6)
PICTURES = st.lists(st.tuples(st.sampled_from("cd"), ITEMS, st.sampled_from([0, 4])), max_size=3)
TASKS = [
    task("text:a", []),
    task("text:a", ["{b}"]),
    task("text:c", ["{a} {b}", "{d}"]),
    task("image:c", []),
    task("image:d", ["{a}", "{c}"]),
    task("text:a", ["{b}", "{c}"], "text_denoising"),
    task("text:b", [], "text_denoising"),
]


@given(rows=st.lists(st.tuples(TEXTS, PICTURES), max_size=5), asked=st.sampled_from(TASKS))
def test_a_shard_is_judged_as_its_rows_are(rows: list[tuple[list[Text], list[Picture]]], asked: Task) -> None:
    made = [lengths_of(segments, targets) for segments, targets in rows]
    expected = []
    for row in made:
        whole = sum(
            tokens for role, tokens in zip(row.text_roles, row.text_lengths, strict=True) if role == asked.target_role
        )
        denoised = asked.objective != "text_denoising" or whole > 1
        expected.append(bool(complete_items(row, needs(asked))) and denoised)
    assert [reason is None for reason in reasons(made, asked)] == expected


@given(segments=TEXTS, targets=PICTURES, asked=st.sampled_from(TASKS))
def test_every_item_that_serves_has_all_that_is_needed(
    segments: list[Text], targets: list[Picture], asked: Task
) -> None:
    row, needed = lengths_of(segments, targets), needs(asked)
    for item in complete_items(row, needed):
        for role in needed.texts:
            chosen = texts(row, role, item)
            assert chosen
            assert {row.text_items[i] for i in chosen} in ({item}, {None})
        for role in needed.pictures:
            chosen = pictures(row, role, item)
            assert chosen
            assert {row.target_items[i] for i in chosen} in ({item}, {None})


def test_a_task_without_roles_needs_no_item() -> None:
    assert needs(task("image", [])) == Needs()
    assert complete_items(lengths_of([]), Needs()) == [None]
