"""Whatever stands in an annotation file, reading it ends in verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters.fixtures_picture import FORMATS
from adapters.round_trip import read, token_row, tokenizers

from omnimill.errors import BadRecord
from omnimill.rng import generator

VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    float("nan"),
    "",
    "x",
    "../../x",
    "/etc/passwd",
    "\ud800",
    "a" * 300,
]
VALUES += [[], {}, [None], {"a": 1}, [[]], ["a"], -0.5, 2**40]
BYTES = [b"", b",", b"\n", b'"', b"\xff", b"-", b"\0", b" "]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a JSON document."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield from places(below, (*path, key))


def damaged_json(data: bytes, random: np.random.Generator) -> bytes:
    """A document, or lines of them, with one value replaced."""
    try:
        documents = [json.loads(data)]
    except ValueError:
        documents = [json.loads(line) for line in data.splitlines()]
    which = int(random.integers(len(documents)))
    ways = list(places(documents[which]))
    way, value = ways[int(random.integers(len(ways)))], VALUES[int(random.integers(len(VALUES)))]
    if not way:
        documents[which] = value
    else:
        holder = documents[which]
        for key in way[:-1]:
            holder = holder[key]
        holder[way[-1]] = value
    return "\n".join(json.dumps(document) for document in documents).encode()


def damaged_text(data: bytes, random: np.random.Generator) -> bytes:
    place, cut = int(random.integers(len(data))), int(random.integers(4))
    return data[:place] + BYTES[int(random.integers(len(BYTES)))] + data[place + cut :]


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"class_masks"}))
def test_any_value_anywhere_costs_records_and_breaks_nothing(name: str, tmp_path: Path) -> None:
    source = FORMATS[name](tmp_path)
    files = sorted(path for path in tmp_path.rglob("*") if path.suffix in (".json", ".jsonl", ".csv", ".txt"))
    random = generator("damage", name)
    for _ in range(8):
        file = files[int(random.integers(len(files)))]
        whole = file.read_bytes()
        damage = damaged_json if file.suffix.startswith(".json") else damaged_text
        file.write_bytes(damage(whole, random))
        try:
            examples, verdicts = read(source)
        except BadRecord:  # the whole unit is quarantined
            examples, verdicts = [], {}
        assert len(examples) == list(verdicts.values()).count("kept")
        for example in examples:
            token_row(example, tokenizers())
        file.write_bytes(whole)
