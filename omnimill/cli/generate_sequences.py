"""``omnimill generate`` of a decoder-only checkpoint: text and pictures, shown as they come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnimill.errors import ConfigError

if TYPE_CHECKING:
    from omnimill.tokenizers.text import TextTokenizer
    from omnimill.training.generation.decoding import Sampling
    from omnimill.training.generation.interleaved import Event, Interleaved, SequenceGenerator
    from omnimill.training.rendering.prompt import Request

# Not yet a whole character.
_BROKEN = "\N{REPLACEMENT CHARACTER}"


class Streamed:
    """Writes an answer to the terminal while it is made: text as it comes, a line for every picture."""

    def __init__(self, text: TextTokenizer) -> None:
        self._text = text
        self._run: list[int] = []
        self._shown = 0
        self._pictures = 0

    def __call__(self, event: Event) -> None:
        from omnimill.training.generation.interleaved import Drawn, Ended, Words

        if isinstance(event, Words):
            self._run.append(event.token)
            self._write(self._text.decode(self._run).rstrip(_BROKEN))
        elif isinstance(event, Drawn | Ended):
            if self._run:
                self._write(self._text.decode(self._run))
                print()
            self._run, self._shown = [], 0
            if isinstance(event, Drawn):
                self._pictures += 1
                print(f"[picture {self._pictures}]", flush=True)

    def _write(self, text: str) -> None:
        print(text[self._shown :], end="", flush=True)
        self._shown = max(self._shown, len(text))


def answer(
    generator: SequenceGenerator, request: Request, sampling: Sampling, out: Path | None, show: bool
) -> tuple[Interleaved, Path | None, bytes | None]:
    """The answer, where it is to be written, and the file's content; without a file None, None.

    Args:
        out: the file that was asked for; of interleaved answers a page (HTML).
        show: the answer as it comes.

    Raises:
        ConfigError: an option is not of decoder-only backbones, or `out` is no page.
    """
    from omnimill.training.generation.decoding import Decoding
    from omnimill.training.generation.interleaved_page import Result, results_page

    paged = request.target == "interleaved"
    if paged and out is not None and out.suffix not in (".html", ".htm"):
        raise ConfigError(f"--out: found {out}; text and pictures in turn are written as a page, allowed: *.html")
    told: Callable[[Event], object] = lambda _: None  # noqa: E731
    if show and request.target != "image":
        told = Streamed(generator.tokenizers.text)
    (found,) = generator.generate([request], Decoding(text=sampling, image=sampling), told)
    if paged:
        pieces = [(piece.text, piece.png) for piece in found.pieces]
        page = results_page(
            "Answer", [Result("answer", request.text, request.pictures, pieces, found.cut, found.whole)]
        )
        return found, out or Path("generated.html"), page.encode()
    if request.target == "image":
        return found, out or Path("generated.png"), found.pieces[0].png
    return found, out, None if out is None else f"{found.text}\n".encode()


def as_json(found: Interleaved) -> dict[str, Any]:
    """What the answer says of itself."""
    pieces = [{"text": one.text} if one.picture is None else {"picture": list(one.ids)} for one in found.pieces]
    return {
        "tokens": sum(len(one.ids) for one in found.pieces),
        "text": found.text,
        "pieces": pieces,
        "whole": found.whole,
    }
