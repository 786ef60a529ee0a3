"""Transcripts: files as people write them are understood, broken ones are refused, words go to their segments."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.cues import Cue, Word
from omnimill.pipelines.decoders.transcripts import align, parse_transcript

VTT = """WEBVTT

00:00:01.000 --> 00:00:03.000
Hello there.

00:00:03.500 --> 00:00:05.000
Good-bye.
"""

# Words as they survive in a caption: no space of any kind, no tag, no entity, no arrow.
WORDS = st.text(st.characters(categories=("L", "N", "P", "S"), exclude_characters="<>&{}\\-"), min_size=1, max_size=8)
CUES = st.lists(
    st.tuples(st.integers(0, 10**7), st.integers(0, 10**5), st.lists(WORDS, min_size=1, max_size=6)),
    min_size=1,
    max_size=8,
)


def _stamp(milliseconds: int, mark: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{mark}{rest:03d}"


def _write(cues: list[tuple[int, int, list[str]]], form: str) -> bytes:
    mark = "." if form == "vtt" else ","
    blocks = [
        f"{number}\n{_stamp(start, mark)} --> {_stamp(start + length, mark)}\n{' '.join(words)}\n"
        for number, (start, length, words) in enumerate(cues, start=1)
    ]
    return ("WEBVTT\n\n" * (form == "vtt") + "\n".join(blocks)).encode()


@settings(max_examples=60, deadline=None)
@given(cues=CUES, form=st.sampled_from(["vtt", "srt"]))
def test_what_is_written_is_read_back(cues: list[tuple[int, int, list[str]]], form: str) -> None:
    found = parse_transcript(_write(cues, form), form)  # type: ignore[arg-type]
    expected = sorted(
        (start / 1000, (start + length) / 1000, " ".join(" ".join(words).split())) for start, length, words in cues
    )
    assert sorted((cue.start, cue.end, cue.text) for cue in found) == [pytest.approx(cue) for cue in expected]


@settings(max_examples=40, deadline=None)
@given(cues=CUES)
def test_words_fill_their_cue_in_order(cues: list[tuple[int, int, list[str]]]) -> None:
    for cue in parse_transcript(_write(cues, "srt"), "srt"):
        times = [time for word in cue.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert (times[0], times[-1]) == pytest.approx((cue.start, cue.end))


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300) | st.text(alphabet="WEBVTT\n0123:.,-> <c>é", max_size=200).map(str.encode))
def test_any_bytes_give_cues_or_a_verdict(data: bytes) -> None:
    for form in ("vtt", "srt"):
        try:
            assert parse_transcript(data, form) is not None  # type: ignore[arg-type]
        except BadRecord as fault:
            assert fault.reason == "transcript_malformed"


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + VTT,
        VTT.replace("\n", "\r\n"),
        VTT.replace("00:00:", "00:"),
        VTT.replace("WEBVTT\n", "WEBVTT - title\nKind: captions\n\nNOTE a remark\nover two lines\n\nSTYLE\n::cue{}\n"),
        VTT.replace("00:00:01.000 -->", "intro\n00:00:01.000 -->"),
        VTT.replace("03.000\n", "03.000 align:start position:0%\n"),
        VTT.replace("Hello there.", "<v Ann>Hello <i>there</i>.</v>"),
        VTT.replace("Hello there.\n\n", "Hello there.\n"),
        VTT.replace("Hello there.", "Hello\nthere."),
        VTT + "\n00:00:05.000 --> 00:00:06.000\n\n",
    ],
    ids=["bom", "crlf", "no-hours", "header-notes", "name", "settings", "tags", "no-blank", "lines", "empty-cue"],
)
def test_webvtt_as_found_in_the_wild(text: str) -> None:
    cues = parse_transcript(text.encode(), "vtt")
    assert [(cue.start, cue.end, cue.text) for cue in cues] == [(1.0, 3.0, "Hello there."), (3.5, 5.0, "Good-bye.")]


@pytest.mark.parametrize(
    "text",
    [
        "1\n00:00:01,000 --> 00:00:03,000\nHello there.\n\n2\n00:00:03,500 --> 00:00:05,000\nGood-bye.",
        "00:00:01.000 --> 00:00:03.000\nHello there.\n2\n00:00:03.500 --> 00:00:05.000\nGood-bye.\n",
        "2\n00:00:03,500 --> 00:00:05,000\n{\\an8}Good-bye.\n\n\n1\n00:00:01,000 --> 00:00:03,000\nHello <b>there</b>.",
    ],
    ids=["plain", "dots-no-blank", "out-of-order"],
)
def test_subrip_as_found_in_the_wild(text: str) -> None:
    cues = parse_transcript(text.encode(), "srt")
    assert [(cue.start, cue.end, cue.text) for cue in cues] == [(1.0, 3.0, "Hello there."), (3.5, 5.0, "Good-bye.")]


def test_utf16_with_its_mark_is_read() -> None:
    assert parse_transcript(VTT.encode("utf-16"), "vtt")[0].text == "Hello there."


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "line 1"),
        (VTT.removeprefix("WEBVTT\n"), "line 1"),
        (VTT.replace("03.000", "0x.000"), "line 3"),
        (VTT.replace("00:00:01.000", "00:00:09.000"), "line 3"),
        (VTT.replace("00:00:03.500 --> 00:00:05.000\n", ""), "line 6"),
        ("WEBVTT\n", "no cue"),
    ],
    ids=["empty", "no-header", "no-time", "backwards", "no-timing", "no-cues"],
)
def test_a_broken_file_says_where(text: str, where: str) -> None:
    with pytest.raises(BadRecord, match=where) as caught:
        parse_transcript(text.encode(), "vtt")
    assert caught.value.reason == "transcript_malformed"


def test_latin1_is_refused_rather_than_guessed() -> None:
    with pytest.raises(BadRecord, match="not utf-8"):
        parse_transcript(VTT.replace("there", "th\xe8re").encode("latin-1"), "vtt")


def test_times_inside_a_cue_are_kept() -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:04.000\nLike <00:02.000>a <00:03.500>pizza\n"
    assert parse_transcript(text.encode(), "vtt")[0].words == (
        Word(1.0, 2.0, "Like"),
        Word(2.0, 3.5, "a"),
        Word(3.5, 4.0, "pizza"),
    )


def test_rolling_captions_say_every_line_once() -> None:
    text = (
        "WEBVTT\n\n00:01.000 --> 00:02.000\nso<00:01.500><c> here</c>\n\n00:02.000 --> 00:02.010\nso here\n\n"
        "00:02.010 --> 00:04.000\nso here\nwe<00:03.000><c> go</c>\n"
    )
    assert [cue.text for cue in parse_transcript(text.encode(), "vtt")] == ["so here", "we go"]


def test_a_chorus_is_kept_where_captions_do_not_roll() -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:02.000\nla la\n\n00:02.000 --> 00:03.000\nla la\n"
    assert len(parse_transcript(text.encode(), "vtt")) == 2


def test_words_go_to_the_segment_of_their_middle() -> None:
    words = tuple(Word(second, second + 1.0, str(second)) for second in range(12))
    passages = align([Cue(0.0, 12.0, "", words)], [(0.0, 4.08), (4.08, 8.16)])
    assert [passage and (passage.text, passage.start, passage.end) for passage in passages] == [
        ("0 1 2 3", 0.0, 4.0),
        ("4 5 6 7", 4.0, 8.0),
    ]
    assert align([Cue(0.0, 1.0, "", words[:1])], [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)])[1:] == [None, None]
