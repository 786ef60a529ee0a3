"""What is erased: the rules that decide, and versions that were there before, which lose rows wherever they went."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import IntegrityError
from omnimill.infra import settling
from omnimill.infra.dataset import Commit, Counts, Dataset, InputRef
from omnimill.infra.erasure_rules import Kind, Rules, addresses
from omnimill.infra.erasures import Erasure, erased_rows, publish, register
from omnimill.infra.settling import settled
from omnimill.infra.verify import garbage, verify
from omnimill.schema import Audio, Example, Image, Meta, Provenance, Video, example_id, to_table

HOSTS = ("a.org", "www.a.org", "b.org", "xa.org")
URLS = st.sampled_from([f"https://{host}/{i}" for host in HOSTS for i in range(2)] + ["/in/a.jpg", "file:///in/a.jpg"])
DIGESTS = st.sampled_from([blake3(bytes([i])).hexdigest() for i in range(4)])


def digest_of(text: str) -> str:
    return blake3(text.encode()).hexdigest()


def example(
    source: str, key: str, uri: str, *, url: str | None = None, licence: str | None = None, media: str | None = None
) -> Example:
    """An example of one picture, whose digest is that of `media` (the key's when None)."""
    digest = digest_of(media or key)
    image = Image(data=b"data of " + key.encode(), format="png", width=1, height=1, digest=digest, uri=uri)
    return Example(
        id=example_id(source, key, digest),
        source=source,
        unit="u",
        key=key,
        provenance=Provenance(uri=uri, digest=digest_of(f"record {key}")),
        images=[image],
        meta=Meta(url=url, licence=licence),
    )


EXAMPLES = st.builds(
    lambda i, uri, digest, url, licence, media, film: Example(
        id=digest_of(str(i))[:32],
        source=f"s{i % 2}",
        unit="u",
        key=str(i),
        provenance=Provenance(uri=uri, digest=digest),
        images=[Image(data=b"", format="png", width=1, height=1, digest=one, uri=at) for one, at in media],
        audio=[
            Audio(data=b"", format="wav", sample_rate=1, channels=1, samples=1, digest=d, uri=u) for d, u in media[1:]
        ],
        video=None
        if film is None
        else Video(
            uri=film,
            digest=digest,
            width=1,
            height=1,
            seconds=1,
            frame_rate=1,
            segment_seconds=1,
            first_segment=0,
            segments=1,
        ),
        meta=Meta(url=url, licence=licence),
    ),
    st.integers(0, 5),
    URLS,
    DIGESTS,
    st.none() | URLS,
    st.none() | st.sampled_from(["CC-BY-4.0", "CC0-1.0"]),
    st.lists(st.tuples(DIGESTS, st.none() | URLS), max_size=3),
    st.none() | URLS,
)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "id": st.tuples(st.integers(0, 5).map(lambda i: digest_of(str(i))[:32])),
        "uri": st.tuples(URLS.map(lambda url: url.removeprefix("file://"))),
        "digest": st.tuples(DIGESTS),
        "domain": st.tuples(st.sampled_from([*HOSTS, "org"])),
        "licence": st.tuples(st.sampled_from(["CC-BY-4.0", "CC0-1.0"])),
        "source": st.tuples(st.sampled_from(["s0", "s1"])),
    },
)


@settings(max_examples=60)
@given(st.lists(EXAMPLES, min_size=1, max_size=6), RULES)
def test_a_record_that_comes_in_and_a_stored_row_are_judged_alike(
    examples: list[Example], rules: dict[Kind, tuple[str, ...]]
) -> None:
    judge = Rules([rules])
    expected = [row for row, one in enumerate(examples) if judge.example(one)]
    assert judge.rows(to_table(examples)).tolist() == expected
    assert bool(rules) or not expected


def test_a_domain_is_not_one_that_ends_alike_and_a_path_is_known_by_each_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = Rules([{"domain": ("a.org",)}])
    assert [rules.address(f"https://{host}/x") for host in HOSTS] == [True, True, False, False]
    assert not rules.address("/a.org/x") and not rules.address(None)
    monkeypatch.chdir(tmp_path)
    for query in ("in/a.jpg", "./in/a.jpg", str(tmp_path / "in" / "a.jpg"), f"file://{tmp_path}/in/a.jpg"):
        named = Rules([{"uri": addresses(query)}])
        assert named.address(f"file://{tmp_path}/in/a.jpg") and named.address("in/a.jpg"), query
        assert not named.address("in/b.jpg")


class World:
    """Examples of two units, a dataset derived from the first, and tokens of both."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.pictures, self.made, self.tokens = (Dataset(self.root, name) for name in ("pictures", "made", "tokens"))
        self.rows = [
            [
                example("web", "a", "https://a.org/1.jpg", licence="CC-BY-4.0"),
                example("web", "b", "https://b.org/1.jpg", url="https://www.a.org/page"),
                example("web", "c", "https://b.org/2.jpg"),
            ],
            [example("web", "d", "https://c.org/1.jpg", media="a"), example("web", "e", "https://c.org/2.jpg")],
        ]
        shards = [self.pictures.publish_shard(to_table(rows)) for rows in self.rows]
        self.commits = [self.commit(f"u{i}", shard.rows, (shard,), ()) for i, shard in enumerate(shards)]
        self.digest, self.manifest = self.pictures.publish_manifest("examples", self.commits)
        # Of every picture of the first unit two questions: the picture is shown, the key is one's own or the picture's.
        first = self.rows[0]
        asked = [example("asked", one.id, one.provenance.uri, media=one.key) for one in first]
        asked += [example("asked", f"{one.key}?", "/made/here", media=one.key) for one in first]
        self.asked = asked
        shard = self.made.publish_shard(to_table(asked))
        derived = self.commit("m", len(asked), (shard,), (self.commits[0].shards[0],))
        self.made_digest, self.made_manifest = self.made.publish_manifest(
            "examples", [derived], {"pictures": self.digest}
        )
        self.token_versions = [
            self.tokenized(self.commits, {"pictures": self.digest}),
            self.tokenized([derived], {"made": self.made_digest}),
        ]

    def commit(self, unit: str, rows: int, shards: tuple, inputs: tuple) -> Commit:  # type: ignore[type-arg]
        refs = tuple(InputRef(uri=f"x/shards/{ref.digest}.arrow", digest=ref.digest, bytes=1) for ref in inputs)
        counts = Counts(records_in=rows, kept=rows, examples_written=rows)
        return Commit(unit=unit, source="web", recipe="r", inputs=refs, shards=shards, counts=counts)

    def tokenized(self, commits: list[Commit], parents: dict[str, str]) -> tuple[str, list[str]]:
        """A token version, each unit's rows backwards: its digest, and its ids in order."""
        made, ids = [], []
        (name,) = parents
        for number, commit in enumerate(commits):
            (shard,) = commit.shards
            own = Dataset(self.root, name).read(shard).column("id").to_pylist()[::-1]
            ids += own
            ref = self.tokens.publish_shard(pa.table({"id": own, "source": ["web"] * len(own), "key": own}))
            made.append(self.commit(f"{name}-{number}", len(own), (ref,), (shard,)))
        return self.tokens.publish_manifest("tokens", made, parents)[0], ids

    def erase(self, **rules: tuple[str, ...]) -> str:
        known: dict[Kind, tuple[str, ...]] = dict(rules)  # type: ignore[arg-type]
        request = Erasure(
            queries=("q",), by="me", at=f"2026-01-0{len(register(self.root).erasures) + 1}", reason="asked", rules=known
        )
        return publish(self.root, request)

    def left(self, dataset: Dataset, digest: str) -> list[str]:
        """Ids of the rows that readers of a version see."""
        manifest = dataset.manifest(digest)[1]
        erased = settled(dataset, digest, manifest)
        found = []
        for ref in (ref for commit in manifest.commits for ref in commit.shards):
            gone = set(erased.rows(ref.digest).tolist())
            found += [id_ for row, id_ in enumerate(dataset.read(ref).column("id").to_pylist()) if row not in gone]
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_nothing_is_written_or_left_out_while_nothing_is_erased(world: World) -> None:
    assert len(world.left(world.pictures, world.digest)) == 5
    assert not register(world.root)
    assert not (Path(world.pictures.url) / "erased").exists()


@pytest.mark.parametrize(
    ("rules", "keys"),
    [
        ({"uri": ("https://a.org/1.jpg",)}, "a"),
        ({"digest": (digest_of("a"),)}, "ad"),
        ({"domain": ("a.org",)}, "ab"),
        ({"licence": ("CC-BY-4.0",)}, "a"),
        ({"id": (example("web", "c", "").id,)}, "c"),
    ],
)
def test_rows_go_with_all_that_was_made_of_them(world: World, rules: dict[str, tuple[str, ...]], keys: str) -> None:
    world.erase(**rules)
    gone = {one.id for rows in world.rows for one in rows if one.key in keys}
    assert set(world.left(world.pictures, world.digest)) == {one.id for rows in world.rows for one in rows} - gone
    derived = {one.id for one in world.asked if one.key in gone or one.key.removesuffix("?") in keys}
    assert len(derived) >= 2
    assert set(world.left(world.made, world.made_digest)) == {one.id for one in world.asked} - derived
    for digest, ids in world.token_versions:
        assert world.left(world.tokens, digest) == [id_ for id_ in ids if id_ not in gone | derived]


def test_a_whole_input_file_or_source(world: World) -> None:
    world.erase(input=(world.commits[0].shards[0].digest,))
    assert world.left(world.made, world.made_digest) == []
    assert len(world.left(world.pictures, world.digest)) == 5
    world.erase(source=("web",))
    assert world.left(world.pictures, world.digest) == []
    assert [world.left(world.tokens, digest) for digest, _ in world.token_versions] == [[], []]


def test_a_version_is_looked_through_once_for_each_request(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.erase(domain=("a.org",))
    digest, ids = world.token_versions[0]
    left = world.left(world.tokens, digest)
    looked = []
    real = settling._lost
    monkeypatch.setattr(settling, "_lost", lambda *a: (looked.append((a[0].name, a[3])), real(*a))[1])
    assert world.left(world.tokens, digest) == left
    assert looked == []
    second = world.erase(id=(ids[0],))
    assert ids[0] not in world.left(world.tokens, digest)
    assert looked == [("pictures", second), ("tokens", second)]
    # A later version that has the same shards, and one more: nobody told it of the requests.
    shard = world.pictures.publish_shard(
        to_table([example("web", "f", "https://a.org/9.jpg"), example("web", "g", "/g")])
    )
    later, _ = world.pictures.publish_manifest("examples", [*world.commits, world.commit("u9", 2, (shard,), ())])
    left = world.left(world.pictures, later)
    assert example("web", "g", "/g").id in left
    assert len(left) == 7 - len({"a", "b", "f"}) - (1 if ids[0] not in {one.id for one in world.rows[0][:2]} else 0)
    assert {request for request, _ in [(first, 0), (second, 0)]} == erased_rows(world.pictures).looked_for[later]


def test_readers_can_be_told_what_was_in_force_at_a_time(world: World) -> None:
    first, second = world.erase(domain=("a.org",)), world.erase(licence=("CC-BY-4.0",))
    erased = settled(world.pictures, world.digest, world.manifest)
    shard = world.commits[0].shards[0].digest
    assert erased.rows(shard).tolist() == erased.rows(shard, [first]).tolist() == [0, 1]
    assert erased.rows(shard, [second]).tolist() == [0]
    assert erased.rows(shard, []).tolist() == []
    assert erased.requests(shard) == {first, second}
    assert list(register(world.root).erasures) == [first, second]


def test_what_was_found_stays_erased_in_a_copy_without_the_requests(world: World, tmp_path: Path) -> None:
    world.erase(domain=("a.org",))
    left = world.left(world.pictures, world.digest)
    copy = tmp_path / "copy"
    shutil.copytree(world.pictures.url, copy / "pictures")
    assert world.left(Dataset(str(copy), "pictures"), world.digest) == left


def test_its_files_are_kept_and_held_to_their_names(world: World) -> None:
    request = world.erase(domain=("a.org",))
    world.left(world.tokens, world.token_versions[0][0])
    assert garbage(world.root, grace=0) == []
    report = verify(world.root)
    assert (report.faults, report.orphans) == ([], [])
    (settlement,) = (Path(world.pictures.url) / "erased").glob("*.json")
    settlement.write_bytes(settlement.read_bytes().replace(b'"rows":2', b'"rows":1', 1))
    assert [fault.kind for fault in verify(world.root).faults] == ["altered"]
    url = Path(world.root) / "erasures" / f"{request}.json"
    url.rename(url.with_name(f"{'0' * 64}.json"))
    with pytest.raises(IntegrityError, match="a request was changed"):
        register(world.root)
