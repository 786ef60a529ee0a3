"""The layouts of the text sources: C4 and mC4, The Stack, RedPajama and Wikipedia, as published."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from layouts import Expected, Layout
from omnimill import rng

_NOUNS = (
    "miller teacher gardener sailor painter doctor baker student farmer pilot writer weaver nurse judge boat garden "
    "bridge window letter lantern kettle barrel ladder blanket basket mirror violin clock harbour village forest "
    "market river station castle meadow island library valley kitchen orchard winter supper journey promise question"
)
_VERBS = (
    "carried mended painted watched bought described counted found lifted measured sold visited drew followed heard "
    "left remembered opened reached repaired saved washed wrapped answered borrowed crossed"
)
_LINKS = "near with for behind without before after beside above under around against"
_ADJECTIVES = "old quiet narrow heavy bright small wooden broken early foreign gentle hollow patient rough silver warm"


def prose(name: str, sentences: int, per_line: int = 3) -> str:
    """English sentences that no rule about prose objects to; the same for the same name."""
    draw = rng.generator("layouts", name)

    def word(words: str) -> str:
        return str(draw.choice(words.split()))

    def things() -> str:
        return f"{word(_ADJECTIVES)} {word(_NOUNS)}"

    made = [
        f"The {things()} {word(_VERBS)} {draw.integers(2, 9_000)} {things()}s {word(_LINKS)} a {things()} that the "
        f"{word(_NOUNS)} {word(_VERBS)}."
        for _ in range(sentences)
    ]
    return "\n".join(" ".join(made[i : i + per_line]) for i in range(0, sentences, per_line))


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any] | str]) -> None:
    """JSON lines, compressed as the file's name says; a text is written as it is."""
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    data = "".join(f"{line}\n" for line in lines).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    elif path.suffix == ".zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema, rows_per_group: int = 1000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path, row_group_size=rows_per_group)


def _page(name: str, text: str) -> dict[str, str]:
    return {"text": text, "timestamp": "2019-04-25T12:57:54Z", "url": f"https://{name}.example.org/page.html"}


def c4(data: Path) -> Expected:
    folder = data / "c4" / "en"
    menu = "\n".join(["Home", "About us", "Contact", "Sitemap"])
    write_json_lines(
        folder / "c4-train.00000-of-01024.json.gz",
        [_page("harbour", prose("harbour", 12)), _page("menu", menu), '{"text": "cut off in the mid'],
    )
    write_json_lines(folder / "c4-train.00001-of-01024.json.gz", [_page("mill", prose("mill", 9))])
    write_json_lines(folder / "c4-validation.00000-of-00008.json.gz", [_page("held-out", prose("held-out", 9))])
    return Expected(records=4, examples=2, quarantined={"invalid_json": 1}, examples_dropped={"few_sentences": 1})


def mc4(data: Path) -> Expected:
    folder = data / "mc4" / "multilingual"
    german = (
        "Der alte Müller ging jeden Morgen langsam zum Fluss hinunter. Er wollte sehen, ob das Wasser über Nacht "
        "gestiegen war. Seine Nachbarn warteten dort schon auf ihn und sprachen über das Wetter.\n"
    ) * 2
    write_json_lines(
        folder / "c4-en.tfrecord-00000-of-11264.json.gz",
        [_page("orchard", prose("orchard", 12)), _page("mislabelled", german)],
    )
    write_json_lines(folder / "c4-de.tfrecord-00000-of-02048.json.gz", [_page("deutsch", german)])
    write_json_lines(folder / "c4-en-validation.tfrecord-00000-of-00128.json.gz", [_page("held-out", prose("x", 9))])
    return Expected(records=2, examples=1, examples_dropped={"language_unwanted": 1})


def redpajama_cc(data: Path) -> Expected:
    def row(name: str, text: str, line: int) -> dict[str, Any]:
        meta = {"pred_label": "__label__wiki", "pred_label_prob": 0.81, "wiki_prob": 0.81}
        return {"text": text, "meta": {**meta, "source": f"cc/2019-30/{name}.json.gz/line{line}"}}

    folder = data / "redpajama_cc" / "common_crawl"
    head, middle = (row(name, prose(name, 12), i) for i, name in enumerate(("en_head_0000", "en_middle_0000")))
    short = row("en_head_0000", "Too short to be read.", 7)
    # A copy that went through `datasets` has its meta as a text.
    middle["meta"] = json.dumps(middle["meta"])
    write_json_lines(folder / "2019-30" / "en_head_0000.json.gz.dedup.classifier.jsonl.zst", [head, short])
    write_json_lines(folder / "2023-06" / "en_middle_0000.json.gz.dedup.classifier.jsonl.zst", [middle])
    return Expected(records=3, examples=2, examples_dropped={"few_words": 1})


def redpajama_book(data: Path) -> Expected:
    chapters = [f"Chapter {i}.\n\n" + "\n\n".join(prose(f"{i}-{j}", 5, 5) for j in range(9)) for i in range(5)]
    paragraphs = "\n\n".join(chapters)
    assert 2 * 8192 < len(paragraphs) < 3 * 8192
    gutenberg = {"short_book_title": "The Miller", "publication_date": 1911, "url": "http://www.gutenberg.org/ebooks/1"}
    write_json_lines(
        data / "redpajama_book" / "book" / "book.jsonl",
        [
            {"meta": {"title": "The Harbour"}, "text": paragraphs},
            {"meta": gutenberg, "text": prose("the miller", 30)},
        ],
    )
    return Expected(records=2, examples=4)


def wikipedia(data: Path) -> Expected:
    schema = pa.schema([(name, pa.string()) for name in ("id", "url", "title", "text")])

    def row(number: int, title: str, text: str) -> dict[str, str]:
        return {"id": str(number), "url": f"https://en.wikipedia.org/wiki/{title}", "title": title, "text": text}

    rows = [row(12, "Mill", prose("Mill", 9)), row(39, "Stub", "A stub is short."), row(290, "Lock", prose("Lock", 9))]
    folder = data / "wikipedia"
    write_parquet(folder / "20231101.en" / "train-00000-of-00041.parquet", rows, schema, rows_per_group=2)
    write_parquet(folder / "20231101.de" / "train-00000-of-00020.parquet", rows[:1], schema)
    return Expected(records=3, examples=2, examples_dropped={"text_too_short": 1})


def _stack_schema() -> pa.Schema:
    """The columns of The Stack v1.2 (deduplicated): three sets of facts about repositories that hold the file."""
    fields: list[tuple[str, pa.DataType]] = [
        ("hexsha", pa.string()),
        ("size", pa.int64()),
        ("ext", pa.string()),
        ("lang", pa.string()),
    ]
    for kind, event in (("stars", "stars"), ("issues", "issues"), ("forks", "forks")):
        prefix = f"max_{kind}"
        fields += [(f"{prefix}_repo_{name}", pa.string()) for name in ("path", "name", "head_hexsha")]
        fields += [(f"{prefix}_repo_licenses", pa.list_(pa.string())), (f"{prefix}_count", pa.int64())]
        fields += [(f"{prefix}_repo_{event}_event_{end}_datetime", pa.string()) for end in ("min", "max")]
    fields += [("content", pa.string()), ("avg_line_length", pa.float64()), ("max_line_length", pa.int64())]
    return pa.schema([*fields, ("alphanum_fraction", pa.float64())])


def _stack_row(path: str, lang: str, content: str, licences: Sequence[str], stars: int | None) -> dict[str, Any]:
    lengths = [len(line) for line in content.split("\n")]
    return {
        "hexsha": rng.generator("layouts", path).bytes(20).hex(),
        "size": len(content),
        "ext": path.rsplit(".", 1)[-1],
        "lang": lang,
        "max_stars_repo_path": path,
        "max_stars_repo_name": "someone/tools",
        "max_stars_repo_head_hexsha": "0" * 40,
        "max_stars_repo_licenses": list(licences),
        "max_stars_count": stars,
        "content": content,
        "avg_line_length": sum(lengths) / len(lengths),
        "max_line_length": max(lengths),
        "alphanum_fraction": sum(map(str.isalnum, content)) / len(content),
    }


_PROGRAM = '''\
"""Counts the lines of files."""

import sys


def count(path):
    with open(path, encoding="utf-8") as stream:
        return sum(1 for _ in stream)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, count(name))
'''


def stack(data: Path) -> Expected:
    folder, schema = data / "stack" / "data", _stack_schema()
    python = [
        _stack_row("tools/count.py", "Python", _PROGRAM, ["MIT", "Apache-2.0"], 17),
        _stack_row(
            "tools/pb2.py", "Python", "# Generated by the protocol buffer compiler.\n" + _PROGRAM, ["MIT"], None
        ),
    ]
    write_parquet(folder / "python" / "data-00000-of-00144.parquet", python, schema)
    c = '#include <stdio.h>\n\nint main(void) {\n    puts("hello");\n    return 0;\n}\n'
    write_parquet(folder / "c" / "data-00000-of-00031.parquet", [_stack_row("hello.c", "C", c, ["MIT"], 3)], schema)
    readme = _stack_row("README.md", "Markdown", "# Tools\n\n" + prose("tools", 6), ["MIT"], 17)
    write_parquet(folder / "markdown" / "data-00000-of-00100.parquet", [readme], schema)
    return Expected(records=3, examples=2, examples_dropped={"code_generated": 1})


def stack_markdown(data: Path) -> Expected:
    folder, schema = data / "stack_markdown" / "data" / "markdown", _stack_schema()
    rows = [
        _stack_row("README.md", "Markdown", "# Tools\n\n" + prose("readme", 9), ["BSD-3-Clause"], 17),
        _stack_row("docs/empty.md", "Markdown", "# To do\n", ["MIT"], None),
    ]
    write_parquet(folder / "data-00000-of-00100.parquet", rows, schema)
    return Expected(records=2, examples=1, examples_dropped={"few_words": 1})


LAYOUTS: dict[str, Layout] = {
    "c4": c4,
    "mc4": mc4,
    "redpajama_book": redpajama_book,
    "redpajama_cc": redpajama_cc,
    "stack": stack,
    "stack_markdown": stack_markdown,
    "wikipedia": wikipedia,
}
