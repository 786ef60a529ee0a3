"""MagicBrush: pictures that were edited by hand, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines.adapters.edit_rows import EditRows
from omnimill.pipelines.sources.list_files import Row
from omnimill.schema import Image

# Rows that are read before a unit's own: no picture of the set has more than three turns.
_EARLIER = 4


class MagicBrushSource(EditRows):
    """MagicBrush: rows of ``img_id``, ``turn_index``, ``source_img``, ``instruction``, ``target_img``, in that order.

    An edit is a record, as of ``edit_rows``. The masks that people drew to make an edit are not read.

    history: the pictures of the earlier turns of the same picture come before the one that is edited, and what was
        asked in them before what is asked now. Edits without earlier turns are dropped as ``no_history``. This is the
        set's second task.
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
        """Slices of the files; with history each names the last rows of the one before, for a picture may go on."""
        before: Unit | None = None
        for unit in super().units():
            if not self.history or before is None:
                yield unit
            else:
                urls = dict.fromkeys((*unit.files, *before.files))
                yield Unit(source=self.name, files=tuple(urls), options={**unit.options, "before": _end(before)})
            before = unit

    def rows(self, unit: Unit) -> Iterator[Row]:
        own = {name: value for name, value in unit.options.items() if name != "before"}
        found = super().rows(Unit(source=self.name, files=unit.files[:1], options=own))
        return self._with_earlier(unit, found) if self.history else found

    def earlier(self, row: Mapping[str, Any]) -> tuple[list[Image], list[str]]:
        if not self.history:
            return [], []
        if not row["earlier"]:
            raise RecordDropped("no_history")
        pictures = [self.picture(before, self.source_field) for before in row["earlier"]]
        return pictures, [text for before in row["earlier"] for text in self.instructions(before)[:1]]

    def _with_earlier(self, unit: Unit, rows: Iterator[Row]) -> Iterator[Row]:
        session: list[Mapping[str, Any]] = []
        if unit.options.get("before"):
            last = Unit(source=self.name, files=unit.files[-1:], options=unit.options["before"])
            with suppress(BadRecord):  # the unit that these rows belong to answers for them
                for row in super().rows(last):
                    session = _continued(session, row)
        for row in rows:
            session = _continued(session, row)
            yield row if isinstance(row.values, BadRecord) else Row(row.place, {**row.values, "earlier": session[:-1]})


def _end(unit: Unit) -> dict[str, Any]:
    """The slice with the last rows of a unit; empty where the unit cannot be read."""
    if "rows" not in unit.options:
        return {}
    start, rows = int(unit.options["start"]), int(unit.options["rows"])
    count = min(rows, _EARLIER)
    return {"row_group": unit.options["row_group"], "start": start + rows - count, "rows": count}


def _continued(session: list[Mapping[str, Any]], row: Row) -> list[Mapping[str, Any]]:
    """The turns of a row's picture up to the row, given those of the row before."""
    if isinstance(row.values, BadRecord):
        return []
    same = session and session[-1].get("img_id") == row.values.get("img_id")
    return [*session, row.values] if same else [row.values]
