"""Every task family renders: from an example to what the model reads and writes, and to the page that shows it.

``python -m pytest tests/training/test_contact_sheet.py --contact-sheet FOLDER`` writes the page to look at.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import family_examples
import numpy as np
import pyarrow as pa
import pytest
from contact_sheet import AUDIO, IMAGE, Page, Sheet, token_row
from typer.testing import CliRunner

from omnimill.cli.main import app
from omnimill.errors import ConfigError
from omnimill.infra.dataset import Commit, Counts, Dataset, InputRef
from omnimill.mixtures.objectives import OBJECTIVES
from omnimill.mixtures.task_families import families
from omnimill.tokenizers import store
from omnimill.tokens import TOKEN_SCHEMA
from omnimill.training.showing.page import write_page
from omnimill.training.showing.words import lines


@pytest.fixture(scope="module")
def sheet() -> Sheet:
    return Sheet(family_examples.examples())


@pytest.mark.parametrize("name", sorted(families()))
def test_every_family_renders(sheet: Sheet, name: str) -> None:
    family, shown = families()[name], sheet.shown[name]
    assert (shown.reads[0].kind, shown.reads[-1].text) == ("special", "</s>")
    assert {one.title.split()[0] for one in (*shown.pictures, *shown.clips)} <= {"current", "earlier"}
    read = sum(one.title.startswith("current") for one in shown.pictures)
    assert read == ("image" in family.inputs or OBJECTIVES[family.objective].target == "image")
    assert bool(shown.writes) == family.target.startswith("text")
    assert bool(shown.target_pictures) == family.target.startswith("image")
    assert bool(shown.target_clips) == (family.target == "audio")
    if shown.prompt is not None:
        literals = [part.strip() for part in re.split(r"{\w+}", shown.prompt)]
        text = " ".join(run.text for run in shown.reads)
        assert all(part in text for part in literals), (shown.prompt, text)
    assert "cut" not in shown.lengths
    json.dumps(shown.facts())
    assert any(shown.id in line for line in lines(shown))


def test_targets_say_what_the_example_says(sheet: Sheet) -> None:
    def words(name: str) -> str:
        return " ".join(run.text for run in sheet.shown[name].writes[:-1])

    assert words("vqa") == "red"
    assert words("image-captioning") == family_examples.CAPTION.text
    assert words("relationship-prediction") in ("left of", "under")
    assert words("region-captioning") == "a wooden crate"
    assert words("audio-tagging") == "whistle"
    assert words("episode-plan") == "1. go to the ball 2. grasp the ball 3. lift the ball"
    # The red ball is gone from the edited picture: there are a grey wall and a grey floor.
    edited, before = (sheet.shown[name].target_pictures[-1].pixels for name in ("image-editing", "image-from-text"))
    blue = np.s_[50:68, 14:30, 2]
    assert before[blue].mean() < 60 < edited[blue].mean()


def test_properties_and_formats_of_boxes_are_measured_on_the_canvas() -> None:
    columns = family_examples.photo(*family_examples.EXPRESSIONS, annotations=family_examples.EXPRESSION_BOXES)
    things = dict(
        zip([text.text for text in family_examples.EXPRESSIONS], family_examples.OBJECTS.values(), strict=True)
    )
    seen = set()
    for family, operator in (("box-property", "property"), ("box-format", "format")):
        for number in range(40):
            one = family_examples.example(f"s{number}", columns)
            family_examples.augmented("augment_boxes", {"variants": [operator]}, one)
            shown = Sheet({family: one}).shown[family]
            said = {text.role: text.text for text in one.text if text.role in ("query", operator)}
            # In a canvas of 192 pixels the picture of 144 rows begins at row 24.
            left, top, right, bottom = (edge + 24 * (i % 2) for i, edge in enumerate(things[said["query"]]))
            wanted = _measured(said[operator], top, left, bottom, right)
            found = [int(run) for run in shown.writes[0].text.split()]
            assert np.abs(np.array(found) - 999 * np.array(wanted)).max() <= 1
            seen.add(said[operator])
    assert len(seen) >= 15


def _measured(what: str, top: float, left: float, bottom: float, right: float) -> list[float]:
    """Shares of the canvas of 192 pixels."""
    middle = ((top + bottom) / 2, (left + right) / 2)
    values = {
        "height": [bottom - top],
        "width": [right - left],
        "area": [(bottom - top) * (right - left) / 192],
        "centre": [*middle],
        "top left corner": [top, left],
        "top right corner": [top, right],
        "bottom left corner": [bottom, left],
        "bottom right corner": [bottom, right],
        "distance to the top edge": [top],
        "distance to the left edge": [left],
        "distance to the bottom edge": [192 - bottom],
        "distance to the right edge": [192 - right],
        "top half": [top, left, middle[0], right],
        "bottom half": [middle[0], left, bottom, right],
        "left half": [top, left, bottom, middle[1]],
        "right half": [top, middle[1], bottom, right],
        "x1 y1 x2 y2": [left, top, right, bottom],
        "x1 y1 width height": [left, top, right - left, bottom - top],
        "centre x, centre y, width, height": [*middle[::-1], right - left, bottom - top],
    }
    return [value / 192 for value in values[what]]


def test_patches_that_the_encoder_does_not_get_are_dark(sheet: Sheet) -> None:
    (shown,) = sheet.shown["image-captioning"].pictures
    kept, valid = shown.patches or (0, 0)
    assert kept == int(0.6 * IMAGE.input_grid**2) < valid
    # Everything in the scene is brighter than anything dimmed.
    grid = shown.pixels.reshape(IMAGE.input_grid, IMAGE.patch, IMAGE.input_grid, IMAGE.patch, 3)
    dark = grid.max(axis=(1, 3, 4)) <= 255 // 4
    assert valid - kept == dark[1:10].sum()


def test_spectrograms_have_the_layout_s_size(sheet: Sheet) -> None:
    (clip,) = sheet.shown["audio-captioning"].clips
    assert clip.mel.shape == clip.visible.shape == (AUDIO.frames, AUDIO.mels)
    assert clip.visible.mean() == pytest.approx((clip.patches or (0, 0))[0] / 32)


def test_tracks_are_drawn_on_their_own_frames(sheet: Sheet) -> None:
    *earlier, current = sheet.shown["video-tracking"].pictures
    lefts = [one.marks[0].numbers[1] for one in (*earlier, current)]
    wanted = [family_examples.box("ball", 14 * number)[1] for number in range(5)]
    np.testing.assert_allclose(lefts, wanted, atol=0.0011)
    assert [one.marks[0].side for one in (*earlier, current)] == ["read"] * 4 + ["written"]


def test_the_page_shows_every_family_and_needs_nothing_else(
    sheet: Sheet, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = Path(request.config.getoption("--contact-sheet") or tmp_path) / "contact-sheet.html"
    write_page(path, "Contact sheet", list(sheet.shown.values()), ["empty: no row"])
    page = Page(path.read_text())
    assert set(families()) <= page.ids
    assert page.outside == []
    assert page.unnamed == []


@pytest.fixture(scope="module")
def root(sheet: Sheet, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Holds the rows of the sheet as the token dataset ``sheet-tokens``, and its text tokenizer."""
    root, files = str(tmp_path_factory.mktemp("sheet")), {"text": sheet.tokenizers.text.model}
    layout = sheet.tokenizers.layout
    stored = store.StoredSet(
        text_pieces=layout.text_pieces, image=layout.image, audio=layout.audio, digests=store.file_digests(files)
    )
    store.publish(root, layout.tokenizers, stored, files)
    dataset, commits = Dataset(root, "sheet-tokens"), []
    for source in ("vqa", "object-detection", "image-tagging"):
        row = token_row(sheet.examples[source], sheet.tokenizers)
        shard = dataset.publish_shard(pa.Table.from_pylist([row], TOKEN_SCHEMA))
        commit = Commit(
            unit=source,
            source=source,
            recipe="test",
            inputs=(InputRef(uri=source, digest=shard.digest, bytes=1),),
            shards=(shard,),
            counts=Counts(records_in=1, kept=1, examples_written=1),
        )
        dataset.commit(commit)
        commits.append(commit)
    attributes = {"layout": stored.layout(layout.tokenizers).model_dump(mode="json")}
    dataset.publish_manifest("tokens", commits, attributes=attributes)
    return root


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    path = tmp_path / "mixture.yaml"
    path.write_text(
        "datasets: [sheet-tokens, not-made-yet]\n"
        "tasks:\n"
        "  - {name: ask, family: vqa, sources: [vqa], rate: 1}\n"
        "  - {name: box, family: object-detection, sources: [object-detection], rate: 1}\n"
        "  - {name: none, family: vqa, sources: [image-tagging], rate: 1}\n"
        "  - {name: later, family: vqa, sources: [not-made-yet], rate: 1}\n"
    )
    return path


def show(root: str, *words: str | Path) -> str:
    done = CliRunner().invoke(app, ["mixture", "show", *map(str, words), "--root", root])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_shows_a_task(root: str, mixture: Path) -> None:
    text = show(root, mixture, "ask", "-n", "3")
    assert "What colour is the ball?" in text
    assert "writes  red </s>" in text
    assert text.count("epoch 0") == 1  # there is one row

    found = json.loads(show(root, mixture, "box", "--json"))["examples"][0]
    marks = {mark["label"]: mark["numbers"] for mark in found["pictures"][0]["marks"]}
    assert set(marks) == set(family_examples.OBJECTS)
    # A picture of 4 : 3 has an eighth of the canvas above it.
    y1, x1, y2, x2 = family_examples.box("crate")
    np.testing.assert_allclose(marks["crate"], [0.125 + 0.75 * y1, x1, 0.125 + 0.75 * y2, x2], atol=0.0011)


def test_the_command_writes_a_page_of_all_tasks_and_says_what_is_missing(root: str, mixture: Path) -> None:
    path = mixture.with_name("page.html")
    told = show(root, mixture, "--html", path)
    assert "2 examples" in told
    assert "'none': no eligible row" in told
    assert f"no data under {root}: later" in told
    assert {"ask", "box"} <= Page(path.read_text()).ids


def test_the_command_renders_as_a_training_does(root: str, mixture: Path, tmp_path: Path) -> None:
    training = tmp_path / "training.yaml"
    training.write_text(f"{{name: run, mixture: {mixture}, steps: 1, streams: 1, render: {{image_keep: 0.25}}}}")
    found = json.loads(show(root, mixture, "ask", "--training", training, "--json"))["examples"][0]
    assert found["lengths"]["image"] == IMAGE.input_grid**2 // 4


def test_a_task_that_is_not_there_is_named_with_those_that_are(root: str, mixture: Path) -> None:
    done = CliRunner().invoke(app, ["mixture", "show", str(mixture), "asc", "--root", root])
    assert isinstance(done.exception, ConfigError)
    assert "found 'asc'; allowed: ask, box, later, none; did you mean 'ask'?" in str(done.exception)


def test_a_mixture_without_data_says_what_to_do(mixture: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["mixture", "show", str(mixture), "ask", "--root", str(tmp_path)])
    assert "none of the token datasets sheet-tokens, not-made-yet" in str(done.exception)
