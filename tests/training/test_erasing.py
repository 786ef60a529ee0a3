"""Erased examples and training: a new run never draws one, one under way draws none any more, old ones replay."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from blake3 import blake3

from omnimill.cli.main import main
from omnimill.errors import ConfigError
from omnimill.infra.dataset import QUARANTINE_SCHEMA, Commit, Counts, Dataset, InputRef
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.course import open_course
from omnimill.mixtures.ledger import Ledger, changes
from omnimill.mixtures.rows import scan
from omnimill.mixtures.versions import less_erased, open_versions
from omnimill.schema import Example, Provenance, example_id, to_table
from omnimill.training.checkpoints import checkpoint
from omnimill.training.lineage.erasing import rules_of
from omnimill.training.lineage.proof import prove
from omnimill.training.lineage.replay import combine_digests, consumed, replay, sequence_digest
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.history import read_history
from omnimill.training.runs.inputs import resolve
from omnimill.training.runs.loop import Worker, train_worker
from omnimill.training.runs.run import train

Maker = Callable[..., Any]


def learn(config: TrainConfig, root: Path, **values: Any) -> Path:
    config = config.model_copy(update=values)
    train_worker(resolve(config, str(root)), str(root), Worker())
    return checkpoint.run_folder(str(root), config.name)


def last(run: Path) -> Path:
    folder = checkpoint.newest(run)
    assert folder is not None
    return folder


def replayed(record: Path, root: Path) -> list[str]:
    """The digests of every step's plan, planned again."""
    steps: dict[int, list[int]] = defaultdict(list)
    for sequence in sorted(replay(record, str(root)), key=lambda one: (one.step, one.stream)):
        steps[sequence.step].append(sequence_digest(sequence))
    return [combine_digests(digests) for _, digests in sorted(steps.items())]


@pytest.fixture
def small(
    tmp_path: Path, train_root: Path, train_config: TrainConfig, mixture: Mixture, token_data: Any, store_tokens: Maker
) -> tuple[Path, TrainConfig]:
    """A root of its own with ten pages and ten photos, and a mixture of two tasks over them."""
    root = tmp_path / "root"
    shutil.copytree(train_root / "tokenizers", root / "tokenizers")
    rows = {source: token_data.rows[source][:10] for source in ("pages", "photos")}
    store_tokens(str(root), rows, token_data.layout)
    tasks = tuple(task for task in mixture.tasks if task.name in ("caption", "read"))
    body = Mixture(datasets=("tokens",), seed=7, window=4, tasks=tasks).model_dump(mode="json", exclude_defaults=True)
    (root / "mixture.yaml").write_text(yaml.safe_dump(body))
    return root, train_config.model_copy(update={"mixture": str(root / "mixture.yaml"), "streams": 2})


def test_what_is_erased_is_never_drawn_again(
    small: tuple[Path, TrainConfig], tmp_path: Path, token_data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    root, config = small
    run = learn(config, root, name="under-way", steps=4)
    old = tmp_path / "checkpoint.json"
    shutil.copy(last(run) / "checkpoint.json", old)
    before = replayed(old, root)
    page, photo = next(iter(consumed(old, root=str(root)))).example_id, token_data.rows["photos"][3]["id"]
    gone = {page, photo}
    assert len(gone) == 2

    launched = resolve(config.model_copy(update={"name": "under-way", "steps": 14}), str(root))
    command = [
        "lineage",
        "erase",
        *sorted(gone),
        "--reason",
        "asked",
        "--by",
        "their owner",
        "--root",
        str(root),
        "--json",
    ]
    capsys.readouterr()
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["erasure"] is None
    assert not (root / "erasures").exists()
    assert main([*command, "--yes"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(one["dataset"], one["kind"], one["rows"]) for one in told["lost"]] == [("tokens", "tokens", 2)]

    # The run under way goes on without being told to, and without them, though its launch knew nothing of the request;
    # what it did before can still be shown.
    train(config.model_copy(update={"name": "under-way", "steps": 4}), str(root))
    train_worker(launched, str(root), Worker())
    entries = [one.entry for one in Ledger(run).held()]
    assert [(change.step, change.versions.erasures) for change in changes(entries)] == [
        (0, ()),
        (4, (told["erasure"],)),
    ]
    seen = list(consumed(last(run)))
    assert {one.step for one in seen if one.example_id in gone} <= set(range(4))
    assert replayed(last(run), root) == [line["plan"] for line in read_history(run)]
    assert replayed(old, root) == before == [line["plan"] for line in read_history(run)][:4]
    assert prove(run, str(root))[1].faults == []

    # A new run never draws them, though it has been through all the others.
    after = learn(config, root, name="new", steps=14)
    seen = list(consumed(last(after)))
    assert {one.task for one in seen} == {"caption", "read"}
    assert max(one.epoch for one in seen) >= 1
    whole = scan(
        open_versions(str(root), checkpoint.read_record(old).versions), resolve(config, str(root)).mixture.tasks
    )
    ids = {rows.id(number) for rows in whole for number in range(len(rows))}
    course = open_course(str(root), [one.entry for one in Ledger(after).held()], config.streams)
    waiting = [draw for state in checkpoint.read_record(last(after)).plan["streams"].values() for draw in state["pool"]]
    drawn = {one.example_id for one in seen} | {course.rows[task].id(row) for _, task, row, _ in waiting}
    assert drawn == ids - gone
    assert replayed(last(after), root) == [line["plan"] for line in read_history(after)]

    # Nor does an evaluation of the old checkpoint.
    record = checkpoint.read_record(old)
    data = open_versions(str(root), less_erased(str(root), record.versions))
    for rows in scan(data, record.mixture.tasks):
        assert rows.locate_ids(gone) == []
        assert [why["erased"] for why in rows.reasons.values()] == [1]
    capsys.readouterr()
    assert main(["lineage", "erasures", "--root", str(root), "--json"]) == 0
    (request,) = json.loads(capsys.readouterr().out)["erasures"]
    assert (request["by"], request["reason"], request["rules"]["id"]) == ("their owner", "asked", sorted(gone))


def test_a_file_means_itself_and_its_content_and_no_neighbour(tmp_path: Path) -> None:
    """A folder of pictures with a file of captions, all inputs of one unit; one picture was quarantined."""
    dataset = Dataset(str(tmp_path), "photos")
    files = {name: tmp_path / "in" / name for name in ("a.jpg", "b.jpg", "bad.jpg", "captions.txt")}
    files["a.jpg"].parent.mkdir()
    for name, path in files.items():
        path.write_text(name)
    digests = {name: blake3(path.read_bytes()).hexdigest() for name, path in files.items()}
    rows = [
        Example(
            id=example_id("photos", name, digests[name]),
            source="photos",
            unit="u",
            key=name,
            provenance=Provenance(uri=str(files[name]), digest=digests[name]),
        )
        for name in ("a.jpg", "b.jpg")
    ]
    bad = {"source": "photos", "unit": "u", "key": "bad.jpg", "uri": str(files["bad.jpg"]), "tries": 1}
    bad |= {"operator": "decode", "reason": "image_truncated", "message": "ends early"}
    commit = Commit(
        unit="u",
        source="photos",
        recipe="r",
        inputs=tuple(InputRef(uri=str(path), digest=digests[name], bytes=1) for name, path in files.items()),
        shards=(dataset.publish_shard(to_table(rows)),),
        quarantine=dataset.publish_rejected(pa.Table.from_pylist([bad], QUARANTINE_SCHEMA), "quarantine"),
        counts=Counts(records_in=3, kept=2, quarantined={"image_truncated": 1}, examples_written=2),
    )
    dataset.publish_manifest("examples", [commit])

    def meant(query: str) -> dict[str, tuple[str, ...]]:
        return {str(kind): values for kind, values in rules_of(str(tmp_path), [query]).items()}

    place = str(files["a.jpg"])
    assert meant(place) == {"uri": (place,), "digest": (digests["a.jpg"],)}
    # What was turned down, and what was never read, is known by itself.
    assert set(meant(str(files["bad.jpg"]))) == {"uri", "digest"}
    assert meant("/in/never.jpg") == {"uri": ("/in/never.jpg",)}
    assert meant("https://example.org/1") == {"uri": ("https://example.org/1",)}
    captions = str(files["captions.txt"])
    assert meant(captions)["input"] == tuple(sorted((captions, digests["captions.txt"])))
    assert meant(digests["captions.txt"])["input"] == (digests["captions.txt"],)
    assert meant("domain:Example.ORG") == {"domain": ("example.org",)}
    assert meant("key:photos/a.jpg") == {"key": ("photos\x1fa.jpg",)}
    with pytest.raises(ConfigError, match="allowed: key:SOURCE/KEY"):
        meant("key:photos")
