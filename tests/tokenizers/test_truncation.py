"""Texts that do not fit: 511 ids and EOS, or a marked part that gives way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimill.errors import OmnimillError
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.truncation import encode_prompt, truncate

segments = st.lists(st.lists(st.integers(3, 99), max_size=30), min_size=1, max_size=4)


def test_text_is_cut_to_511_ids_and_eos() -> None:
    assert truncate([list(range(3, 1003))]) == [*range(3, 514), 1]
    assert truncate([[5, 6], [7]]) == [5, 6, 7, 1]
    assert truncate([[]]) == [1]


@given(parts=segments, limit=st.integers(1, 80), data=st.data())
def test_the_marked_part_gives_way_first(parts: list[list[int]], limit: int, data: st.DataObject) -> None:
    shortened = data.draw(st.integers(0, len(parts) - 1))
    found = truncate(parts, limit, shortened)
    assert found[-1] == 1
    assert len(found) == min(sum(map(len, parts)) + 1, limit)
    before = [token for part in parts[:shortened] for token in part]
    after = [token for part in parts[shortened + 1 :] for token in part]
    if len(before) + len(after) < limit:
        kept = len(found) - 1 - len(before) - len(after)
        assert found == [*before, *parts[shortened][:kept], *after, 1]
    else:
        assert found[:-1] == [*before, *after][: limit - 1]


def test_a_prompt_keeps_its_question(text: TextTokenizer) -> None:
    context, question = "the quick brown fox " * 50, "Who jumps?"
    ids = encode_prompt(f"[Text] [S] {context}[TR]{question}", text, limit=64)
    assert len(ids) == 64
    assert ids[0] == text.vocabulary.prefix("text", "S")
    assert text.decode(ids[:-1]).endswith(question)
    assert encode_prompt("[Text] [S] Who jumps?", text) == [ids[0], *text.encode(question), 1]
    with pytest.raises(OmnimillError, match="at most one"):
        encode_prompt("a [TR] b [TR] c", text)
