"""Conversations and instructions in their published layouts come out as questions and answers, and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from adapters.fixtures_text import FORMATS, oasst_messages
from adapters.made_pictures import put_json, put_lines, put_picture, put_table
from adapters.round_trip import Shown, read, renders, tokenizers
from hypothesis import given
from hypothesis import strategies as st

from omnimill.errors import BadRecord
from omnimill.pipelines.adapters.dialogue import Turn, exchanges
from omnimill.pipelines.dag import Dag
from omnimill.schema import PICTURE_MARK, Example

Made = Callable[[str], tuple[list[Example], dict[str, str]]]
TEXTS = ["flan", "p3", "alpaca", "dolly", "mbpp", "natural_instructions", "open_assistant", "share_gpt"]
PICTURES = ["llava", "m3it", "mimic_it"]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return lambda name: read(FORMATS[name](tmp_path / name))


@pytest.fixture(autouse=True)
def _own_indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes of annotation files are made anew."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))


def pairs(example: Example) -> list[tuple[str, list[str]]]:
    """The questions of an example and the answers of each."""
    items = sorted({text.item for text in example.text if text.item is not None})
    return [
        (
            next(text.text for text in example.text if (text.role, text.item) == ("question", item)),
            [text.text for text in example.text if (text.role, text.item) == ("answer", item)],
        )
        for item in items
    ]


def plain(text: str) -> str:
    """A text as a tokenizer gives it back: blanks alike, no marks."""
    return " ".join(text.replace(PICTURE_MARK, " ").split())


@pytest.mark.parametrize("name", [*TEXTS, *PICTURES])
def test_what_is_asked_and_answered_comes_back(made: Made, name: str) -> None:
    family = "image-instruction-following" if name in PICTURES else "text-instruction-following"
    examples, _ = made(name)
    assert examples
    for example in examples:
        if name in PICTURES and not example.images:
            continue
        seen = set()
        for shown in renders(example, family, 4):
            fits = [
                (question, answer)
                for question, answers in pairs(example)
                for answer in answers
                if plain(shown.text) == plain(answer) and plain(question) in plain(shown.prompt)
            ]
            assert fits, (shown.prompt, shown.text)
            seen.update(fits)
        assert seen


@pytest.mark.parametrize(
    ("name", "wanted", "others"),
    [
        ("flan", [("Is the sky green? yes or no", ["no"])], ["field_value", "no_answer", "excluded"]),
        ("p3", [("Which is larger, 3 or 4?", ["4"])], []),
        ("alpaca", [("Give two primes.", ["2 and 3"]), ("Add the numbers.\n\n4, 5", ["9"])], []),
        ("dolly", [("Faust is by Goethe.\n\nWho wrote it?", ["Goethe"])], []),
        (
            "mbpp",
            [
                (
                    "Write a function that doubles a number.\n\nThe code has to pass these tests:\n"
                    "assert double(2) == 4\nassert double(0) == 0",
                    ["def double(n):\n    return 2 * n"],
                )
            ],
            ["field_value"],
        ),
        (
            "natural_instructions",
            [
                (
                    "Say whether the two words are the same.\n\ncat, cat\nyes\n\ndog, cat",
                    ["no", "they are not"],
                ),
                ("Say whether the two words are the same.\n\ncat, cat\nyes\n\nsun, sun", ["yes"]),
            ],
            ["language", "language", "other_split", "other_split"],
        ),
    ],
)
def test_rows_become_questions(made: Made, name: str, wanted: list[tuple[str, list[str]]], others: list[str]) -> None:
    examples, verdicts = made(name)
    assert [pair for example in examples for pair in pairs(example)] == wanted
    assert [verdict for verdict in verdicts.values() if verdict != "kept"] == others


@pytest.mark.parametrize("name", ["obelics", "html_pages", "warc"])
def test_documents_can_be_put_together_again(made: Made, name: str) -> None:
    (example,), verdicts = made(name)
    assert list(verdicts.values()) == ["kept"]
    body = " ".join(plain(text.text) for text in example.text if text.role == "body")
    for shown in renders(example, "language-modeling", 8):
        window = plain(restored(shown))  # of a text that is too long
        assert window in body
        assert len(window) > 300
    if name == "obelics":
        seen = next(renders(example, "language-modeling", 1, inputs=["image"], optional=["image_history"]))
        assert seen.rendered.lengths.image > 0


def restored(shown: Shown) -> str:
    """The text of which a denoising task shows a part and asks for the rest."""
    vocabulary = tokenizers().text.vocabulary
    sentinels = {int(one) for one in vocabulary.sentinels}
    given = [token for token in shown.rendered.text.tolist()[1:] if token != vocabulary.EOS]
    hidden: dict[int, list[int]] = {}
    last = -1
    for token in shown.ids:
        last = token if token in sentinels else last
        hidden.setdefault(last, []).extend([] if token in sentinels else [token])
    whole = [one for token in given for one in hidden.get(token, [token])]
    return tokenizers().text.decode([*whole, *hidden.get(-1, [])])


def test_long_rows_and_rows_of_other_shapes(tmp_path: Path) -> None:
    settings = {**FORMATS["dolly"](tmp_path / "set"), "max_characters": 30}
    path = tmp_path / "set/databricks-dolly-15k.jsonl"
    rows = [
        {"instruction": "x" * 31, "context": "", "response": "y"},
        {"instruction": "x", "context": None, "response": "y"},
        {"instruction": {"deep": 1}, "context": "", "response": "y"},
        {"prompt": "x"},
    ]
    path.write_text("\n".join([*map(json.dumps, rows), "{", json.dumps([1]), json.dumps({"instruction": "\ud800"})]))
    examples, verdicts = read(settings)
    assert [pair for example in examples for pair in pairs(example)] == [("x", ["y"])]
    wrong = ["too_long", "kept", "wrong_type", "missing_field", "invalid_json", "wrong_type", "invalid_utf8"]
    assert list(verdicts.values()) == wrong


def test_a_conversation_becomes_a_question_for_each_answer(made: Made) -> None:
    (seen, both, words), verdicts = made("llava")
    assert set(verdicts.values()) == {"kept"}
    assert pairs(seen) == [
        ("What is in the picture?", ["A bright box."]),
        ("User: What is in the picture?\nAssistant: A bright box.\nUser: Where is it?", ["On the left."]),
    ]
    assert [len(example.images) for example in (seen, both, words)] == [1, 2, 0]
    assert pairs(both) == [(f"{PICTURE_MARK}{PICTURE_MARK}What has changed?", ["The box has moved."])]
    assert pairs(words) == [("Count to two.", ["1, 2"])]


def test_pictures_in_the_midst_of_a_conversation_are_seen_from_there_on(tmp_path: Path) -> None:
    settings = FORMATS["llava"](tmp_path / "set")
    said = [
        {"from": "human", "value": "<image>\nA"},
        {"from": "gpt", "value": "a"},
        {"from": "human", "value": "<image>\nB"},
        {"from": "gpt", "value": "b"},
    ]
    images = ["000000033471.jpg", "000000033472.jpg"]
    rows = [
        {"id": "1", "image": images, "conversations": said},
        {"id": "2", "image": images[0], "conversations": said},
        {"id": "3", "image": "../out.jpg", "conversations": said[:2]},
        {"id": "4", "image": "none.jpg", "conversations": said[:2]},
        {"id": "5", "conversations": [{"from": "somebody", "value": "A"}]},
        {"id": "6", "conversations": [{"from": "human", "value": "A"}]},
        {"id": "7"},
        "a text",
    ]
    put_json(tmp_path / "set/llava_instruct_150k.json", rows)
    examples, verdicts = read(settings)
    assert [(len(example.images), pairs(example)) for example in examples] == [
        (1, [(f"{PICTURE_MARK}A", ["a"])]),
        (2, [(f"User: {PICTURE_MARK}A\nAssistant: a\nUser: {PICTURE_MARK}B", ["b"])]),
    ]
    assert list(verdicts.values()) == [
        "kept",
        "picture_count",
        "path_outside",
        "missing_file",
        "speaker_unknown",
        "no_answer",
        "missing_field",
        "wrong_type",
    ]


def test_units_of_a_document_share_its_rows(tmp_path: Path) -> None:
    settings = {**FORMATS["alpaca"](tmp_path / "set"), "bytes_per_unit": 50}
    rows = [{"instruction": f"Say {number}.", "input": "", "output": f"{number}"} for number in range(20)]
    put_json(tmp_path / "set/alpaca_data_cleaned.json", rows)
    examples, _ = read(settings)
    assert [pairs(example)[0][1] for example in examples] == [[f"{number}"] for number in range(20)]
    assert len({example.unit for example in examples}) > 5


@pytest.mark.parametrize("form", ["json", "jsonl", "jsonl.gz", "csv", "parquet"])
def test_the_first_rows_are_held_out_in_every_form(tmp_path: Path, form: str) -> None:
    rows = [{"instruction": f"Say {number}.", "input": "", "output": f"{number}"} for number in range(7)]
    path = tmp_path / f"rows.{form}"
    if form == "json":
        put_json(path, rows)
    elif form == "csv":
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
        path.write_text("".join(f"{line}\n" for line in lines))
    elif form == "parquet":
        put_table(path, rows, row_group_size=3)
    else:
        put_lines(path, rows)
    settings = {**FORMATS["alpaca"](tmp_path / "set"), "path": str(path), "bytes_per_unit": 100, "rows_per_unit": 2}
    examples, verdicts = read({**settings, "held_out": 4})
    assert [pairs(example)[0][1] for example in examples] == [["4"], ["5"], ["6"]]
    assert list(verdicts.values()) == ["held_out"] * 4 + ["kept"] * 3


def test_the_best_ranked_path_is_the_conversation(made: Made) -> None:
    examples, verdicts = made("open_assistant")
    trees, others = made("open_assistant_trees")
    assert verdicts == others == {"de1": "language", "t1": "kept"}
    for example in (*examples, *trees):
        assert pairs(example) == [
            ("Name a planet.", ["Mars."]),
            ("User: Name a planet.\nAssistant: Mars.\nUser: A bigger one?", ["Jupiter."]),
        ]


def test_messages_that_were_deleted_are_not_followed(tmp_path: Path) -> None:
    settings = FORMATS["open_assistant"](tmp_path / "set")
    messages = oasst_messages()
    messages[2]["deleted"] = True
    orphan = {**messages[0], "message_tree_id": "t2", "parent_id": "nowhere"}
    put_lines(tmp_path / "set/2023-04-12_oasst_ready.messages.jsonl.gz", [*messages, orphan, {"text": "?"}])
    examples, verdicts = read(settings)
    assert [pairs(example) for example in examples] == [[("Name a planet.", ["The Moon."])]]
    assert sorted(verdicts.values()) == ["kept", "language", "missing_field", "tree_malformed"]


def test_frames_of_a_film_are_evenly_spaced_and_end_with_the_last(made: Made) -> None:
    (picture, film), verdicts = made("m3it")
    assert set(verdicts.values()) == {"kept"}
    assert [len(picture.images), len(film.images)] == [1, 5]
    assert len({image.digest for image in film.images}) == 5
    assert pairs(film) == [("Answer the question about the film.\n\nWhere does it go?", ["To the right."])]


def test_related_instructions_are_earlier_turns(tmp_path: Path) -> None:
    settings = FORMATS["mimic_it"](tmp_path / "set")
    path = tmp_path / "set/SD/SD_instructions.json"
    said = json.loads(path.read_text())
    said["data"]["SD_INS_00002"] = {**said["data"]["SD_INS_00000"], "image_ids": ["SD_IMG_a", "SD_IMG_gone"]}
    said["data"]["SD_INS_00003"] = {**said["data"]["SD_INS_00000"], "image_ids": ["SD_IMG_a"]}
    said["data"]["SD_INS_00004"] = "nothing"
    path.write_text(json.dumps(said))
    examples, verdicts = read(settings)
    assert list(verdicts.values()) == ["kept", "kept", "missing_file", "kept", "wrong_type"]
    assert pairs(examples[0]) == [("User: What stayed?\nAssistant: The room.\nUser: What changed?", ["The box moved."])]
    # What is said of other pictures is no earlier turn.
    assert pairs(examples[2]) == [("What changed?", ["The box moved."])]
    assert [len(example.images) for example in examples] == [2, 2, 1]


def test_pictures_may_be_a_table(tmp_path: Path) -> None:
    settings = {**FORMATS["mimic_it"](tmp_path / "set"), "pictures": "{name}.parquet"}
    pictures = json.loads((tmp_path / "set/SD/SD.json").read_text())
    rows = [{"base64": data, "__index_level_0__": name} for name, data in pictures.items()]
    put_table(tmp_path / "set/SD/SD.parquet", rows)
    examples, verdicts = read(settings)
    assert set(verdicts.values()) == {"kept"}
    assert [len(example.images) for example in examples] == [2, 2]
    put_table(tmp_path / "set/SD/SD.parquet", [{"pixels": "x", "name": "y"}])
    with pytest.raises(BadRecord, match="pixels"):
        read(settings)


def test_base64_that_is_none_is_quarantined(tmp_path: Path) -> None:
    settings = FORMATS["m3it"](tmp_path / "set")
    row = {"instruction": "A", "inputs": "", "image_base64_str": ["?!"], "outputs": "B"}
    put_lines(
        tmp_path / "set/data/captioning/coco/train.jsonl",
        [row, {**row, "image_base64_str": []}, {**row, "outputs": ""}],
    )
    _, verdicts = read(settings)
    assert list(verdicts.values()) == ["invalid_base64", "no_picture", "no_answer"]


def test_a_picture_that_changes_is_an_input_that_changes(tmp_path: Path) -> None:
    settings = FORMATS["llava"](tmp_path / "set")
    source = Dag.model_validate({"dataset": "made", "sources": [settings]}).sources[0].source
    (unit,) = source.units()
    before, ids = source.inputs(unit), [example.id for record in source.read(unit) for example in record.decode()]
    put_picture(tmp_path / "set/train2017/000000033471.jpg", 7)
    after = source.inputs(unit)
    assert [old.uri for old, new in zip(before, after, strict=True) if old != new] == [
        str(tmp_path / "set/train2017/000000033471.jpg")
    ]
    again = [example.id for record in source.read(unit) for example in record.decode()]
    assert [old == new for old, new in zip(ids, again, strict=True)] == [False, False, True]


@given(
    st.lists(
        st.tuples(st.sampled_from(["person", "assistant", "system"]), st.text("ab\ufffc", max_size=6)), max_size=12
    ),
    st.integers(0, 30),
)
def test_no_mark_of_a_picture_is_lost_from_a_question(turns: list[tuple[str, str]], earlier: int) -> None:
    said = [Turn(speaker, text) for speaker, text in turns]  # type: ignore[arg-type]
    for pair in exchanges(said, earlier):
        assert pair.question.count(PICTURE_MARK) == pair.pictures
        assert pair.answer
