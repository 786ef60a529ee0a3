"""The catalog: what each dataset is, which task families it serves, and how it is ingested; one YAML per dataset."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from omnimill.config import Config, load_config
from omnimill.errors import ConfigError
from omnimill.registry import Registry

CATALOG = Path(__file__).with_name("catalog")
NOT_STATED = "not stated"
Modality = Literal["text", "sparse", "dense", "image", "audio", "image_history", "audio_history"]
_NAME = r"^[a-z0-9][a-z0-9_]*$"


def _whole(value: Any) -> Any:
    """A single number stands for a distribution of one value."""
    return {0: value, 100: value} if isinstance(value, int | float) else value


def _checked(values: Mapping[float, float]) -> Mapping[float, float]:
    points = sorted(values.items())
    if not points or points[0][0] != 0 or points[-1][0] != 100:
        raise ValueError("a distribution gives the values at 0 and 100 percent of the examples, and any between")
    found = [value for _, value in points]
    if found[0] < 0 or found != sorted(found):
        raise ValueError("the values of a distribution are not negative and do not fall")
    return dict(points)


Distribution = Annotated[Mapping[float, float], BeforeValidator(_whole), AfterValidator(_checked)]


class Lengths(Config):
    """How long a dataset's examples are, for plans that are made before it is tokenized.

    A distribution maps percent of the examples to the value that so many do not exceed, from 0 to 100, in rising order;
    between two of them it is a straight line. A single number stands for all examples.

    text: tokens of the text of a role, by role. images, clips: pictures and clips of sound in an example.
    sound: share of the examples that have clips at all; `clips` is of those.
    figure: where the numbers are from; ``estimate`` and what it rests on where nobody publishes them.
    """

    text: Mapping[str, Distribution] = {}
    images: Distribution = Field(default={0: 0, 100: 0})
    clips: Distribution = Field(default={0: 0, 100: 0})
    sound: float = Field(1.0, ge=0, le=1)
    figure: str = Field(min_length=1)


class Variant(Config):
    """One of several datasets that the reference makes of the same annotations for one family.

    gives: how it differs. form: as of :class:`FamilyUse`. sources: the entry's sources that hold it; empty: those of
    the family.
    """

    gives: str = Field(min_length=1)
    form: str | None = None
    sources: tuple[str, ...] = ()


def _variant(value: Any) -> Any:
    return {"gives": value} if isinstance(value, str) else value


class FamilyUse(Config):
    """What a dataset gives to one task family.

    gives: what it annotates, in a few words. examples: in one pass, None where nobody says; figure: where from, and
    what was counted.
    form: the form of the family (a family with ``part_of``) whose wording fits; None: the family itself.
    sources: the entry's sources that hold it; empty: all of them.
    variants: what the reference's table counts as a dataset each, by name; empty: the entry counts once.
    prompts, target: templates and target instead of the family's own, for datasets whose questions or answers have a
        manner or a role of their own.
    """

    gives: str = Field(min_length=1)
    examples: int | None = Field(None, ge=1)
    figure: str = NOT_STATED
    form: str | None = None
    sources: tuple[str, ...] = ()
    variants: Mapping[str, Annotated[Variant, BeforeValidator(_variant)]] = {}
    prompts: tuple[str, ...] = ()
    target: str | None = None

    @property
    def count(self) -> int:
        """How many datasets of the reference's table this is."""
        return len(self.variants) or 1

    @property
    def all_sources(self) -> tuple[str, ...]:
        """Every source that the family or a variant names."""
        return (*self.sources, *(name for variant in self.variants.values() for name in variant.sources))

    @model_validator(mode="after")
    def _figure_has_a_source(self) -> Self:
        if (self.examples is None) != (self.figure == NOT_STATED):
            raise ValueError(f"examples and figure go together; found {self.examples} and {self.figure!r}")
        return self


class Entry(Config):
    """One dataset.

    name: of the file without ``.yaml``, of the folder below ``${DATA}`` and of the dataset that its DAG makes.
    families: by name of the family.
    pretrain: its row in the reference's table of pre-training sources, if it has one.
    kind: what most of it is.
    licence: an SPDX id or the publisher's words; ``not stated`` if there are none.
    home: a page of its publisher. format: what the annotations are.
    files: what to put below ``${DATA}/<name>/`` as published, and what each is; ``../x/`` lies with another dataset.
    inputs, outputs: what its tasks read and write; empty: what its families do.
    dag: name of its DAG in ``pipelines/dags/pretrain``; `dag_sources`: the names of its sources, where they are not
        that of the entry.
    sources: where there is no `dag`, the entries of one, word for word.
    published: whether the reference names a public dataset. Not where it made the data itself, or names none: `note`
        then says what stands in.
    """

    name: str = Field(pattern=_NAME)
    title: str = Field(min_length=1)
    families: Mapping[str, FamilyUse] = {}
    pretrain: str | None = None
    kind: Literal["text", "pictures", "documents", "video", "sound", "views", "trajectories"]
    licence: str = Field(min_length=1)
    home: str | None = Field(None, pattern=r"^https?://\S+$")
    format: str = Field(min_length=1)
    files: Mapping[str, str] = Field(min_length=1)
    inputs: tuple[Modality, ...] = ()
    outputs: tuple[Modality, ...] = ()
    lengths: Lengths | None = None
    dag: str | None = None
    dag_sources: tuple[str, ...] = ()
    sources: tuple[dict[str, Any], ...] = ()
    published: bool = True
    note: str | None = None

    @property
    def folder(self) -> str:
        """Where its files lie, for people."""
        return f"${{DATA}}/{self.name}"

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names of its sources in the dataset, in mixtures and in lineage."""
        return tuple(str(source.get("name")) for source in self.sources) or self.dag_sources or (self.name,)

    def sources_of(self, family: str) -> tuple[str, ...]:
        """Names of the sources that a task of this family reads."""
        return self.families[family].sources or self.source_names

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.dag) == bool(self.sources):
            raise ValueError("an entry has either a dag or sources")
        if not self.families and not self.pretrain:
            raise ValueError("an entry serves a family, or is a row of the pre-training table")
        if not self.published and not self.note:
            raise ValueError("a dataset that is not published needs a note that says so, and what stands in")
        for family, use in self.families.items():
            unknown = sorted(set(use.all_sources) - set(self.source_names))
            if unknown:
                allowed = ", ".join(self.source_names)
                raise ValueError(f"{family}: unknown sources {', '.join(unknown)}; allowed: {allowed}")
        return self


def load_entry(path: str | Path) -> Entry:
    """An entry from its file. ``${NAME}`` in it stays as it is, for the DAG that it becomes a part of.

    Raises:
        ConfigError: the file does not fit, or is not called what the entry is.
    """
    entry = load_config(path, Entry, expand=False)
    if Path(path).stem != entry.name:
        raise ConfigError(f"{path}:1: name: found {entry.name!r}, allowed: {Path(path).stem!r}, as the file is called")
    return entry


@cache
def catalog(folder: Path = CATALOG) -> Mapping[str, Entry]:
    """All entries, by name, in alphabetical order.

    Raises:
        ConfigError: a file does not fit, or two entries claim one row of the pre-training table or one source's name.
    """
    entries: Registry[Entry] = Registry("dataset")
    owners: dict[str, str] = {}
    for path in sorted(folder.glob("*.yaml")):
        entry = load_entry(path)
        entries.register(entry.name)(entry)
        claims = [*entry.source_names, *([f"the table's row {entry.pretrain}"] if entry.pretrain else [])]
        for claim in claims:
            if owners.setdefault(claim, entry.name) != entry.name:
                raise ConfigError(f"{path}:1: {claim} belongs to {owners[claim]} already; names must differ")
    return entries


def find(name: str) -> Entry:
    """An entry of the catalog.

    Raises:
        ConfigError: there is none of the name.
    """
    entries = catalog()
    if name not in entries:
        near = ", ".join(difflib.get_close_matches(name, entries, n=3)) or "see `omnimill catalog list`"
        raise ConfigError(f"no dataset {name!r} in the catalog; did you mean: {near}")
    return entries[name]


def by_family(family: str) -> dict[str, Entry]:
    """The entries that serve a family, by name."""
    return {name: entry for name, entry in catalog().items() if family in entry.families}
