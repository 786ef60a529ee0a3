"""Text that has to fit: at most so many ids, the last of them EOS."""

from __future__ import annotations

from collections.abc import Sequence

from omnimill.errors import OmnimillError
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.vocabulary import TextVocabulary

# Text length of the reference's encoder and decoder, EOS included (arXiv 2312.17172, section B.1).
MAX_TEXT = 512
# In a prompt, what stands before it is shortened and what stands behind it stays (released instruction-following code).
MARKER = "[TR]"


def truncate(segments: Sequence[Sequence[int]], limit: int = MAX_TEXT, shortened: int | None = None) -> list[int]:
    """Segments as one text that ends in EOS.

    Args:
        segments: ids without EOS.
        limit: most ids, EOS included.
        shortened: number of the segment that gives way, from its end; the others stay as long as there is room
            without it. None: the whole text is cut at its end.

    Returns:
        At most `limit` ids.
    """
    room = limit - 1
    parts = [list(segment) for segment in segments]
    if shortened is not None:
        others = sum(map(len, parts)) - len(parts[shortened])
        parts[shortened] = parts[shortened][: max(room - others, 0)]
    return [*[token for part in parts for token in part][:room], TextVocabulary.EOS]


def encode_prompt(prompt: str, text: TextTokenizer, limit: int = MAX_TEXT) -> list[int]:
    """A prompt with at most one `MARKER`, and with added tokens by their surface forms, as ids that fit.

    Raises:
        OmnimillError: it has two markers.
    """
    parts = prompt.split(MARKER)
    if len(parts) > 2:
        raise OmnimillError(f"a prompt has at most one {MARKER}, found {len(parts) - 1}: {prompt[:80]!r}")
    return truncate([text.encode_marked(part) for part in parts], limit, shortened=0 if len(parts) == 2 else None)
