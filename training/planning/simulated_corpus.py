"""What a simulation draws from: token datasets where they are there, else rows as the catalog describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from omnimill.infra import storage
from omnimill.infra.dataset import Dataset
from omnimill.mixtures.config import Mixture, in_examples
from omnimill.mixtures.course import new_course
from omnimill.mixtures.rows import TaskRows
from omnimill.mixtures.timeline import Timeline
from omnimill.mixtures.versions import current_versions, open_versions
from omnimill.tokenizers.store import load_text
from omnimill.tokens import TokenLayout
from omnimill.training.planning.block_planner import Measure
from omnimill.training.planning.corpus_reads import SourceSize
from omnimill.training.planning.lengths import Budgets
from omnimill.training.planning.row_measure import RowMeasure
from omnimill.training.planning.task_tokens import mean_tokens, shares_of_draws
from omnimill.training.planning.virtual_rows import VirtualMeasure, VirtualRows, entries_by_source
from omnimill.training.rendering.forms import bulk_lengths, make_recipes
from omnimill.training.rendering.prompt_text import CountedText
from omnimill.training.rendering.settings import RenderSettings
from omnimill.training.runs.backbones import render_for
from omnimill.training.runs.config import BackboneSettings

# What stands in for the size of shards and of what is in them, where there are none: a JPEG of the input canvas, a
# segment of sound as FLAC.
_SHARD_BYTES, _PICTURE_BYTES, _CLIP_BYTES = 1 << 28, 40_000, 80_000
_SAMPLE = 1000


@dataclass(frozen=True)
class RenderFor:
    """Render settings that follow a backbone, if there is one, in the number of latents."""

    settings: RenderSettings
    backbone: BackboneSettings | None

    def of(self, layout: TokenLayout) -> RenderSettings:
        """The settings for token datasets of a layout."""
        return self.settings if self.backbone is None else render_for(self.settings, self.backbone.resolve(layout))


@dataclass(frozen=True)
class Corpus:
    """mixture: with rates of examples, and without caps, so that a plan shows what would go beyond them.

    rows: of its tasks. sizes: of each task, its sources. estimated: sources of which nobody states the lengths.
    """

    mixture: Mixture
    rows: Sequence[TaskRows | VirtualRows]
    timeline: Timeline
    measure: Measure
    sizes: list[list[SourceSize]]
    virtual: bool
    estimated: list[str]


def open_corpus(mixture: Mixture, root: str, streams: int, budgets: Budgets, render: RenderFor) -> Corpus:
    """Open the datasets under `root`, if all of them are there.

    Raises:
        ConfigError: a task does not fit the data, the catalog or the budgets.
    """
    free = mixture.model_copy(
        update={"tasks": tuple(task.model_copy(update={"max_epochs": None}) for task in mixture.tasks)}
    )
    there = all(dataset_exists(root, name) for name in mixture.datasets)
    if there:
        return _tokenized(free, root, streams, budgets, render)
    return _described(free, streams, budgets, render)


def dataset_exists(root: str, name: str) -> bool:
    """Whether there is a version of a dataset under `root`."""
    return storage.exists(storage.join(Dataset(root, name).url, "manifest.json"))


def _tokenized(mixture: Mixture, root: str, streams: int, budgets: Budgets, render: RenderFor) -> Corpus:
    course = new_course(root, mixture, streams)
    recipes = make_recipes(mixture, course.layout, load_text(root, course.layout), render.of(course.layout), budgets)
    measure = RowMeasure(course.rows, bulk_lengths(recipes))
    drawn = shares_of_draws(mixture, course.rows, recipes)
    timeline = course.timeline if drawn is mixture else Timeline.of(drawn, [len(rows) for rows in course.rows], streams)
    known = _stored(root, mixture)
    sizes = [[known[source] for source in rows.sizes] for rows in course.rows]
    return Corpus(drawn, course.rows, timeline, measure, sizes, False, [])


def _described(mixture: Mixture, streams: int, budgets: Budgets, render: RenderFor) -> Corpus:
    layout = TokenLayout(tokenizers="none", digests={})
    entries = entries_by_source()
    rows = [VirtualRows(task, entries, layout) for task in mixture.tasks]
    recipes = make_recipes(mixture, layout, CountedText(layout.text_pieces), render.of(layout), budgets)
    measure = VirtualMeasure(rows, bulk_lengths(recipes))
    drawn = in_examples(mixture, mean_tokens(mixture, measure, [len(one) for one in rows]))
    sizes = [[_guessed(source, size, one) for source, size in one.sizes.items()] for one in rows]
    estimated = sorted({source for one in rows for source in one.estimated})
    timeline = Timeline.of(drawn, [len(one) for one in rows], streams)
    return Corpus(drawn, rows, timeline, measure, sizes, True, estimated)


def _stored(root: str, mixture: Mixture) -> Mapping[str, SourceSize]:
    """Sizes of the datasets' sources."""
    found: dict[str, SourceSize] = {}
    for manifest in open_versions(root, current_versions(root, mixture)).manifests:
        for commit in manifest.commits:
            before = found.get(commit.source, SourceSize(commit.source, 0, 0, 0))
            found[commit.source] = SourceSize(
                commit.source,
                before.rows + sum(shard.rows for shard in commit.shards),
                before.shards + len(commit.shards),
                before.bytes + sum(shard.bytes for shard in commit.shards),
            )
    return found


def _guessed(source: str, size: int, rows: VirtualRows) -> SourceSize:
    """The size of a described source, from some of its rows: ids of text in four bytes each, codes in two, media."""
    names = list(rows.sizes)
    first = sum(rows.sizes[name] for name in names[: names.index(source)])
    batch = rows.batch(first + np.arange(_SAMPLE) * size // _SAMPLE)
    whole = (
        4 * int(batch.texts.columns["lengths"].sum())
        + int(batch.pictures.offsets[-1]) * _PICTURE_BYTES
        + int(batch.clips.offsets[-1]) * _CLIP_BYTES
        + 2 * sum(int(lists.columns["codes"].sum()) for lists in (batch.pictures, batch.clips, batch.targets))
    )
    total = max(round(whole / _SAMPLE * size), 1)
    return SourceSize(source, size, -(-total // _SHARD_BYTES), total)
