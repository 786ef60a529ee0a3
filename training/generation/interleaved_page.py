"""The page of results of decoder-only checkpoints: answers as a reader would see them, one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omnimill.infra.report.media import data_url, thumbnail
from omnimill.infra.report.template import page_template


@dataclass(frozen=True)
class Result:
    """A request and its answer.

    given: pictures of the request, as files. pieces: of each its text, or its picture as a PNG file. cut, whole: as of
    `omnimill.training.generation.interleaved.Interleaved`.
    """

    key: str
    prompt: str
    given: Sequence[bytes]
    pieces: Sequence[tuple[str | None, bytes | None]]
    cut: int = 0
    whole: bool = True


def results_page(title: str, results: Sequence[Result]) -> str:
    """The page."""
    return page_template(Path(__file__).with_name("interleaved_page.html")).render(
        title=title, results=[_shown(one) for one in results]
    )


def _shown(one: Result) -> dict[str, object]:
    notes = [f"The last {one.cut} tokens of the prompt did not fit and were left out."] if one.cut else []
    notes += [] if one.whole else ["It ends here because there was no more room."]
    pieces = [(text, None if picture is None else data_url(picture, "image/png")) for text, picture in one.pieces]
    given = [thumbnail(picture) for picture in one.given]
    return {"key": one.key, "prompt": one.prompt, "given": given, "pieces": pieces, "notes": notes}
