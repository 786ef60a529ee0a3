"""Python's own sources and documentation as the demo's code and text."""

from __future__ import annotations

import ast
import json
import pydoc_data.topics
import sysconfig
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

# Packages and modules of the standard library that are plain Python and read well.
CODE = ["argparse.py", "ast.py", "bisect.py", "calendar.py", "cmd.py", "collections", "concurrent", "configparser.py"]
CODE += ["contextlib.py", "csv.py", "dataclasses.py", "difflib.py", "email", "enum.py", "fractions.py", "functools.py"]
CODE += ["heapq.py", "html", "http", "importlib", "inspect.py", "json", "logging", "pathlib.py", "pprint.py"]
CODE += ["queue.py", "random.py", "sched.py", "shelve.py", "shutil.py", "statistics.py", "string.py", "textwrap.py"]
CODE += ["tomllib", "traceback.py", "types.py", "typing.py", "unittest", "urllib", "uuid.py", "wsgiref", "zipfile.py"]

LICENCE = "PSF-2.0"


def _library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _modules() -> list[Path]:
    roots = [_library() / name for name in CODE]
    files = [file for root in roots for file in ([root] if root.is_file() else sorted(root.rglob("*.py")))]
    return [file for file in files if "__pycache__" not in file.parts and "test" not in file.parts]


def write_code(folder: Path) -> None:
    """A part of the standard library's source tree."""
    for file in _modules():
        target = folder / file.relative_to(_library())
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())


def write_docs(folder: Path) -> None:
    """The language reference that ships with Python, one topic a line, and a damaged line."""
    folder.mkdir(parents=True)
    topics = sorted(pydoc_data.topics.topics.items())
    lines = [json.dumps({"id": name, "text": text, "licence": LICENCE}) for name, text in topics]
    lines.insert(len(lines) // 2, lines[0][: len(lines[0]) // 2])
    (folder / "topics.jsonl").write_text("\n".join(lines) + "\n")


def write_docstrings(folder: Path) -> None:
    """Docstrings of the same modules as a Parquet file with several row groups."""
    folder.mkdir(parents=True)
    rows = [
        {"id": f"{file.relative_to(_library())}:{node.lineno}:{node.name}", "text": text, "licence": LICENCE}
        for file in _modules()
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        if (text := ast.get_docstring(node))
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "docstrings.parquet", row_group_size=800)
