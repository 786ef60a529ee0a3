"""Examples survive Arrow, and a reader refuses a version that it does not know."""

from dataclasses import asdict, fields

import pyarrow as pa
import pytest

from omnimill import schema
from omnimill.errors import IntegrityError
from omnimill.locations import spherical_views


def full_example() -> schema.Example:
    return schema.Example(
        id=schema.example_id("films", "a.mp4#0", "00"),
        source="films",
        unit="films-1",
        key="a.mp4#0",
        provenance=schema.Provenance(uri="a.mp4", digest="00", offset=3, length=9),
        text=[schema.Text(role="transcript", text="héllo", image=0, audio=0, start=0.5, end=1.5)],
        images=[schema.Image(data=b"\xff\xd8", format="jpeg", width=4, height=3, digest="11", time=2.04)],
        audio=[schema.Audio(data=b"fLaC", format="flac", sample_rate=16000, channels=1, samples=9, digest="22")],
        video=schema.Video(
            uri="a.mp4",
            digest="00",
            width=4,
            height=3,
            seconds=20.4,
            frame_rate=9.99,
            segment_seconds=4.08,
            first_segment=0,
            segments=1,
        ),
        trajectory=schema.Trajectory(
            episode="e",
            first_step=2,
            steps_per_second=5.0,
            state_names=["x"],
            action_names=["dx"],
            states=[[0.5]],
            actions=[[0.25]],
            step_images=[None],
        ),
        views=spherical_views([(0.1, -0.2, 1.5)]),
        annotations=[schema.Annotation(kind="box", image=0, label="cat", box=[0.0, 0.0, 1.0, 0.5])],
        meta=schema.Meta(licence="CC0", language="fr", scores={"blur": 3.0, "a": 1.0}, tags={"split": "val", "b": "c"}),
    )


def test_round_trip_through_arrow() -> None:
    empty = schema.Example(
        id="0" * 32, source="s", unit="u", key="k", provenance=schema.Provenance(uri="x", digest="y")
    )
    examples = [full_example(), empty]
    table = schema.to_table(examples)
    assert [schema.from_row(row) for row in table.to_pylist()] == examples
    assert table.column("video").null_count == 1


def test_tables_are_what_arrow_makes_of_the_same_rows() -> None:
    short = schema.Example(id="0", source="s", unit="u", key="k", provenance=schema.Provenance(uri="x", digest="y"))
    short.text = [schema.Text(role="body", text="a"), schema.Text(role="body", text="b", audio=3)]
    for examples in ([], [short], [full_example(), short, full_example()]):
        rows = [asdict(example) for example in examples]
        for row in rows:
            row["meta"] |= {name: sorted(row["meta"][name].items()) for name in ("scores", "tags")}
        table = schema.to_table(examples)
        table.validate(full=True)
        assert table.equals(pa.Table.from_pylist(rows, schema=schema.EXAMPLE_SCHEMA), check_metadata=True)


def test_dataclasses_and_arrow_name_the_same_columns() -> None:
    assert {f.name for f in fields(schema.Example)} == set(schema.EXAMPLE_SCHEMA.names)


def test_other_schema_versions_are_refused() -> None:
    newer = schema.EXAMPLE_SCHEMA.with_metadata({schema.VERSION_KEY: b"99"})
    with pytest.raises(IntegrityError, match=f"version 99, but this omnimill reads version {schema.SCHEMA_VERSION}"):
        schema.check_example_schema(newer, "shard x")
    with pytest.raises(IntegrityError, match="version none"):
        schema.check_example_schema(pa.schema([("id", pa.string())]), "shard x")
    schema.check_example_schema(schema.EXAMPLE_SCHEMA, "shard x")


def test_example_ids_depend_on_every_part() -> None:
    ids = {schema.example_id(*parts) for parts in [("a", "b", "c"), ("a", "bc", ""), ("ab", "", "c"), ("a", "b", "d")]}
    assert len(ids) == 4
