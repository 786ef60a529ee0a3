"""A DAG in YAML: what loads, and how a mistake is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnimill.cli.main import main
from omnimill.config import load_config
from omnimill.errors import ConfigError
from omnimill.pipelines.dag import OPERATOR_TYPES, SOURCE_TYPES, Dag

GOOD = """\
dataset: small
sources:
  - name: pictures
    type: image_folder
    path: pics
    max_quarantined_share: 0.1
    operators:
      - op: image_size
        min_side: 64
      - op: image_aspect
  - name: texts
    type: jsonl
    path: texts
"""


def load(tmp_path: Path, text: str) -> Dag:
    path = tmp_path / "dag.yaml"
    path.write_text(text)
    return load_config(path, Dag)


def fault(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_entries_become_typed_sources_and_operators(tmp_path: Path) -> None:
    dag = load(tmp_path, GOOD)
    pictures, texts = dag.sources
    assert (pictures.name, pictures.source.type, pictures.max_quarantined_share) == ("pictures", "image_folder", 0.1)
    assert [operator.op for operator in pictures.operators] == ["image_size", "image_aspect"]
    assert pictures.operators[0].model_dump()["min_side"] == 64
    assert (texts.source.type, texts.operators) == ("jsonl", ())


def test_what_is_logged_loads_again(tmp_path: Path) -> None:
    dag = load(tmp_path, GOOD)
    assert Dag.model_validate(json.loads(json.dumps(dag.model_dump(mode="json")))) == dag


def test_every_type_and_operator_has_a_name_of_its_own() -> None:
    for kinds, tag in ((SOURCE_TYPES, "type"), (OPERATOR_TYPES, "op")):
        names = [kind.model_fields[tag].annotation.__args__[0] for kind in kinds]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("type: jsonl", "type: jsonlines"), "dag.yaml:12: sources.1.type: unknown type; found 'jsonlines'; allowed: "),
        (("type: jsonl", "type: jsonlines"), "; did you mean 'jsonl'?"),
        (("op: image_size", "op: image_sise"), "dag.yaml:8: sources.0.operators.0.op: unknown op; found 'image_sise'"),
        (("op: image_size", "op: image_sise"), "did you mean 'image_size'?"),
        (("    type: jsonl\n", ""), "dag.yaml:11: sources.1.type: required key is missing"),
        (("    path: texts\n", ""), "dag.yaml:11: sources.1.path: required key is missing"),
        (("min_side: 64", "min_sid: 64"), "dag.yaml:9: sources.0.operators.0.min_sid: unknown key; allowed: "),
        (("min_side: 64", "min_sid: 64"), "did you mean 'min_side'?"),
        (("min_side: 64", "min_side: tall"), "dag.yaml:9: sources.0.operators.0.min_side: "),
        (("min_side: 64", "min_side: tall"), "found 'tall'"),
        (("path: texts", "pth: texts"), "dag.yaml:13: sources.1.pth: unknown key; allowed: "),
        (("_share: 0.1", "_share: 10"), "dag.yaml:6: sources.0.max_quarantined_share: "),
        (("name: texts", "name: pictures"), "source names must differ, pictures is used more than once"),
        (("dataset: small", "dataset: Not Small"), "dag.yaml:1: dataset: "),
    ],
)
def test_mistakes_name_line_key_found_and_allowed(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert GOOD.count(change[0]) == 1
    assert message in fault(tmp_path, GOOD.replace(*change))


def test_keys_of_the_entry_are_offered_beside_the_sources_own(tmp_path: Path) -> None:
    message = fault(tmp_path, GOOD.replace("operators:", "operatrs:"))
    assert "did you mean 'operators'?" in message
    allowed = message.split("allowed: ")[1].split(";")[0].split(", ")
    assert {"captions", "max_quarantined_share", "operators", "path", "type"} <= set(allowed)
    assert "source" not in allowed


def test_a_config_error_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dag.yaml").write_text("dataset: x\nsources: []\n")
    assert main(["ingest", str(tmp_path / "dag.yaml"), "--root", str(tmp_path / "root")]) == 2
    assert "dag.yaml:2: sources:" in capsys.readouterr().err


def test_plan_shows_the_graph_and_what_is_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.jsonl").write_text('{"text": "hello"}\n')
    text = f"dataset: small\nsources:\n  - name: texts\n    type: jsonl\n    path: {tmp_path}/texts\n"
    text += "    operators:\n      - op: text_length\n"
    (tmp_path / "dag.yaml").write_text(text)
    root = str(tmp_path / "root")
    assert main(["ingest", str(tmp_path / "dag.yaml"), "--root", root, "--plan", "--json"]) == 0
    (source,) = json.loads(capsys.readouterr().out)["sources"]
    assert source == {
        "source": "texts",
        "graph": ["jsonl", "text_length", "small"],
        "units": 1,
        "committed": 0,
        "todo": 1,
        "input_bytes": 18,
        "todo_bytes": 18,
    }
    assert main(["ingest", str(tmp_path / "dag.yaml"), "--root", root, "--plan"]) == 0
    assert "jsonl -> text_length -> small" in capsys.readouterr().out
    assert not Path(root).exists(), "a plan writes nothing"
