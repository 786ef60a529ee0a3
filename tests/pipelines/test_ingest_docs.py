"""docs/ingest.md says what the code does: its examples run, and its tables name every source, operator and reason."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from omnimill.config import Config, load_config
from omnimill.infra.dataset import Dataset
from omnimill.pipelines.dag import OPERATOR_TYPES, SOURCE_TYPES, Dag
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.sources.jsonl import JsonlSource

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "ingest.md").read_text()

# Which argument of a call is a reason.
REASON_ARGUMENT = {"BadRecord": 0, "RecordDropped": 0, "Rejection": 2, "quarantined": 2, "_Death": 1}
# Functions whose callers say what is read (video, audio, …), the first part of the reasons in their modules.
KIND_TAKERS = {"isolation": "isolated", "ffmpeg": "piped", "probe": "probe"}


def section(heading: str) -> str:
    """The page's text below a heading, up to the next one."""
    _, found, rest = PAGE.partition(f"# {heading}\n")
    assert found, heading
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(heading: str) -> list[tuple[list[str], list[str]]]:
    """What stands in backquotes in the first and in the last column of the tables below a heading."""
    cells = [line.strip("|").split("|") for line in section(heading).splitlines() if line.startswith("|")]
    found = [(re.findall(r"`([^`]+)`", row[0]), re.findall(r"`([^`]+)`", row[-1])) for row in cells]
    return [row for row in found if row[0]]


def first_column(heading: str) -> list[str]:
    return [name for names, _ in rows(heading) for name in names]


def block(language: str, holding: str = "") -> str:
    """The page's one code block of a language that holds a text."""
    (found,) = (text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if holding in text)
    return str(found)


def run(text: str, page: dict[str, Any]) -> None:
    """Run a block of the page; `page` is the module that it stands in."""
    exec(compile(text, "docs/ingest.md", "exec", dont_inherit=True), page)


def by_name(types: Iterable[type[Config]], field: str) -> dict[str, type[Config]]:
    return {get_args(kind.model_fields[field].annotation)[0]: kind for kind in types}


SOURCES, OPERATORS = by_name(SOURCE_TYPES, "type"), by_name(OPERATOR_TYPES, "op")


def default(kind: type[Config], path: str) -> Any:
    """A setting's default as YAML would hold it; `path` may lead into a group of settings."""
    name, _, below = path.partition(".")
    value = kind.model_fields[name].get_default(call_default_factory=True)
    if below:
        return default(type(value), below)
    return list(value) if isinstance(value, tuple) else value


def stated(text: str) -> Any:
    """A value on the page: YAML, or a number of bytes."""
    size = re.fullmatch(r"(\d+) ([KMG])iB", text)
    return int(size[1]) << {"K": 10, "M": 20, "G": 30}[size[2]] if size else yaml.safe_load(text)


class Scan:
    """The reason codes that stand in the source of the room, by what becomes of the record or example."""

    def __init__(self) -> None:
        self.trees = {path: ast.parse(path.read_text()) for path in (PROJECT / "pipelines").rglob("*.py")}
        self.kinds = self._kinds()
        self.codes: defaultdict[str, set[str]] = defaultdict(set)
        for path, tree in self.trees.items():
            given = self.kinds[KIND_TAKERS.get(path.stem, "")]
            for function in ast.walk(tree):
                if isinstance(function, ast.FunctionDef):
                    self._verdicts(function, given)
                    if path.parent.name == "operators":
                        self._answers(function)

    def _kinds(self) -> defaultdict[str, set[str]]:
        """What the callers of `KIND_TAKERS` name, where they call them or hand them on with their arguments."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for call in (node for tree in self.trees.values() for node in ast.walk(tree) if isinstance(node, ast.Call)):
            row = [call.func, *call.args]
            for place, name in enumerate(map(called, row)):
                if name in KIND_TAKERS.values():
                    constants = (node for node in row[place + 1 : place + 3] if isinstance(node, ast.Constant))
                    found[name] |= {node.value for node in constants if isinstance(node.value, str)}
        return found

    def _verdicts(self, function: ast.FunctionDef, given: set[str]) -> None:
        """What is given to `BadRecord` and its like."""
        if function.name == "quarantined":
            self.codes["quarantined"] |= {ast.literal_eval(value) for value in function.args.defaults}
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and (place := REASON_ARGUMENT.get(called(call.func), 99)) < len(call.args):
                first = texts(call.args[0], function, given)
                dropped = called(call.func) == "RecordDropped" or "dropped" in first
                self.codes["dropped" if dropped else "quarantined"] |= texts(call.args[place], function, given)

    def _answers(self, function: ast.FunctionDef) -> None:
        """What operators answer: returned texts, and the keys of the rules about text."""
        returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value]
        if function.name == "rules":
            inside = list(ast.walk(function))
            keys = [key for node in inside if isinstance(node, ast.Dict) for key in node.keys]
            keys += [node.key for node in inside if isinstance(node, ast.DictComp)]
            self.codes["examples"] |= {text for key in keys for text in texts(key, function, {"<n>"})}
        elif function.returns is not None and "str | None" in ast.unparse(function.returns):
            elements = [node.elt if isinstance(node, ast.ListComp) else node for node in returned]
            self.codes["examples"] |= {text for node in elements for text in texts(node, function, set())}


def called(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def texts(node: ast.expr | None, function: ast.FunctionDef, given: set[str]) -> set[str]:
    """The texts that an expression can be, as far as its function shows; `given` where that shows nothing."""
    match node:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=body, orelse=orelse):
            return texts(body, function, given) | texts(orelse, function, given)
        case ast.Name(id=name):
            assigned = [step for step in ast.walk(function) if isinstance(step, ast.Assign)]
            values = [step.value for step in assigned if name in map(called, step.targets)]
            return {text for value in values for text in texts(value, function, given)}
        case ast.FormattedValue(value=value):
            return texts(value, function, given) or given
        case ast.JoinedStr(values=parts):
            found = {""}
            for part in parts:
                found = {start + end for start in found for end in texts(part, function, given)}
            return found
    return set()


def test_the_dag_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(block("yaml", "image_folder"))
    dag = load_config(path, Dag)
    assert [pipeline.source.type for pipeline in dag.sources] == ["image_folder", "jsonl"]
    assert all(pipeline.operators for pipeline in dag.sources)


def test_every_source_and_operator_is_listed() -> None:
    assert sorted(first_column("Sources")) == sorted(SOURCES)
    assert sorted(first_column("Operators")) == sorted(OPERATORS)
    assert set(first_column("Limits against hostile input")) == set(SOURCES)


@pytest.mark.parametrize("heading", ["Sources", "Operators", "Limits against hostile input"])
def test_settings_have_the_defaults_that_the_page_says(heading: str) -> None:
    checked = 0
    for kinds, settings in rows(heading):
        for kind in ((SOURCES | OPERATORS)[name] for name in kinds):
            for setting in settings:
                name, given, value = setting.partition(": ")
                found = default(kind, name)
                if given:
                    assert found == stated(value), f"{kind.__name__}.{name}"
                    checked += 1
    assert checked > 10


def test_tables_hold_exactly_the_reasons_of_the_code() -> None:
    codes = Scan().codes
    assert sorted(first_column("Quarantined records")) == sorted(codes["quarantined"])
    assert sorted(first_column("Dropped records")) == sorted(codes["dropped"])
    assert sorted(first_column("Dropped examples")) == sorted(codes["examples"])


def test_the_scan_finds_reasons_in_every_form() -> None:
    codes = Scan().codes
    assert {"empty_file", "image_truncated", "archive_damaged", "transcript_malformed"} <= codes["quarantined"]
    assert {"mesh_timeout", "audio_undecodable", "video_too_long"} <= codes["quarantined"]
    assert {"unexpected_error", "worker_crashed"} <= codes["quarantined"]
    assert {"sidecar", "no_examples"} <= codes["dropped"]
    assert {"image_uniform", "text_too_long", "few_letters", "top_<n>gram", "views_empty"} <= codes["examples"]


def test_the_operator_works_and_its_drops_can_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page: dict[str, Any] = {"__name__": "page"}
    run(block("python", "LicenceAllowed"), page)
    operator = page["LicenceAllowed"](op="licence_allowed", licences=["CC0-1.0"])
    lines = ['{"text": "kept", "licence": "CC0-1.0"}', '{"text": "dropped", "licence": "none"}', '{"text": "unknown"}']
    Path("pages.jsonl").write_text("\n".join(lines))
    source = JsonlSource(type="jsonl", name="pages", path="pages.jsonl", licence_field="licence")
    dataset = Dataset("runs/mine", "web")
    commits = [process_unit(source, [operator], unit, dataset) for unit in source.units()]
    dataset.publish_manifest("examples", commits)
    (commit,) = commits
    (row,) = dataset.read(commit.shards[0]).to_pylist()
    assert row["text"][0]["text"] == "kept"
    assert commit.counts.examples_dropped == {"licence_not_allowed": 2}
    run(block("python", "rejected"), page)
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(line[0], line[1], *line[3:]) for line in told] == [
        ("dropped", "pages", "licence_allowed", "licence_not_allowed")
    ] * 2
