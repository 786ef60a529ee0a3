"""Every task family renders: from an example to what the model reads and writes, and to the page that shows it.

``python -m pytest tests/training/test_contact_sheet.py --contact-sheet FOLDER`` writes the page to look at, with
tokenizers that were trained for longer, so that pictures can be told by their codes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path

import family_examples
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from omnimill.cli.main import app
from omnimill.errors import ConfigError
from omnimill.infra.dataset import Commit, Counts, Dataset, FileRef, InputRef
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.row_columns import ARRAY_COLUMNS, RowContent
from omnimill.mixtures.task_families import families
from omnimill.schema import Example, Image, to_table
from omnimill.tokenizers import image, store
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.corpus import Corpus
from omnimill.tokenizers.encode import ALL_PARTS
from omnimill.tokenizers.encoder import Encoder
from omnimill.tokenizers.store import Tokenizers, load_tokenizers
from omnimill.tokenizers.targets import target_pictures
from omnimill.tokenizers.train import make_set
from omnimill.tokens import ImageLayout
from omnimill.training.lengths import Budgets
from omnimill.training.render_settings import RenderSettings
from omnimill.training.rendering import Renderer
from omnimill.training.show import Shower, ShownExample, lines
from omnimill.training.show_page import write_page

STEPS = 2
STEPS_TO_LOOK_AT = 800
IMAGE = {"input_size": 192, "history_size": 96, "target_size": 96, "patch": 16, "code_stride": 8, "codes": 256}
AUDIO = {"segment_seconds": 1.0, "frames": 64, "mels": 32, "patch": 8, "code_patch": [8, 8], "codes": 64}
IMAGE_NETWORK = {"type": "patches", "stem": 4, "channels": 16, "multipliers": [1, 2], "blocks": 1, "code_width": 16}
AUDIO_NETWORK = {"type": "patches", "width": 32, "layers": 1, "heads": 2, "code_width": 16, "normalised": False}


def config(steps: int) -> TokenizerConfig:
    training = {"steps": steps, "batch": 8, "learning_rate": 2e-3, "warmup_steps": 1}
    return TokenizerConfig.model_validate(
        {
            "name": "sheet",
            "dataset": "sheet",
            "tokens": "sheet-tokens",
            "layout": {"image": IMAGE, "audio": AUDIO},
            "text": {"pieces": 900},
            "image": {"network": IMAGE_NETWORK, "training": training},
            "audio": {"network": AUDIO_NETWORK, "training": training},
        }
    )


def committed(root: str, examples: Sequence[Example], layout: ImageLayout) -> None:
    """The examples as a dataset, and among them their target pictures, so that tokenizers learn these too."""
    dataset, commits = Dataset(root, "sheet"), []
    maps = [image.encode_png(one.canvas) for example in examples for one in target_pictures(example, layout)]
    drawn = [Image(data=data, format="png", width=96, height=96, digest="") for data in maps]
    for one in (*examples, family_examples.example("maps", {"images": drawn})):
        shard = dataset.publish_shard(to_table([one]))
        commits.append(one_row(one.source, shard))
        dataset.commit(commits[-1])
    dataset.publish_manifest("examples", commits)


@dataclass(frozen=True)
class Sheet:
    """root: holds the tokenizers and, as ``sheet-tokens``, the rows."""

    root: str
    tokenizers: Tokenizers
    mixture: Mixture
    rows: dict[str, RowContent]
    shower: Shower

    @cached_property
    def shown(self) -> dict[str, ShownExample]:
        """An example of every family, at epoch 0."""
        return {task.name: self.shower.show(i, self.rows[task.name], 0) for i, task in enumerate(self.mixture.tasks)}


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Sheet:
    root = str(tmp_path_factory.mktemp("sheet"))
    examples = family_examples.examples()
    asked = config(STEPS_TO_LOOK_AT if request.config.getoption("--contact-sheet") else STEPS)
    committed(root, list(examples.values()), asked.layout.image)
    store.publish(root, asked.name, *make_set(asked, Corpus(root, "sheet")))
    tokenizers = load_tokenizers(root, asked.name)
    encoder = Encoder(tokenizers, threads=1)
    try:
        encoded = encoder.submit(lambda: list(examples.values()), len(examples), ALL_PARTS)()
    finally:
        encoder.close()
    assert [(one.example.source, one.bad) for one in encoded.rejected] == []
    publish_rows(root, encoded.rows, tokenizers)
    rows = {}
    for row in encoded.rows.to_pylist():
        arrays = {name: [np.array(one) for one in row[name]] for name in ARRAY_COLUMNS}
        rows[row["source"]] = RowContent(**{**row, **arrays})
    tasks = [
        Task.model_validate({"group": family.group, "rate": 1, "sources": [name], **family.defaults(), "name": name})
        for name, family in families().items()
    ]
    mixture = Mixture(datasets=("sheet-tokens",), seed=3, tasks=tuple(tasks))
    settings = RenderSettings(image_keep=0.6, history_keep=0.6, audio_keep=0.6)
    renderer = Renderer(mixture, tokenizers.layout, tokenizers.text, settings, Budgets())
    return Sheet(root, tokenizers, mixture, rows, Shower(renderer, tokenizers))


def publish_rows(root: str, rows: pa.Table, tokenizers: Tokenizers) -> None:
    dataset, commits = Dataset(root, "sheet-tokens"), []
    for source in rows["source"].to_pylist():
        shard = dataset.publish_shard(rows.filter(pc.equal(rows["source"], source)))
        commits.append(one_row(source, shard))
        dataset.commit(commits[-1])
    dataset.publish_manifest("tokens", commits, attributes={"layout": tokenizers.layout.model_dump(mode="json")})


def one_row(source: str, shard: FileRef) -> Commit:
    return Commit(
        unit=source,
        source=source,
        recipe="test",
        inputs=(InputRef(uri=source, digest=shard.digest, bytes=1),),
        shards=(shard,),
        counts=Counts(records_in=1, kept=1, examples_written=1),
    )


@pytest.mark.parametrize("name", sorted(families()))
def test_every_family_renders(sheet: Sheet, name: str) -> None:
    family, shown = families()[name], sheet.shown[name]
    assert (shown.reads[0].kind, shown.reads[-1].text) == ("special", "</s>")
    assert {one.title.split()[0] for one in (*shown.pictures, *shown.clips)} <= {"current", "earlier"}
    read = sum(one.title.startswith("current") for one in shown.pictures)
    assert read == ("image" in family.inputs or family.objective == "image_denoising")
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


def test_the_page_shows_every_family_and_needs_nothing_else(
    sheet: Sheet, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.config.getoption("--contact-sheet")
    path = Path(folder or tmp_path) / "contact-sheet.html"
    write_page(path, "Contact sheet", list(sheet.shown.values()), ["empty: no row"])
    page = Page()
    page.feed(path.read_text())
    assert set(families()) <= page.ids
    assert page.outside == []
    assert page.unnamed == []


@pytest.fixture
def mixture_file(tmp_path: Path) -> Path:
    path = tmp_path / "mixture.yaml"
    path.write_text(
        "datasets: [sheet-tokens, not-made-yet]\n"
        "tasks:\n"
        "  - {name: ask, family: vqa, sources: [vqa], rate: 1}\n"
        "  - {name: box, family: object-detection, sources: [object-detection], rate: 1}\n"
        "  - {name: none, family: vqa, sources: [image-tagging], rate: 1}\n"
    )
    return path


def show(sheet: Sheet, *words: str | Path) -> str:
    done = CliRunner().invoke(app, ["mixture", "show", *map(str, words), "--root", sheet.root])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_shows_a_task(sheet: Sheet, mixture_file: Path) -> None:
    text = show(sheet, mixture_file, "ask", "-n", "3")
    assert "What colour is the ball?" in text
    assert "writes  red </s>" in text
    assert text.count("epoch 0") == 1  # there is one row

    found = json.loads(show(sheet, mixture_file, "box", "--json"))["examples"][0]
    marks = {mark["label"]: mark["numbers"] for mark in found["pictures"][0]["marks"]}
    assert set(marks) == set(family_examples.OBJECTS)
    # A picture of 4 : 3 has an eighth of the canvas above it.
    y1, x1, y2, x2 = family_examples.box("crate")
    np.testing.assert_allclose(marks["crate"], [0.125 + 0.75 * y1, x1, 0.125 + 0.75 * y2, x2], atol=0.0011)


def test_the_command_writes_a_page_of_all_tasks_and_says_what_is_missing(sheet: Sheet, mixture_file: Path) -> None:
    path = mixture_file.with_name("page.html")
    told = show(sheet, mixture_file, "--html", path)
    assert "2 examples" in told
    assert "'none': no eligible row" in told
    page = Page()
    page.feed(path.read_text())
    assert {"ask", "box"} <= page.ids


def test_a_task_that_is_not_there_is_named_with_those_that_are(sheet: Sheet, mixture_file: Path) -> None:
    done = CliRunner().invoke(app, ["mixture", "show", str(mixture_file), "asc", "--root", sheet.root])
    assert done.exit_code != 0
    with pytest.raises(ConfigError, match="found 'asc'; allowed: ask, box, none; did you mean 'ask'"):
        raise done.exception if done.exception else AssertionError


class Page(HTMLParser):
    """ids of elements, addresses outside of the file, and pictures and sounds without words for them."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.outside: list[str] = []
        self.unnamed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(str(given["id"]))
        address = given.get("src") or given.get("href") or ""
        if address and not address.startswith(("data:", "#")):
            self.outside.append(address)
        if tag in ("img", "audio", "svg") and not (given.get("alt") or given.get("aria-label")):
            self.unnamed.append(tag)
