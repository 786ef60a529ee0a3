"""MagicBrush: pictures that were edited by hand, step by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from blake3 import blake3
from pydantic import Field

from omnimill.config import canonical_json
from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines.adapters.edit_rows import EditRows
from omnimill.pipelines.adapters.row_files import plain
from omnimill.pipelines.sources.list_files import Row
from omnimill.schema import Image

# Rows that are read before a unit's own: no picture of the set has more than three turns.
_EARLIER = 4


class MagicBrushSource(EditRows):
    """MagicBrush: rows of ``img_id``, ``turn_index``, ``source_img``, ``instruction``, ``target_img``, in that order.

    An edit is a record, as of ``edit_rows``. The masks that people drew to make an edit are not read.

    history: the pictures of the earlier turns of the same picture come before the one that is edited, and what was
        asked in them before what is asked now, on lines that begin with ``Before:`` and ``Now:``. Edits without earlier
        turns are dropped as ``no_history``. This is the set's second task.
    """

    type: Literal["magicbrush"]
    include: tuple[str, ...] = ("**/train-*.parquet",)
    tag_fields: dict[str, str] = Field(default_factory=lambda: {"img_id": "img_id", "turn": "turn_index"})
    source_field: str = "source_img"
    instruction_field: str = "instruction"
    target_field: str = "target_img"
    history: bool = False

    def fields(self) -> Sequence[str]:
        return [*super().fields(), "img_id", *(["earlier"] if self.history else [])]

    def units(self) -> Iterator[Unit]:
        """Slices of the files; with history each names the rows that come before it, for a picture may go on."""
        before: deque[Unit] = deque(maxlen=_EARLIER)
        for unit in super().units():
            if self.history and before:
                urls = tuple(dict.fromkeys((*unit.files, *(one.files[0] for one in before))))
                ends = [{"file": urls.index(one.files[0]), **end} for one, end in _ends(before)]
                yield Unit(source=self.name, files=urls, options={**unit.options, "before": ends})
            else:
                yield unit
            before.append(unit)

    def rows(self, unit: Unit) -> Iterator[Row]:
        own = {name: value for name, value in unit.options.items() if name != "before"}
        found = super().rows(Unit(source=self.name, files=unit.files[:1], options=own))
        return self._with_earlier(unit, found) if self.history else found

    def inputs(self, unit: Unit) -> list[InputRef]:
        """As of any rows, and the rows before them that lie in another file."""
        refs = super().inputs(unit)
        if len(refs) == 1:
            content = canonical_json([[row.place, plain(row.values)] for row in self._before(unit)])
            digest = blake3(content).hexdigest()
            refs += [InputRef(uri=url, digest=digest, bytes=len(content)) for url in unit.files[1:]]
        return refs

    def earlier(self, row: Mapping[str, Any]) -> tuple[list[Image], list[str]]:
        if not self.history:
            return [], []
        if not row["earlier"]:
            raise RecordDropped("no_history")
        pictures = [self.picture(before, self.source_field) for before in row["earlier"]]
        return pictures, [text for before in row["earlier"] for text in self.instructions(before)[:1]]

    def _with_earlier(self, unit: Unit, rows: Iterator[Row]) -> Iterator[Row]:
        session: list[Mapping[str, Any]] = []
        for row in self._before(unit):
            session = _continued(session, row)
        for row in rows:
            session = _continued(session, row)
            yield row if isinstance(row.values, BadRecord) else Row(row.place, {**row.values, "earlier": session[:-1]})

    def _before(self, unit: Unit) -> list[Row]:
        """The rows before a unit, as far as they can be read: the units that they belong to answer for them."""
        found: list[Row] = []
        for end in unit.options.get("before", ()):
            with suppress(BadRecord):
                found.extend(super().rows(Unit(source=self.name, files=(unit.files[end["file"]],), options=end)))
        return found


def _ends(units: Sequence[Unit]) -> list[tuple[Unit, dict[str, Any]]]:
    """The last rows of consecutive slices of Parquet: the slices that hold some, and where these stand."""
    ends: list[tuple[Unit, dict[str, Any]]] = []
    left = _EARLIER
    for unit in reversed(units):
        rows = int(unit.options.get("rows", 0))
        count = min(rows, left)
        if count:
            start = int(unit.options["start"]) + rows - count
            ends.insert(0, (unit, {"row_group": unit.options["row_group"], "start": start, "rows": count}))
        left -= count
    return ends


def _continued(session: list[Mapping[str, Any]], row: Row) -> list[Mapping[str, Any]]:
    """The turns of a row's picture up to the row, given those of the row before."""
    if isinstance(row.values, BadRecord):
        return []
    same = session and session[-1].get("img_id") == row.values.get("img_id")
    return [*session, row.values] if same else [row.values]
