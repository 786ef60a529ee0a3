"""Small copies of published conversations, instructions and documents, in their files, names and units.

``FORMATS`` gives for every format a function that writes it below a folder and returns the source that reads it.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from adapters.made_pictures import encoded, put, put_json, put_lines, put_picture, put_table, scene
from layouts.pages import DOCUMENTS, document, jpeg, write_fetched
from layouts.text import prose

Source = dict[str, Any]


def llava(folder: Path) -> Source:
    rows = [
        {
            "id": "000000033471",
            "image": "000000033471.jpg",
            "conversations": [
                {"from": "human", "value": "What is in the picture?\n<image>"},
                {"from": "gpt", "value": "A bright box."},
                {"from": "human", "value": "Where is it?"},
                {"from": "gpt", "value": "On the left."},
            ],
        },
        {
            "id": "two",
            "image": ["000000033471.jpg", "000000033472.jpg"],
            "conversations": [
                {"from": "human", "value": "<image>\n<image>\nWhat has changed?"},
                {"from": "gpt", "value": "The box has moved."},
            ],
        },
        {
            "id": "wgByO4Y_0",
            "model": "",
            "conversations": [{"from": "human", "value": "Count to two."}, {"from": "gpt", "value": "1, 2"}],
        },
    ]
    put_json(folder / "llava_instruct_150k.json", rows)
    for number in (0, 1):
        put_picture(folder / f"train2017/00000003347{number + 1}.jpg", number)
    return {"type": "conversations", "name": "llava", "path": str(folder), "pictures": str(folder / "train2017")}


def share_gpt(folder: Path) -> Source:
    turns = [
        {"from": "gpt", "value": "Hello, how can I help?"},
        {"from": "human", "value": "Name a colour."},
        {"from": "gpt", "value": "Red."},
        {"from": "human", "value": "Another."},
        {"from": "gpt", "value": "Blue."},
    ]
    put_json(folder / "sg_90k_part1.json", [{"id": "QWJhYvA_0", "conversations": turns}])
    return {"type": "conversations", "name": "share-gpt", "path": str(folder), "image_field": None}


def m3it(folder: Path) -> Source:
    pictures = [base64.b64encode(encoded(scene(n), "JPEG")).decode() for n in range(7)]
    rows = [
        {"instruction": "Describe the picture.", "inputs": "", "image_base64_str": pictures[:1], "outputs": "A box."},
        {
            "instruction": "Answer the question about the film.",
            "inputs": "Where does it go?",
            "image_base64_str": pictures,
            "outputs": "To the right.",
        },
    ]
    put_lines(folder / "data/captioning/coco/train.jsonl", rows)
    return {"type": "picture_instructions", "name": "m3it", "path": str(folder)}


def mimic_it(folder: Path) -> Source:
    said = {
        f"SD_INS_0000{n}": {
            "instruction": ["What changed?", "What stayed?"][n],
            "answer": ["The box moved.", "The room."][n],
            "image_ids": ["SD_IMG_a", "SD_IMG_b"],
            "rel_ins_ids": [f"SD_INS_0000{1 - n}"],
        }
        for n in (0, 1)
    }
    put_json(folder / "SD/SD_instructions.json", {"meta": {"version": "0.0.1", "time": "2023-06"}, "data": said})
    pictures = {f"SD_IMG_{n}": base64.b64encode(encoded(scene(i), "JPEG")).decode() for i, n in enumerate("ab")}
    put_json(folder / "SD/SD.json", pictures)
    return {"type": "mimic_it", "name": "mimic-it-sd", "path": str(folder)}


def _message(name: str, parent: str | None, role: str, text: str, rank: int | None = None, **more: Any) -> Any:
    return {
        "message_id": name,
        "parent_id": parent,
        "text": text,
        "role": role,
        "lang": "en",
        "review_result": True,
        "deleted": False,
        "rank": rank,
        "message_tree_id": "t1",
        "tree_state": "ready_for_export",
        **more,
    }


def oasst_messages() -> list[dict[str, Any]]:
    return [
        _message("t1", None, "prompter", "Name a planet."),
        _message("a2", "t1", "assistant", "The Moon.", 1),
        _message("a1", "t1", "assistant", "Mars.", 0),
        _message("p1", "a1", "prompter", "A bigger one?"),
        _message("a3", "p1", "assistant", "Jupiter.", None),
        _message("de1", None, "prompter", "Nenne eine Stadt.", lang="de", message_tree_id="de1"),
        _message("de2", "de1", "assistant", "Ulm.", 0, lang="de", message_tree_id="de1"),
    ]


def open_assistant(folder: Path) -> Source:
    put_lines(folder / "2023-04-12_oasst_ready.messages.jsonl.gz", oasst_messages())
    return {"type": "open_assistant", "name": "oasst", "path": str(folder), "include": ["*.messages.jsonl.gz"]}


def open_assistant_trees(folder: Path) -> Source:
    messages = {message["message_id"]: {**message, "replies": []} for message in oasst_messages()}
    for message in messages.values():
        if message["parent_id"] is not None:
            messages[message["parent_id"]]["replies"].append(message)
    trees = [
        {"message_tree_id": name, "tree_state": "ready_for_export", "prompt": messages[name]} for name in ("t1", "de1")
    ]
    put_lines(folder / "2023-04-12_oasst_ready.trees.jsonl.gz", trees)
    return {"type": "open_assistant", "name": "oasst-trees", "path": str(folder)}


def flan(folder: Path) -> Source:
    def row(inputs: str, targets: str, name: str, source: str = "Flan2021") -> dict[str, Any]:
        facts = {"task_source": source, "task_name": name, "template_type": "zs_opt"}
        return {"inputs": inputs, "targets": targets, **facts}

    rows = [
        row("Is the sky green? yes or no", "no", "bool_q:1.0.0"),
        row("Translate to German: house", "Haus", "wmt16_translate/de-en:1.0.0"),
        row("Nothing follows.", "", "bool_q:1.0.0"),
        row("Verneine: ja", "nein", "task1000_german", "NIv2"),
    ]
    put_table(folder / "data/train-00000-of-00001.parquet", rows)
    put(folder / "niv2_non_english.txt", b"task1000_german\ntask1001_french\n")
    excluded = "niv2_non_english.txt"
    return {"type": "text_instructions", "name": "flan", "path": str(folder), "excluded": excluded}


def p3(folder: Path) -> Source:
    row = {
        "inputs": [3, 4, 1],
        "inputs_pretokenized": "Which is larger, 3 or 4?",
        "targets": [5, 1],
        "targets_pretokenized": "4",
    }
    put_table(folder / "super_glue_copa/train-00000.parquet", [row])
    return {
        "type": "text_instructions",
        "name": "t0-sf",
        "path": str(folder),
        "question": ["{inputs_pretokenized}"],
        "answer": "{targets_pretokenized}",
        "tag_fields": {},
        "where_not": {},
    }


def alpaca(folder: Path) -> Source:
    rows = [
        {"instruction": "Give two primes.", "input": "", "output": "2 and 3"},
        {"instruction": "Add the numbers.", "input": "4, 5", "output": "9"},
    ]
    put_json(folder / "alpaca_data_cleaned.json", rows)
    return {
        "type": "text_instructions",
        "name": "alpaca",
        "path": str(folder),
        "question": ["{instruction}", "{input}"],
        "answer": "{output}",
        "tag_fields": {},
        "where_not": {},
    }


def dolly(folder: Path) -> Source:
    rows = [
        {
            "instruction": "Who wrote it?",
            "context": "Faust is by Goethe.",
            "response": "Goethe",
            "category": "closed_qa",
        }
    ]
    put_lines(folder / "databricks-dolly-15k.jsonl", rows)
    return {
        "type": "text_instructions",
        "name": "dolly",
        "path": str(folder),
        "question": ["{context}", "{instruction}"],
        "answer": "{response}",
        "tag_fields": {"category": "category"},
        "where_not": {},
    }


def mbpp(folder: Path) -> Source:
    rows = [
        {
            "task_id": number,
            "text": "Write a function that doubles a number.",
            "code": "def double(n):\r\n    return 2 * n",
            "test_list": ["assert double(2) == 4", "assert double(0) == 0"],
            "test_setup_code": "",
            "challenge_test_list": [],
        }
        for number in (11, 601)
    ]
    put_lines(folder / "mbpp.jsonl", rows)
    return {
        "type": "text_instructions",
        "name": "mbpp",
        "path": str(folder),
        "question": ["{text}", "The code has to pass these tests:\n{test_list}"],
        "answer": "{code}",
        "tag_fields": {"task": "task_id"},
        "where_not": {},
        "between": {"task_id": [601, 974]},
    }


def natural_instructions(folder: Path) -> Source:
    def task(language: str) -> dict[str, Any]:
        return {
            "Contributors": ["somebody"],
            "Source": ["synthetic"],
            "URL": ["https://example.org"],
            "Categories": ["Text Matching"],
            "Definition": ["Say whether the two words are the same."],
            "Input_language": [language],
            "Output_language": [language],
            "Instruction_language": ["English"],
            "Positive Examples": [{"input": "cat, cat", "output": "yes", "explanation": "They are the same."}],
            "Negative Examples": [],
            "Instances": [
                {"id": "task001-1", "input": "dog, cat", "output": ["no", "they are not"]},
                {"id": "task001-2", "input": "sun, sun", "output": ["yes"]},
            ],
            "Instance License": ["MIT"],
        }

    put_json(folder / "tasks/task001_same_words.json", task("English"))
    put_json(folder / "tasks/task002_same_words_french.json", task("French"))
    put_json(folder / "tasks/task003_same_words_test.json", task("English"))
    put(folder / "splits/default/train_tasks.txt", b"task001_same_words\ntask002_same_words_french\n")
    tasks = "splits/default/train_tasks.txt"
    return {"type": "natural_instructions", "name": "niv2", "path": str(folder), "tasks": tasks, "shown": 1}


SITE = "https://example.org"


def obelics(folder: Path) -> Source:
    pictures = {f"{SITE}/{name}.jpg": jpeg(name) for name in ("one", "two")}
    first, second = pictures
    places = (
        (None, prose("a", 2, 2)),
        (first, None),
        (None, prose("b", 2, 2)),
        (second, None),
        (None, prose("c", 2, 2)),
    )
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist([document(f"{SITE}/page", *places)], schema=DOCUMENTS)
    pq.write_table(table, folder / "train-00000-of-01335.parquet")
    write_fetched(folder / "pictures", "00000", pictures)
    return {
        "type": "interleaved_parquet",
        "name": "obelics",
        "path": str(folder),
        "include": ["*.parquet"],
        "fetched": "pictures",
    }


def article() -> bytes:
    paragraphs = "".join(f"<p>{prose(name, 4, 4)}</p>" for name in "abc")
    return f"<html lang=en><head><title>Mill</title></head><body><article>{paragraphs}</article></body></html>".encode()


def html_pages(folder: Path) -> Source:
    put(folder / "site/page.html", article())
    return {"type": "html_pages", "name": "html-pages", "path": str(folder)}


def warc(folder: Path) -> Source:
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + article()
    head = [
        "WARC/1.0",
        "WARC-Type: response",
        f"WARC-Target-URI: {SITE}/page",
        "WARC-Date: 2024-04-25T16:24:44Z",
        "WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000001>",
        "Content-Type: application/http; msgtype=response",
        f"Content-Length: {len(block)}",
    ]
    record = "\r\n".join(head).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"
    put(folder / "CC-MAIN-20240425.warc.gz", gzip.compress(record, mtime=0))
    return {"type": "warc", "name": "warc", "path": str(folder)}


FORMATS: dict[str, Callable[[Path], Source]] = {
    maker.__name__: maker
    for maker in (
        llava,
        share_gpt,
        m3it,
        mimic_it,
        open_assistant,
        open_assistant_trees,
        flan,
        p3,
        alpaca,
        dolly,
        mbpp,
        natural_instructions,
        obelics,
        html_pages,
        warc,
    )
}
