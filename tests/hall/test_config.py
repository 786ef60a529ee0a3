"""Configuration errors say where, what and what would be right."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from omnimill.config import Config, canonical_json, load_config
from omnimill.errors import ConfigError


class Circle(Config):
    shape: Literal["circle"]
    radius: float = Field(gt=0)


class Square(Config):
    shape: Literal["square"]
    side: int


class Drawing(Config):
    title: str
    items: tuple[Annotated[Circle | Square, Field(discriminator="shape")], ...] = ()
    folder: str = "here"


def load(tmp_path: Path, text: str) -> Drawing:
    path = tmp_path / "drawing.yaml"
    path.write_text(text)
    return load_config(path, Drawing)


def fault(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return str(caught.value).replace(str(tmp_path) + "/", "")


def test_good_file_loads(tmp_path: Path) -> None:
    drawing = load(tmp_path, "title: a\nitems:\n  - shape: circle\n    radius: 2\n")
    assert drawing == Drawing(title="a", items=(Circle(shape="circle", radius=2.0),))


def test_unknown_key_names_line_and_the_near_one(tmp_path: Path) -> None:
    message = fault(tmp_path, "title: a\nfoldr: x\n")
    assert message.startswith("drawing.yaml:2: foldr: unknown key; allowed: folder, items, title")
    assert "did you mean 'folder'?" in message


def test_unknown_key_in_a_union_member_lists_that_members_keys(tmp_path: Path) -> None:
    message = fault(tmp_path, "title: a\nitems:\n  - shape: circle\n    radius: 1\n    side: 3\n")
    assert "drawing.yaml:5: " in message
    assert "allowed: radius, shape" in message


def test_wrong_value_names_what_was_found(tmp_path: Path) -> None:
    message = fault(tmp_path, "title: a\nitems:\n  - shape: circle\n    radius: -1\n")
    assert "drawing.yaml:4: " in message
    assert "greater than 0" in message
    assert "found -1" in message


def test_unknown_tag_lists_the_allowed_ones(tmp_path: Path) -> None:
    message = fault(tmp_path, "title: a\nitems:\n  - shape: star\n")
    assert "star" in message
    assert "circle" in message
    assert "square" in message


def test_every_fault_is_listed(tmp_path: Path) -> None:
    assert len(fault(tmp_path, "folder: 3\nextra: 1\n").splitlines()) == 3


def test_missing_file_bad_yaml_and_doubled_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_config(tmp_path / "none.yaml", Drawing)
    assert "drawing.yaml:2" in fault(tmp_path, "title: a\n: : :\n - x")
    assert "appears twice" in fault(tmp_path, "title: a\ntitle: b\n")


def test_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_FOLDER", "there")
    assert load(tmp_path, "title: a\nfolder: ${SOME_FOLDER}/x\n").folder == "there/x"
    assert load(tmp_path, "title: a\nfolder: ${NOT_SET_ANYWHERE:-fallback}\n").folder == "fallback"
    assert "NOT_SET_ANYWHERE is not set" in fault(tmp_path, "title: a\nfolder: ${NOT_SET_ANYWHERE}\n")


def test_canonical_json_ignores_key_order() -> None:
    assert (
        canonical_json({"b": 1, "a": [1, "é"]})
        == canonical_json({"a": [1, "é"], "b": 1})
        == '{"a":[1,"é"],"b":1}'.encode()
    )
