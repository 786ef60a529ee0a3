"""What single steps of ``omnimill dedup`` leave out: exact copies, capped groups, leaked evaluation data."""

from __future__ import annotations

import gzip
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_rows import make_row, photo, publish, stored, verdicts

from omnimill.errors import ConfigError
from omnimill.infra.dataset import Dataset
from omnimill.pipelines.dedup.config import Dedup
from omnimill.pipelines.dedup.prefer import Prefer, preference
from omnimill.pipelines.dedup.run import dedup
from omnimill.schema import Example

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]

TYPES = (pa.string(), pa.float64())
Left = Callable[..., dict[str, str]]


@pytest.fixture
def left(root: str) -> Left:
    """What one step leaves out of some rows: reasons by key."""

    def run(rows: list[Example], step: dict[str, Any], **settings: Any) -> dict[str, str]:
        publish(root, rows)
        dedup(Dedup.model_validate({"dataset": "made", "selection": "x", "steps": [step], **settings}), root)
        found = verdicts(Dataset(root, "made"), "x")
        return {row.key: found[row.id]["reason"] for row in rows if row.id in found}

    return run


def test_a_split_that_repeats_another_is_left_out_whole(left: Left) -> None:
    def episode(split: str, number: int, parts: int) -> list[Example]:
        where = {"record": f"episode {number}", "uri": f"{split}.tfrecord/{number}", "tags": {"split": split}}
        return [make_row("robot", f"{split}/{number}/{part}", **where) for part in range(parts)]

    rows = [row for number in range(5) for row in episode("train", number, 3)]
    rows += [row for number in (3, 1, 7) for row in episode("val", number, 3)]
    prefer = {"tag": {"name": "split", "values": ["train"]}}
    assert left(rows, {"step": "exact", "of": "record"}, prefer=prefer) == {
        f"val/{number}/{part}": "exact_record" for number in (1, 3) for part in range(3)
    }


def test_equal_pictures_are_copies_whatever_their_order_of_rows(left: Left) -> None:
    one, two = stored(photo(1)), stored(photo(2))
    rows = [
        make_row("b", "copy", "a caption", images=[one]),
        make_row("a", "first", images=[one]),
        make_row("a", "pair", images=[one, two]),
        make_row("b", "turned pair", images=[two, one]),
        make_row("b", "none"),
        make_row("a", "none either"),
    ]
    assert left(rows, {"step": "exact", "of": "images"}, prefer={"sources": ["a"]}) == {"copy": "exact_images"}


def test_of_near_pictures_the_largest_is_kept(left: Left) -> None:
    rgb = photo("largest")
    small, stretched = cv2.resize(rgb, (160, 120)), cv2.resize(rgb, (500, 200))
    rows = [make_row("s", name, images=[stored(one)]) for name, one in (("a", small), ("b", stretched), ("c", rgb))]
    assert left(rows, {"step": "image_near"}, prefer={"score": "pixels"}) == {"a": "image_near", "c": "image_near"}


def test_steps_keep_to_their_sources(left: Left) -> None:
    rows = [make_row(source, f"{source}{i}", "the same") for source in "abc" for i in range(2)]
    step = {"step": "exact", "of": "text", "sources": ["a", "c"]}
    assert sorted(left(rows, step, prefer={"sources": ["c", "b"]})) in (["a0", "a1", "c0"], ["a0", "a1", "c1"])
    with pytest.raises(ConfigError, match="names sources that 'made' does not have: d; it has a, b, c"):
        left(rows, {**step, "sources": ["d"]})


def test_caps_hold_for_each_domain_and_are_drawn_by_id(left: Left, root: str) -> None:
    urls = ["https://a.example.co.uk/1", "http://b.example.co.uk/2", "https://other.co.uk", "http://10.0.0.1/x", None]
    rows = [make_row("s", f"{url} {i}", url=url) for url in urls for i in range(4)]
    lost = left(rows, {"step": "cap", "by": "domain", "most": 3})
    assert set(lost.values()) == {"cap_domain"}
    assert Counter(key.split(" ")[0] for key in lost if "example" not in key) == {urls[2]: 1, urls[3]: 1}
    assert sum("example" in key for key in lost) == 5
    assert left(list(reversed(rows)), {"step": "cap", "by": "domain", "most": 3}) == lost
    assert left(rows, {"step": "cap", "by": "domain", "most": 3, "seed": 1}) != lost
    assert left(rows, {"step": "cap", "by": "domain", "most": 9, "without": "drop"}) == {
        f"None {i}": "cap_without" for i in range(4)
    }


def test_caps_by_tag(left: Left) -> None:
    rows = [
        make_row("s", f"{tag} {i}", tags={"camera": tag} if tag else {}) for tag in ("x", "y", "") for i in range(5)
    ]
    lost = left(rows, {"step": "cap", "by": "tag", "tag": "camera", "most": 2})
    assert Counter(key.split(" ")[0] for key in lost) == {"x": 3, "y": 3}


def test_concepts_keep_what_any_of_them_has_room_for(left: Left, tmp_path: Path) -> None:
    (tmp_path / "concepts.txt").write_text("dog\nGuide dog\naxolotl\n\nsnow leopard\n")
    rows = [make_row("s", f"dog {i}", f"A dog, number {i}.") for i in range(10)]
    rows += [
        make_row("s", "rare", "An Axolotl and a dog"),
        make_row("s", "phrase", "the snow\nleopard"),
        make_row("s", "no"),
    ]
    step = {"step": "cap", "by": "concept", "concepts": str(tmp_path / "concepts.txt"), "most": 4}
    lost = left(rows, step)
    assert set(lost.values()) == {"cap_concept"} and not {"rare", "phrase", "no"} & set(lost)
    # Eleven rows have a dog in them; the one with the axolotl stays whether it is drawn for "dog" or not.
    assert len(lost) in (6, 7)
    assert left(rows, {**step, "without": "drop"})["no"] == "cap_without"
    with pytest.raises(ConfigError, match="no/such"):
        left(rows, {**step, "concepts": "no/such"})


QUESTION = "Which of these animals lays eggs and yet feeds its young with milk from glands in its skin?"
CAPTION = "two brown horses drinking from a stream in autumn light"


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """Questions as compressed JSON lines, captioned pictures as Parquet, pictures in a folder."""
    folder = tmp_path / "evaluation"
    (folder / "pictures").mkdir(parents=True)
    line = {"id": 7, "question": QUESTION, "choices": [{"text": "the platypus"}, {"text": "no"}]}
    (folder / "questions.jsonl.gz").write_bytes(gzip.compress(json.dumps(line).encode()))
    pictures = {"bytes": [{"bytes": stored(photo("asked")).data, "path": "1.jpg"}], "caption": [CAPTION]}
    pq.write_table(pa.table(pictures), folder / "pairs.parquet")
    (folder / "pictures" / "a.jpg").write_bytes(stored(photo("other")).data)
    return folder


def test_leaked_evaluation_data_are_found_by_text_and_by_picture(left: Left, evaluation: Path, root: str) -> None:
    small = cv2.resize(photo("asked"), (160, 120), interpolation=cv2.INTER_AREA)
    rows = [
        make_row("s", "quoted", f"I was asked: {QUESTION.upper()} I did not know."),
        make_row("s", "answer", "the platypus"),
        make_row("s", "half", " ".join(QUESTION.split()[:12])),
        make_row("s", "caption", "a picture", f"{CAPTION}.", images=[stored(photo("new"))]),
        make_row("s", "longer caption", f"{CAPTION} and wind"),
        make_row("s", "copy", images=[stored(photo("fine")), stored(photo("other"))]),
        make_row("s", "resized", images=[stored(small, 70)]),
        make_row("s", "fine", "nothing of it", images=[stored(photo("fine"))]),
    ]
    expected = {
        "quoted": "text_contaminated",
        "caption": "text_contaminated",
        "copy": "image_contaminated",
        "resized": "image_contaminated",
    }
    step = {"step": "decontaminate", "against": [{"path": str(evaluation)}]}
    assert left(rows, step) == expected
    # The same content at another place is known already; a dataset of the root serves as well.
    publish(
        root, [make_row("e", "1", QUESTION), make_row("e", "2", CAPTION, images=[stored(photo("asked"))])], name="asked"
    )
    expected.pop("copy")
    assert left(rows, {"step": "decontaminate", "against": [{"dataset": "asked"}]}) == expected
    with pytest.raises(ConfigError, match="none: no such file or folder"):
        left(rows, {"step": "decontaminate", "against": [{"path": str(evaluation / "none")}]})


@given(st.lists(st.tuples(st.sampled_from(["x", "y", None]), st.one_of(st.none(), st.floats(width=32))), min_size=2))
def test_preference_is_by_source_then_tag_then_score(values: list[tuple[str | None, float | None]]) -> None:
    prefer = Prefer.model_validate({"sources": ["a", "b"], "tag": {"name": "t", "values": ["y"]}, "score": "s"})
    tags, scores = (pa.array(column, kind) for column, kind in zip(zip(*values, strict=True), TYPES, strict=True))
    found = {source: preference(prefer, source, len(values), tags, scores).tolist() for source in "abc"}
    assert max(found["a"]) < min(found["b"]) and max(found["b"]) < min(found["c"])

    def place(value: tuple[str | None, float | None]) -> tuple[bool, bool, float]:
        tag, score = value
        missing = score is None or math.isnan(score)
        return tag != "y", missing, 0.0 if missing else -float(score or 0.0)

    order = sorted(range(len(values)), key=lambda i: place(values[i]))
    assert all(found["a"][i] <= found["a"][j] for i, j in itertools.pairwise(order))
    assert all((found["a"][i] == found["a"][j]) == (place(values[i]) == place(values[j])) for i in order for j in order)
