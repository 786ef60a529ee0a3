"""The versions of token datasets that a mixture is over, and what selections and erasures leave out of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import SerializerFunctionWrapHandler, model_serializer

from omnimill.config import Config
from omnimill.errors import ConfigError, IntegrityError
from omnimill.infra import arrow_files
from omnimill.infra.dataset import Commit, Dataset, FileRef, Manifest
from omnimill.infra.erasures import erased_rows, register
from omnimill.infra.selections import current_selections, left_out, load_selection
from omnimill.infra.settling import settled
from omnimill.mixtures.config import Mixture
from omnimill.tokens import TokenLayout

Int64s = npt.NDArray[np.int64]


class DatasetVersion(Config):
    """A version of a token dataset: the digest of its manifest."""

    name: str
    manifest: str


class AppliedSelection(Config):
    """A selection of a token dataset, or of examples that one was made from."""

    name: str
    dataset: str
    digest: str


class Versions(Config):
    """What decides which rows there are.

    erasures: requests (`omnimill.infra.erasures`) that mean rows of these versions, by digest; written when there are
    any.
    """

    datasets: tuple[DatasetVersion, ...]
    selections: tuple[AppliedSelection, ...] = ()
    erasures: tuple[str, ...] = ()

    @model_serializer(mode="wrap")
    def _without_no_erasures(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = dump(self)
        if not self.erasures:
            body.pop("erasures", None)
        return body

    def without_erasures(self) -> Versions:
        """The same, with nothing erased."""
        return self.model_copy(update={"erasures": ()})


@dataclass(frozen=True)
class TokenData:
    """Opened versions. rows_out: rows that selections leave out, by shard digest. ids_out: ids of examples left out,
    sorted. erased: rows that are erased, by shard digest.

    name: digest of the versions, whatever is erased of them; None where they have none, and what is found in them is
    not kept.
    """

    root: str
    manifests: tuple[Manifest, ...]
    rows_out: Mapping[str, Int64s] = field(default_factory=dict)
    ids_out: pa.Array | None = None
    name: str | None = None
    erased: Mapping[str, Int64s] = field(default_factory=dict)

    @property
    def layout(self) -> TokenLayout:
        """What the numbers mean in all of them."""
        return TokenLayout.model_validate(self.manifests[0].attributes["layout"])

    @property
    def sources(self) -> list[str]:
        return sorted({commit.source for manifest in self.manifests for commit in manifest.commits})

    def shards(self) -> Iterator[tuple[Commit, FileRef, str]]:
        """Every shard with its URL, in the order of the mixture's datasets and of their manifests."""
        for manifest in self.manifests:
            dataset = Dataset(self.root, manifest.dataset)
            for commit in manifest.commits:
                for ref in commit.shards:
                    yield commit, ref, dataset.shard_url(ref)

    def left_out(self, shard: str, url: str | None) -> Int64s:
        """Rows of a shard that selections leave out, sorted; by their numbers alone where there is no URL to read."""
        by_row = self.rows_out.get(shard, np.empty(0, np.int64))
        if url is None or self.ids_out is None or not len(self.ids_out):
            return by_row
        return np.union1d(by_row, _rows_of(url, self.ids_out))

    def gone(self, shard: str, url: str | None) -> Int64s:
        """Rows of a shard that are left out or erased, sorted; without a URL as :meth:`left_out`."""
        out = self.left_out(shard, url)
        return np.union1d(out, self.erased[shard]) if shard in self.erased else out


def current_versions(root: str, mixture: Mixture) -> Versions:
    """The current versions of a mixture's datasets, its selections as they judged those, and what is erased by now.

    Raises:
        ConfigError: neither the datasets at these versions nor the examples that they were made from have such a
            selection.
        OmnimillError: there is no such dataset.
    """
    found = [(name, *Dataset(root, name).manifest()) for name in mixture.datasets]
    selections = tuple(one for name in mixture.selections for one in _selection(root, name, found))
    versions = Versions(
        datasets=tuple(DatasetVersion(name=name, manifest=digest) for name, digest, _ in found), selections=selections
    )
    return _less_erased(root, versions, {digest: manifest for _, digest, manifest in found})


def less_erased(root: str, versions: Versions) -> Versions:
    """Versions less what is erased by now, which may be more than when they were recorded.

    Raises:
        OmnimillError: one of them is not there.
    """
    if not register(root):
        return versions
    found = {one.manifest: Dataset(root, one.name).manifest(one.manifest)[1] for one in versions.datasets}
    return _less_erased(root, versions, found)


def _less_erased(root: str, versions: Versions, manifests: Mapping[str, Manifest]) -> Versions:
    requests: set[str] = set()
    for one in versions.datasets:
        manifest = manifests[one.manifest]
        erased = settled(Dataset(root, one.name), one.manifest, manifest)
        shards = {ref.digest for commit in manifest.commits for ref in commit.shards}
        requests.update(*(erased.requests(shard) for shard in erased.shards() if shard in shards))
    return versions.model_copy(update={"erasures": tuple(sorted(requests))})


def open_versions(root: str, versions: Versions) -> TokenData:
    """Read manifests and selections.

    Raises:
        ConfigError: a dataset holds no tokens, or the datasets do not fit together: a source is in two of them, or
            their layouts differ.
    """
    manifests = tuple(Dataset(root, one.name).manifest(one.manifest)[1] for one in versions.datasets)
    _check(root, manifests)
    rows: dict[str, list[Int64s]] = {}
    ids: list[pa.Array] = []
    tokens = {one.name for one in versions.datasets}
    for one in versions.selections:
        dataset = Dataset(root, one.dataset)
        digest, selection = load_selection(dataset, one.digest)
        if digest != one.digest:
            raise IntegrityError(f"selection {one.digest[:12]} of {one.dataset!r} is damaged: it hashes to {digest}")
        for part in selection.shards:
            table = left_out(dataset, part.file)
            if one.dataset in tokens:
                rows.setdefault(part.shard, []).append(table.column("row").to_numpy())
            else:
                ids.append(table.column("id").combine_chunks())
    merged = {shard: np.unique(np.concatenate(parts)).astype(np.int64) for shard, parts in rows.items()}
    ids_out = pa.array(pc.unique(pa.concat_arrays(ids))) if ids else None
    name = versions.without_erasures().content_digest()
    return TokenData(root, manifests, merged, ids_out, name, _erased(root, manifests, versions.erasures))


def _erased(root: str, manifests: Sequence[Manifest], requests: Sequence[str]) -> dict[str, Int64s]:
    """Rows of shards that requests mean, by shard."""
    found: dict[str, Int64s] = {}
    for manifest in manifests if requests else ():
        erased = erased_rows(Dataset(root, manifest.dataset))
        for shard in erased.shards():
            if len(rows := erased.rows(shard, requests)):
                found[shard] = rows
    return found


def _selection(root: str, name: str, datasets: Sequence[tuple[str, str, Manifest]]) -> list[AppliedSelection]:
    """A selection by name: of every dataset that has one so called, or of the examples behind it."""
    found: dict[str, AppliedSelection] = {}
    known: set[str] = set()
    for token_name, digest, manifest in datasets:
        for owner, version in ((token_name, digest), *manifest.parents.items()):
            dataset = Dataset(root, owner)
            names = {selection.name for _, selection in current_selections(dataset, version)}
            known |= names
            if name in names:
                found[owner] = AppliedSelection(name=name, dataset=owner, digest=load_selection(dataset, name)[0])
    if not found:
        allowed = ", ".join(sorted(known)) or "none, for no selection judged these versions"
        raise ConfigError(
            f"selections: found {name!r}, which neither {', '.join(one for one, *_ in datasets)} nor the examples that "
            f"they were made from have at these versions; allowed: {allowed}"
        )
    return list(found.values())


def _check(root: str, manifests: Sequence[Manifest]) -> None:
    for manifest in manifests:
        if manifest.kind != "tokens":
            raise ConfigError(
                f"dataset {manifest.dataset!r} under {root} holds {manifest.kind}, a mixture needs tokens: "
                "`omnimill tokenize` makes them"
            )
    first = manifests[0]
    for manifest in manifests[1:]:
        if manifest.attributes["layout"] != first.attributes["layout"]:
            raise ConfigError(
                f"datasets {first.dataset!r} and {manifest.dataset!r} have other token layouts: what their numbers "
                "mean differs; tokenize both with the same tokenizers"
            )
    sources = Counter(source for manifest in manifests for source in {commit.source for commit in manifest.commits})
    if doubled := sorted(source for source, count in sources.items() if count > 1):
        raise ConfigError(f"sources must have one dataset each; in several: {', '.join(doubled)}")


def _rows_of(url: str, ids: pa.Array) -> Int64s:
    """Rows of a shard whose examples have these ids."""
    mask = pc.is_in(arrow_files.read_table(url).column("id"), ids).to_numpy(zero_copy_only=False)
    return np.flatnonzero(mask).astype(np.int64)
