"""A run whose mixture, data and selections change on the way, and one whose rates follow its losses."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from omnimill.cli.main import main
from omnimill.errors import ConfigError, IntegrityError
from omnimill.infra.dataset import Commit, Counts, Dataset
from omnimill.infra.selections import Selection, publish_left_out, publish_selection
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.ledger import Ledger, changes, updates
from omnimill.mixtures.online_config import OnlineConfig
from omnimill.tokens import TOKEN_SCHEMA
from omnimill.training.checkpoints import checkpoint
from omnimill.training.lineage import waypoints
from omnimill.training.lineage.proof import prove
from omnimill.training.lineage.replay import combine_digests, consumed, held_by, replay, sequence_digest
from omnimill.training.lineage.sightings import Sightings
from omnimill.training.runs.config import TrainConfig
from omnimill.training.runs.history import TIMING, read_history
from omnimill.training.runs.inputs import resolve
from omnimill.training.runs.loop import Worker, train_worker

Maker = Callable[..., Any]


def learn(config: TrainConfig, root: Path, **values: Any) -> Path:
    config = config.model_copy(update=values)
    train_worker(resolve(config, str(root)), str(root), Worker())
    return checkpoint.run_folder(str(root), config.name)


def curve(run: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != TIMING} for line in read_history(run)]


def replayed(run: Path) -> list[str]:
    """The digests of every step's plan, planned again."""
    folder = checkpoint.newest(run)
    assert folder is not None
    steps: dict[int, list[int]] = defaultdict(list)
    for sequence in sorted(replay(folder), key=lambda one: (one.step, one.stream)):
        steps[sequence.step].append(sequence_digest(sequence))
    return [combine_digests(digests) for _, digests in sorted(steps.items())]


@pytest.fixture
def small(tmp_path: Path, train_root: Path, train_config: TrainConfig, token_data: Any, store_tokens: Maker) -> Any:
    """A root of its own with ten pages and ten photos, and a mixture of two tasks over them."""
    root = tmp_path / "root"
    shutil.copytree(train_root / "tokenizers", root / "tokenizers")
    rows = {source: token_data.rows[source][:10] for source in ("pages", "photos")}
    store_tokens(str(root), rows, token_data.layout)
    config = train_config.model_copy(update={"mixture": str(root / "mixture.yaml"), "streams": 2})
    return root, config, rows


@pytest.fixture(autouse=True)
def near_waypoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a few steps have waypoints too."""
    monkeypatch.setattr(waypoints, "EVERY", 3)


def check_sightings(run: Path, root: Path) -> None:
    """What is computed of every row for itself is what planning the whole run again says."""
    folders = checkpoint.list_checkpoints(run)
    held = changes(held_by(folders[-1], str(root))[1])
    dataset = Dataset(str(root), "tokens")
    manifests = [dataset.manifest(one.manifest)[1] for change in held for one in change.versions.datasets]
    rows = {ref.digest: np.arange(ref.rows) for one in manifests for commit in one.commits for ref in commit.shards}
    sightings = Sightings(folders[-1], checkpoint.read_record(folders[-1]), str(root))
    together = sightings.of(sightings.passes(rows))
    assert sorted(map(astuple, together)) == sorted(map(astuple, consumed(folders[-1])))
    for digest in sorted(rows)[:2]:
        passes = sightings.passes({digest: np.array([0, 2])})
        found = sightings.of(passes)
        assert found == [one for one in together if one in found]
        for folder in folders:
            record = checkpoint.read_record(folder)
            times, tasks, exact = sightings.times(passes, record)
            before = [one for one in found if one.step < record.step]
            assert times >= len(before)
            assert not exact or (times, tasks) == (len(before), sorted({one.task for one in before}))


def write_mixture(root: Path, mixture: Mixture, names: dict[str, float], **values: Any) -> None:
    tasks = [task.model_copy(update={"rate": names[task.name]}) for task in mixture.tasks if task.name in names]
    body = Mixture(datasets=("tokens",), seed=7, window=4, tasks=tuple(tasks)).model_dump(
        mode="json", exclude_defaults=True
    )
    (root / "mixture.yaml").write_text(yaml.safe_dump({**body, **values}))


def leave_out(root: Path, source: str, rows: list[int]) -> set[str]:
    """A selection ``erased`` that leaves these rows out of a source's first shard; their ids."""
    dataset = Dataset(str(root), "tokens")
    digest, manifest = dataset.manifest()
    shard = next(commit.shards[0] for commit in manifest.commits if commit.source == source)
    ids = dataset.read(shard).column("id").to_pylist()
    table = [{"row": row, "id": ids[row], "step": "s", "reason": "asked", "twin": None, "score": None} for row in rows]
    part = publish_left_out(dataset, shard.digest, table)
    selection = Selection(
        name="erased", dataset="tokens", manifest=digest, config={}, kept=manifest.rows - len(rows), shards=(part,)
    )
    publish_selection(dataset, selection)
    return {ids[row] for row in rows}


def add(root: Path, source: str, rows: list[dict[str, Any]]) -> None:
    """A unit more, in a new version of the dataset."""
    dataset = Dataset(str(root), "tokens")
    _, manifest = dataset.manifest()
    shard = dataset.publish_shard(pa.Table.from_pylist(rows, TOKEN_SCHEMA))
    counts = Counts(records_in=len(rows), kept=len(rows), examples_written=len(rows))
    commit = Commit(unit=f"{source}-9", source=source, recipe="test", inputs=(), shards=(shard,), counts=counts)
    dataset.publish_manifest("tokens", [*manifest.commits, commit], attributes=manifest.attributes)


def test_mixture_data_and_selections_change_in_mid_run(
    small: Any, mixture: Mixture, token_data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from omnimill.training.runs.run import train

    root, config, _ = small
    write_mixture(root, mixture, {"caption": 2, "read": 1})
    learn(config, root, steps=4)

    # Rates change, a task goes, a task comes, eight photos come, and a page and a photo are erased.
    add(root, "photos", token_data.rows["photos"][10:18])
    add(root, "robot", token_data.rows["robot"][:6])
    write_mixture(root, mixture, {"caption": 1, "act": 2})
    with pytest.raises(
        ConfigError, match=r"cannot go on from its checkpoint at step 4.*\n(.*\n)*.*on_change: continue"
    ):
        train(config.model_copy(update={"steps": 8}), str(root))
    write_mixture(root, mixture, {"caption": 1, "act": 2}, selections=["erased"])
    with pytest.raises(ConfigError, match="'erased', which neither tokens nor the examples"):
        resolve(config, str(root))
    gone = leave_out(root, "photos", [0, 2])
    run = learn(config, root, steps=8, on_change="continue")
    # Back to the first mixture, without the selection, which has judged no newer version.
    write_mixture(root, mixture, {"caption": 1, "read": 3})
    learn(config, root, steps=16, on_change="continue")

    entries = [one.entry for one in Ledger(run).held()]
    assert [change.step for change in changes(entries)] == [0, 4, 8]
    assert changes(entries)[1].versions.datasets != changes(entries)[0].versions.datasets
    assert replayed(run) == [line["plan"] for line in read_history(run)]
    _, proof = prove(run, str(root))
    assert proof.faults == []
    assert proof.draws == proof.placed + proof.pending + proof.void

    # What was erased is met before and after, not while it was left out; and no draw is made twice.
    folder = checkpoint.newest(run)
    assert folder is not None
    seen = list(consumed(folder))
    assert not [one for one in seen if one.example_id in gone and 4 <= one.step < 8]
    assert [one for one in seen if one.example_id in gone and one.step < 4]
    assert max(Counter((one.task, one.row, one.epoch) for one in seen).values()) == 1
    some = {seen[0].example_id, seen[-1].example_id}
    assert list(consumed(folder, some)) == [one for one in seen if one.example_id in some]
    counts = Counter(one.task for one in seen)
    assert dict(counts) == checkpoint.read_record(folder).examples
    came = {row["id"] for row in token_data.rows["photos"][10:18]}
    assert {one.example_id for one in seen if one.task == "caption" and one.step >= 4} & came
    assert not [one for one in seen if one.step < 4 and one.example_id in came]

    assert waypoints.steps(run) == [3, 6, 9, 12, 15]
    check_sightings(run, root)
    # Waypoints of another order of examples, or none, are done without.
    other = json.loads(gzip.decompress((run / "waypoints" / "00000009.json.gz").read_bytes()))
    waypoints.keep(run, other | {"order": "0" * 64})
    (run / "waypoints" / "00000006.json.gz").write_bytes(b"damaged")
    check_sightings(run, root)
    shutil.rmtree(run / "waypoints")
    check_sightings(run, root)

    capsys.readouterr()
    assert main(["mixture", "ledger", "run", "--root", str(root), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [entry["step"] for entry in told["entries"]] == [0, 4, 8]
    assert told["proof"]["faults"] == []
    assert told["entries"][1]["rates"] == {"caption": pytest.approx(1 / 3), "act": pytest.approx(2 / 3)}
    assert told["entries"][1]["draws"] > 0
    assert list(told["entries"][1]["selections"]) == ["tokens/erased"]
    # Counters that were recorded and are not those of the draws are found.
    body = (run / "ledger.jsonl").read_bytes()
    (run / "ledger.jsonl").write_bytes(body.replace(b'"draws":', b'"draws":1', 1))
    with pytest.raises(IntegrityError, match="does not follow the line before it"):
        prove(run, str(root))


def test_changes_are_the_same_whenever_the_run_is_interrupted(small: Any, mixture: Mixture) -> None:
    root, config, _ = small
    curves = []
    for name, stops in (("calm", (4, 8)), ("killed", (4, 6, 8))):
        write_mixture(root, mixture, {"caption": 2, "read": 1})
        learn(config, root, name=name, steps=stops[0])
        write_mixture(root, mixture, {"caption": 1, "read": 5})
        for steps in stops[1:]:
            run = learn(config, root, name=name, steps=steps, on_change="continue")
        curves.append(curve(run))
        if name == "killed":
            # What came after the checkpoint is lost, a change that nobody trained with is taken back.
            shutil.rmtree(checkpoint.list_checkpoints(run)[-1])
            write_mixture(root, mixture, {"caption": 1, "read": 5, "paint": 1})
            learn(config, root, name=name, steps=7, on_change="continue")
            shutil.rmtree(checkpoint.list_checkpoints(run)[-1])
            write_mixture(root, mixture, {"caption": 1, "read": 5})
            learn(config, root, name=name, steps=8, on_change="continue")
            curves.append(curve(run))
            check_sightings(run, root)
            assert [change.step for change in changes([one.entry for one in Ledger(run).held()])] == [0, 4]
            assert prove(run, str(root))[1].faults == []
    assert curves[0] == curves[1] == curves[2]


def test_what_a_run_cannot_go_through_is_refused(small: Any, mixture: Mixture) -> None:
    from omnimill.training.runs.run import train

    root, config, _ = small
    write_mixture(root, mixture, {"caption": 2, "read": 1})
    learn(config, root, steps=2)
    body = yaml.safe_load((root / "mixture.yaml").read_text())
    for change, message in (
        ({"seed": 8}, "seed: was 7, is 8"),
        ({"window": 9}, "window: was 4, is 9"),
        (
            {"tasks": [{**body["tasks"][0], "prompts": ["tell me"]}, *body["tasks"][1:]]},
            "task 'caption': prompts: was .* needs another name",
        ),
    ):
        (root / "mixture.yaml").write_text(yaml.safe_dump({**body, **change}))
        with pytest.raises(ConfigError, match=message):
            train(config.model_copy(update={"steps": 4, "on_change": "continue"}), str(root))
    (root / "mixture.yaml").write_text(yaml.safe_dump(body))
    dataset = Dataset(str(root), "tokens")
    _, manifest = dataset.manifest()
    kept = [commit for commit in manifest.commits if commit.unit != "photos-1"]
    dataset.publish_manifest("tokens", kept, attributes=manifest.attributes)
    with pytest.raises(ConfigError, match=r"task 'caption': shard .* of unit photos-1 is not in the data any more"):
        train(config.model_copy(update={"steps": 4, "on_change": "continue"}), str(root))


def test_rates_that_follow_losses_are_replayed_from_the_ledger(small: Any, mixture: Mixture) -> None:
    root, config, _ = small
    write_mixture(root, mixture, {"caption": 2, "read": 1, "restore": 1})
    online = OnlineConfig(rule="skill_it", every=3, lag=8, eta=0.8)
    calm = learn(config, root, name="calm", steps=20, online=online)
    for steps in (7, 20):
        stopped = learn(config, root, name="stopped", steps=steps, online=online)
    assert curve(stopped) == curve(calm)
    entries = [one.entry for one in Ledger(calm).held()]
    decided = updates(entries)
    assert [(update.decided, update.step) for update in decided] == [(d, d + 8) for d in range(3, 20, 3)]
    assert [one.entry for one in Ledger(stopped).held()][1:] == entries[1:]
    # The task with the largest losses gains; and the draws of later steps show it.
    sums = {name: sum(update.losses[name] for update in decided[-3:]) for name in decided[-1].losses}
    weights = decided[-1].weights
    assert weights[max(sums, key=sums.__getitem__)] == max(weights.values()) > 1
    assert replayed(calm) == [line["plan"] for line in read_history(calm)]
    _, proof = prove(calm, str(root))
    assert proof.faults == []
    check_sightings(calm, root)
    plain = learn(config, root, name="plain", steps=20)
    assert curve(plain)[:11] == curve(calm)[:11]
    taken = [checkpoint.read_record(checkpoint.list_checkpoints(run)[-1]).plan["streams"] for run in (plain, calm)]
    assert taken[0] != taken[1]
