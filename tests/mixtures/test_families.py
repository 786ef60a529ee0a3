"""The families that come with the project: all of the published table, as it has them, with prompts that work."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnimill.errors import ConfigError
from omnimill.mixtures.config import Task
from omnimill.mixtures.task_families import FAMILIES, Family, families

TABLE = FAMILIES.parent / "published" / "instruct.csv"
# Where a family differs from the table, and why.
OTHERWISE = {
    # The target pictures and clips are no inputs; the table counts what is masked as one.
    ("in", "audio-from-video", "audio"): "the clip is the target",
    ("in", "goal-generation", "image"): "the current picture is the target, the first is an earlier one",
    # What no dataset that the paper names of the family has.
    ("out", "view-synthesis", "text"): "no text is written of views",
    ("out", "3d", "image"): "pictures of Objaverse are view-synthesis",
    ("out", "embodied-qa", "sparse"): "answers are text",
    # What the paper describes and the table leaves out.
    ("in", "video-sound-localization", "audio"): "sound cannot be placed unheard",
    ("in", "view-synthesis", "sparse"): "the pose of the view",
    ("in", "image-instruction-following", "image_history"): "stories and dialogues of several pictures",
    ("in", "action-prediction", "sparse"): "the state",
    ("out", "action-prediction", "sparse"): "the action, in numbers",
    ("out", "next-frame-state-prediction", "sparse"): "the state, in numbers",
    ("out", "next-frame-state-prediction", "text"): "the state, in numbers",
}


def published() -> Iterator[dict[str, str]]:
    with TABLE.open() as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        yield from (row for row in rows if row["name"])


def forms(name: str) -> list[Family]:
    """A family of the table and its forms for other datasets."""
    return [one for one in families().values() if name in (one.name, one.part_of) and one.kind != "augmentation"]


def task(family: Family) -> Task:
    return Task.model_validate({**family.defaults(), "name": family.name, "rate": 1, "sources": ["any"]})


def test_every_family_of_the_table_is_there_in_its_group() -> None:
    wanted = {row["slug"]: (row["name"], row["group"]) for row in published()}
    assert len(wanted) == 43
    found = {one.name: (one.title, one.group) for one in families().values() if one.part_of is None}
    assert found == wanted
    assert all(one.group == families()[one.part_of].group for one in families().values() if one.part_of)


@pytest.mark.parametrize("row", list(published()), ids=lambda row: row["slug"])
def test_modalities_are_those_of_the_table(row: dict[str, str]) -> None:
    name = row["slug"]
    tasks = [task(one) for one in forms(name)]
    found = {("in", name, one) for each in tasks for one in each.input_modalities}
    found |= {("out", name, one) for each in tasks for one in each.target_modalities}
    wanted = {("in", name, one) for one in row["inputs"].split()} | {
        ("out", name, one) for one in row["outputs"].split()
    }
    # A dense input is a picture like any other.
    wanted.discard(("in", name, "dense"))
    assert found ^ wanted == {key for key in OTHERWISE if key[1] == name}


@pytest.mark.parametrize("name", sorted(families()))
def test_prompts_are_enough_and_read_what_is_declared(name: str) -> None:
    family = families()[name]
    if family.objective == "text_denoising":
        assert family.prompts == ()
        return
    assert len(family.prompts) >= 6
    slots = [set(re.findall(r"{(\w+)}", prompt)) for prompt in family.prompts]
    # Every prompt says all that the task is about: none leaves a role out.
    assert all(each == slots[0] for each in slots)
    assert set(family.roles) == slots[0] | ({family.target.partition(":")[2]} & set(family.roles))
    assert all(what.strip() for what in family.roles.values())
    for prompt in family.prompts:
        assert prompt == " ".join(prompt.split())
        assert prompt[0].isupper() or prompt[0] == "{"


def test_no_prompt_is_doubled() -> None:
    plain = {
        name: [re.sub(r"[^\w{}]+", " ", prompt.lower()).strip() for prompt in family.prompts]
        for name, family in families().items()
    }
    assert {name: prompts for name, prompts in plain.items() if len(set(prompts)) != len(prompts)} == {}
    # Two families may ask in the same words only for what is the user's own.
    first: dict[str, str] = {}
    for name, prompts in plain.items():
        for prompt in prompts:
            assert first.setdefault(prompt, name) == name or prompt == "{question}", prompt


def test_roles_have_to_be_those_of_the_prompts(tmp_path: Path) -> None:
    text = "name: odd\ntitle: Odd\ngroup: Odd\ninputs: [image]\ntarget: text:answer\nprompts: ['{question}']\n"
    (tmp_path / "odd.yaml").write_text(f"{text}roles: {{answer: the answer}}\n")
    with pytest.raises(ConfigError, match="prompts and target read \\['answer', 'question'\\]"):
        families(tmp_path)


def test_a_form_of_a_form_is_refused(tmp_path: Path) -> None:
    for name, whole in (("first", ""), ("second", "part_of: first\n"), ("third", "part_of: second\n")):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\ntitle: T\ngroup: G\ntarget: image\n{whole}")
    with pytest.raises(ConfigError, match="'second' is a part itself"):
        families(tmp_path)
