"""Units of the web that are done again: what came once stays, whatever has become of it since."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_server import ImageServer, serving

from omnimill.errors import BadRecord, IntegrityError, RecordDropped
from omnimill.infra.dataset import Commit, Dataset, Unit
from omnimill.pipelines.base import Record, VolatileSource
from omnimill.pipelines.careful import CarefulWalk
from omnimill.pipelines.operators.image import ImageResize, ImageSize
from omnimill.pipelines.process import process_unit
from omnimill.pipelines.replay import replay
from omnimill.pipelines.run import ingest
from omnimill.pipelines.sources.url_list import UrlListSource
from omnimill.schema import Example, Provenance, Text, example_id

# What answers first, what answers later, and whether the latter is seen.
STAYS = [f"/large/{i}.jpg" for i in range(6)]
DIES = ["/large/10.jpg", "/large/11.jpg", "/picture/12.jpg", "/robots/13.jpg?value=noai"]
HEALS = ["/large/20.jpg", "/large/21.jpg", "/picture/22.jpg", "/robots/23.jpg?value=noai"]
NEVER = ["/status/404/30.jpg", "/html/31.jpg"]


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with serving() as running:
        yield running


def mixed(server: ImageServer, path: Path) -> UrlListSource:
    """A list in which the kinds stand in turn, with a row that is never fetched at all."""
    kinds = [[*kind] for kind in (STAYS, HEALS, DIES, NEVER)]
    urls: list[str | None] = [server.url + kind.pop() for _ in range(6) for kind in kinds if kind]
    urls.insert(3, None)
    pq.write_table(pa.table({"url": urls, "caption": [f"caption {i}" for i in range(len(urls))]}), path)
    fetch = {"allow_networks": "127.0.0.1", "timeout_seconds": 5, "retries": 0}
    return UrlListSource.model_validate({"type": "url_list", "name": "web", "path": str(path), "fetch": fetch})


OPERATORS = (ImageSize(op="image_size", min_side=200), ImageResize(op="image_resize", short_side=128))


def outcome(commit: Commit) -> Any:
    return commit.shards, commit.drops, commit.quarantine, commit.counts, commit.inputs, commit.state


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_a_replay_fetches_what_was_quarantined_and_keeps_what_has_died_since(
    server: ImageServer, make_dag: Any, root: str, tmp_path: Path
) -> None:
    web = mixed(server, tmp_path / "list.parquet")
    dag = make_dag(web, operators=OPERATORS)
    (unit,) = web.units()
    undisturbed = process_unit(web, OPERATORS, unit, Dataset(str(tmp_path / "calm"), "made"))
    assert undisturbed.counts.examples_written == len(STAYS) + 4
    assert undisturbed.counts.examples_dropped == {"image_too_small": 2}
    assert undisturbed.counts.records_dropped == {"robots_opt_out": 2}
    assert sum(undisturbed.counts.quarantined.values()) == len(NEVER) + 1

    server.away = dict.fromkeys(HEALS, 503)
    first = ingest(dag, root)
    assert first.manifest.counts.quarantined["http_server_error"] == len(HEALS)
    server.away, hits = dict.fromkeys(DIES, 404), server.hits.copy()
    again = replay(dag, root, "http_server_error")
    assert again is not None
    assert server.hits - hits == dict.fromkeys(HEALS + NEVER, 1)
    (commit,) = again.manifest.commits
    assert outcome(commit) == outcome(undisturbed)
    assert Dataset(root, "made").manifest(first.digest)[1] == first.manifest
    hits = server.hits.copy()
    assert ingest(dag, root).digest == again.digest
    assert server.hits == hits


def test_replays_go_on_from_one_another_and_with_care(server: ImageServer, tmp_path: Path) -> None:
    web = mixed(server, tmp_path / "list.parquet")
    (unit,) = web.units()
    undisturbed = process_unit(web, OPERATORS, unit, Dataset(str(tmp_path / "calm"), "made"))
    dataset = Dataset(str(tmp_path / "root"), "made")
    server.away = dict.fromkeys(HEALS, 503)
    process_unit(web, OPERATORS, unit, dataset)
    server.away = dict.fromkeys(DIES, 404) | dict.fromkeys(HEALS[2:], 503)
    half = process_unit(web, OPERATORS, unit, dataset, attempts=(1,))
    assert half.counts.quarantined["http_server_error"] == 2
    server.away, hits = dict.fromkeys(STAYS + DIES + HEALS[:2], 404), server.hits.copy()
    walk = CarefulWalk(lambda place: None, {})
    assert outcome(process_unit(web, OPERATORS, unit, dataset, attempts=(2,), walk=walk)) == outcome(undisturbed)
    assert server.hits - hits == dict.fromkeys(HEALS[2:] + NEVER, 1)


class Web(VolatileSource):
    """Records ``fate text``: the place of each is its key. ends: the reader breaks off there; read: what was read."""

    type: Literal["web"] = "web"
    name: str = "web"
    selection = ("fates", "ends")
    fates: tuple[tuple[str, str], ...]
    ends: int = 1000

    def units(self) -> Iterator[Unit]:
        yield Unit(source=self.name, files=())

    def read(self, unit: Unit, settled: AbstractSet[str] = frozenset()) -> Iterator[Record]:
        for place, (fate, text) in enumerate(self.fates):
            if place == self.ends:
                raise ConnectionError("broke off")
            key = str(place)
            where = Provenance(uri=f"web/{key}", digest="")
            assert not (fate == "gone" and key not in settled), "it was there before"
            yield Record(key, where, partial(self._decode, unit, key, where, fate, text), b"x")

    def _decode(self, unit: Unit, key: str, where: Provenance, fate: str, text: str) -> Sequence[Example]:
        assert fate != "gone"
        if fate == "away":
            raise BadRecord("http_server_error", "503")
        if fate == "bad":
            raise BadRecord("not_an_image", text)
        if fate == "drop":
            raise RecordDropped("robots_opt_out")
        name = example_id(self.name, key, text)
        texts = [Text(role="body", text=text)]
        return [Example(id=name, source=self.name, unit=unit.id, key=key, provenance=where, text=texts)]


# Half of them make rows: of a large one and a small one, or of three small ones, a shard.
FATES = st.one_of(
    st.tuples(st.just("good"), st.sampled_from(["a text", "x" * 900])),
    st.tuples(st.sampled_from(["good", "drop", "bad"]), st.sampled_from(["", "ab", "spoiled"])),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(FATES, st.booleans()), max_size=30), ends=st.integers(0, 60), threads=st.integers(1, 3))
def test_what_failed_and_came_later_makes_the_undisturbed_unit(
    operators: Any, tmp_path_factory: pytest.TempPathFactory, rows: Any, ends: int, threads: int
) -> None:
    """Whatever is away at first, and wherever the reader breaks off; then, whatever was there is gone."""
    shortest, tagger = operators
    fates = tuple(fate for fate, _ in rows)
    away = tuple(("away", text) if is_away else (fate, text) for (fate, text), is_away in rows)
    unsettled = [is_away or place >= ends or fate == "bad" for place, ((fate, _), is_away) in enumerate(rows)]
    # The operator cannot measure "spoiled": such a record is quarantined and read again.
    unsettled = [one or fate == ("good", "spoiled") for one, fate in zip(unsettled, fates, strict=True)]
    later = tuple(fate if one else ("gone", "") for fate, one in zip(fates, unsettled, strict=True))

    root = tmp_path_factory.mktemp("root")

    def done(name: str, attempt: int, told: Any, end: int = 1000) -> Commit:
        source = Web(fates=told, ends=end)
        (unit,) = source.units()
        options: dict[str, Any] = {"threads": threads, "shard_bytes": 1500, "attempts": (attempt,)}
        with pytest.MonkeyPatch.context() as patch:
            # Batches of what is new are others than those of all.
            patch.setattr("omnimill.pipelines.verdicts.BATCH_EXAMPLES", 3)
            return process_unit(source, (tagger(), shortest()), unit, Dataset(str(root), name), **options)

    done("web", 0, away, ends)
    assert outcome(done("web", 1, later)) == outcome(done("calm", 0, fates))


def test_a_list_that_does_not_hold_what_was_kept_is_no_new_attempt(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path), "made")
    first = Web(fates=(("good", "a"), ("good", "b"), ("away", "c")))
    (unit,) = first.units()
    commit = process_unit(first, (), unit, dataset)
    with pytest.raises(IntegrityError, match="1 records that were kept or dropped did not come again"):
        process_unit(Web(fates=(("good", "a"),)), (), unit, dataset, attempts=(1,))
    assert [stored for stored, _ in dataset.commits()] == [commit]
