"""The report names what data turned out to be: languages, noted facts, duplicates and files that repeat others."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from PIL import Image as Pillow

from omnimill.errors import OmnimillError
from omnimill.infra.dataset import Commit, Counts, Dataset
from omnimill.infra.lineage import command_run
from omnimill.infra.report.datasets import DatasetCard, dataset_card
from omnimill.infra.report.page import write_report
from omnimill.infra.selections import Selection, publish_left_out, publish_selection
from omnimill.schema import Example, Image, Meta, Provenance, Text, example_id, to_table


def example(source: str, key: str, uri: str, text: str, **facts: object) -> Example:
    digest = blake3(text.encode()).hexdigest()
    return Example(
        id=example_id(source, key, digest),
        source=source,
        unit="u",
        key=key,
        provenance=Provenance(uri=uri, digest=digest),
        text=[Text(role="body", text=text)],
        meta=Meta(**facts),  # type: ignore[arg-type]
    )


def picture(shade: int) -> Image:
    stream = io.BytesIO()
    Pillow.fromarray(np.full((20, 30, 3), shade, np.uint8)).save(stream, "PNG")
    data = stream.getvalue()
    return Image(data=data, format="png", width=30, height=20, digest=blake3(data).hexdigest())


def publish(root: Path) -> tuple[Dataset, str]:
    """Seven examples of two files, of which the second one repeats the first and adds one."""
    train = [example("robot", f"t{i}", "train.rec", f"episode {i}", language="en") for i in range(3)]
    train[1].meta.tags["mislabelled"] = "png as .jpg"
    val = [
        example("robot", f"v{i}", "val.rec", f"episode {number}", tags={"split": "val", "number": str(i)})
        for i, number in enumerate((2, 1, 0, 3))
    ]
    val[0].images.append(picture(40))
    train[2].images.append(picture(200))
    dataset = Dataset(str(root), "corpus")
    commits = []
    for number, rows in enumerate((train, val)):
        counts = Counts(records_in=len(rows), kept=len(rows), examples_written=len(rows))
        shard = dataset.publish_shard(to_table(rows))
        commits.append(
            Commit(unit=f"robot-{number}", source="robot", recipe="r", inputs=(), shards=(shard,), counts=counts)
        )
    digest, _ = dataset.publish_manifest("examples", commits)
    left_out = [
        {"row": i, "id": val[i].id, "step": "exact", "reason": "exact_duplicate", "twin": train[2 - i].id, "score": 1.0}
        for i in range(3)
    ]
    part = publish_left_out(dataset, commits[1].shards[0].digest, left_out)
    publish_selection(
        dataset, Selection(name="clean", dataset="corpus", manifest=digest, config={}, kept=4, shards=(part,))
    )
    return dataset, digest


def card(dataset: Dataset) -> DatasetCard:
    return dataset_card(dataset, *dataset.manifest())


def test_a_split_that_repeats_another_is_named(tmp_path: Path) -> None:
    dataset, digest = publish(tmp_path)
    shown = card(dataset)
    found = shown.findings
    assert found.languages == {"robot": [("not known", 4), ("en", 3)]}
    assert [(tag.name, tag.value, tag.count, tag.keys) for tag in found.tags] == [
        ("split", "val", 4, ["v0", "v1", "v2"])
    ], "what has a value of its own for every example tells nothing"
    assert [(tag.value, tag.keys) for tag in found.mislabelled] == [("png as .jpg", ["t1"])]
    (clean,) = shown.selections
    assert (clean.name, clean.kept, clean.reasons) == ("clean", 4, [("exact_duplicate", 3)])
    (pair,) = clean.pairs
    assert (pair.file, pair.kept, pair.count, pair.rows) == ("val.rec", "train.rec", 3, 4)
    assert {cluster.kept.key: [member.key for member in cluster.others] for cluster in clean.clusters} == {
        "t0": ["v2"],
        "t1": ["v1"],
        "t2": ["v0"],
    }
    assert [len(cluster.pictures) for cluster in clean.clusters if cluster.kept.key == "t2"] == [2]

    # A selection that judged another version says nothing about this one.
    assert not dataset_card(dataset, "0" * 64, dataset.manifest(digest)[1]).selections


def test_the_page_shows_what_was_found_whatever_else_is_gone(tmp_path: Path) -> None:
    _, digest = publish(tmp_path)
    for name, version in (("corpus", digest), ("gone", "f" * 64)):
        with command_run(str(tmp_path), "ingest", {}) as run:
            run.output(name, version, str(tmp_path / name))
    assert write_report(str(tmp_path), tmp_path / "report.html") == ["corpus"]
    page = (tmp_path / "report.html").read_text()
    for told in (
        "Languages",
        "Selection clean",
        "Files that repeat other files",
        "val.rec",
        "exact_duplicate",
        "split",
    ):
        assert told in page
    assert page.count("data:image/jpeg;base64,") >= 2
    with pytest.raises(OmnimillError, match="no dataset 'gone'"):
        write_report(str(tmp_path), tmp_path / "report.html", ["gone"])
    with pytest.raises(OmnimillError, match="there is: corpus, gone"):
        write_report(str(tmp_path), tmp_path / "report.html", ["nothing"])
