"""Transcripts: files as people write them are understood, broken ones are refused, words go to their segments."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.cues import Cue, Word
from omnimill.pipelines.decoders.transcripts import TranscriptForm, align, parse_transcript

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


@settings(max_examples=60)
@given(cues=CUES, form=st.sampled_from(["vtt", "srt"]))
def test_what_is_written_is_read_back(cues: list[tuple[int, int, list[str]]], form: str) -> None:
    found = parse_transcript(_write(cues, form), form)  # type: ignore[arg-type]
    expected = sorted(
        (start / 1000, (start + length) / 1000, " ".join(" ".join(words).split())) for start, length, words in cues
    )
    assert sorted((cue.start, cue.end, cue.text) for cue in found) == [pytest.approx(cue) for cue in expected]


@settings(max_examples=40)
@given(cues=CUES)
def test_words_fill_their_cue_in_order(cues: list[tuple[int, int, list[str]]]) -> None:
    for cue in parse_transcript(_write(cues, "srt"), "srt"):
        times = [time for word in cue.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert (times[0], times[-1]) == pytest.approx((cue.start, cue.end))


@settings(max_examples=200)
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


WORD = st.text(st.characters(categories=("Ll", "Lu")), min_size=1, max_size=8)
LINES = st.lists(st.lists(WORD, min_size=1, max_size=5), min_size=1, max_size=8)


def _rolling(lines: list[list[str]]) -> tuple[str, list[tuple[float, str]]]:
    """Captions as YouTube writes them, one second a word, and what they say when."""
    blocks, said, above, moment = ["WEBVTT\nKind: captions\n"], [], " ", 0
    for words in lines:
        start, end = _stamp(moment, "."), _stamp(moment + 1000 * len(words), ".")
        timed = words[0] + "".join(
            f"<{_stamp(moment + 1000 * place, '.')}><c> {word}</c>" for place, word in enumerate(words) if place
        )
        said += [(moment / 1000 + place, word) for place, word in enumerate(words)]
        moment += 1000 * len(words)
        still = _stamp(moment + 10, ".")
        blocks.append(f"{start} --> {end} align:start position:0%\n{above}\n{timed}\n")
        blocks.append(f"{end} --> {still} align:start position:0%\n{' '.join(words)}\n \n")
        above, moment = " ".join(words), moment + 10
    return "\n".join(blocks), said


@settings(max_examples=80)
@given(lines=LINES)
def test_rolling_captions_say_every_word_once_at_its_time(lines: list[list[str]]) -> None:
    text, said = _rolling([line if len(line) > 1 else [*line, "x"] for line in lines])
    words = [word for cue in parse_transcript(text.encode(), "vtt") for word in cue.words]
    assert [word.text for word in words] == [word for _, word in said]
    assert [word.start for word in words] == pytest.approx([time for time, _ in said])


WORD_TIMES = st.lists(st.tuples(WORD, st.integers(0, 10**6), st.integers(0, 2000)), min_size=1, max_size=40)


@settings(max_examples=60)
@given(items=WORD_TIMES, form=st.sampled_from(["flat", "words", "segments", "ctm", "json3"]))
def test_timed_words_are_read_back(items: list[tuple[str, int, int]], form: str) -> None:
    items = sorted(items, key=lambda item: item[1])
    words = [{"word": word, "start": start / 1000, "end": (start + long) / 1000} for word, start, long in items]
    if form == "ctm":
        lines = (f"film 1 {start / 1000} {long / 1000} {word} 0.9" for word, start, long in items)
        found = parse_transcript(b";; a remark\n" + "\n".join(lines).encode(), "ctm")
    else:
        shapes = {
            "flat": words,
            "words": {"words": words},
            "segments": {"segments": [{"start": 0, "end": 1, "text": word["word"], "words": [word]} for word in words]},
            "json3": {
                "events": [{"tStartMs": 0}]
                + [{"tStartMs": start, "dDurationMs": long, "segs": [{"utf8": word}]} for word, start, long in items]
            },
        }
        found = parse_transcript(json.dumps(shapes[form]).encode(), "json")
    read = [(word.text, word.start, word.end) for cue in found for word in cue.words]
    expected = [(word, start / 1000, (start + long) / 1000) for word, start, long in items]
    assert sorted(read) == [pytest.approx(item) for item in sorted(expected)]


def test_segments_without_words_are_spread_and_missing_ends_filled() -> None:
    data = json.dumps({"segments": [{"start": 1, "end": 3, "text": " ab cd"}]}).encode()
    assert parse_transcript(data, "json")[0].words == (Word(1.0, 2.0, "ab"), Word(2.0, 3.0, "cd"))
    data = json.dumps([{"word": "a", "time": 1.0}, {"word": "b", "time": 1.4}, {"word": "c", "time": 9}]).encode()
    words = [word for cue in parse_transcript(data, "json") for word in cue.words]
    assert words == [Word(1.0, 1.4, "a"), Word(1.4, 2.4, "b"), Word(9.0, 10.0, "c")]


def test_denoised_words_take_the_times_of_those_they_stand_for() -> None:
    heard = ["so", "lets", "make", "the", "uh", "soup", "now", "bye"]
    content = {
        "denoised": [{"noisyasr": "so lets make the uh soup now", "cleanasr": "So, let's make THE soup now!"}],
        "subtitles": [{"word": word, "time": float(place)} for place, word in enumerate(heard)],
    }
    words = [word for cue in parse_transcript(json.dumps(content).encode(), "json") for word in cue.words]
    assert [(word.text, word.start) for word in words] == [
        ("So,", 0.0),
        ("let's", 1.0),
        ("make", 2.0),
        ("THE", 3.0),
        ("soup", 5.0),
        ("now!", 6.0),
        ("bye", 7.0),
    ]


TTML = """<?xml version="1.0" encoding="utf-8"?>
<tt xmlns="http://www.w3.org/ns/ttml" xmlns:ttp="http://www.w3.org/ns/ttml#parameter" ttp:frameRate="25"
    ttp:tickRate="10"><head><metadata>not a word</metadata></head><body><div begin="10s">
{}
</div></body></tt>"""


@pytest.mark.parametrize(
    ("paragraph", "cue"),
    [
        ('<p begin="1s" end="3s">one <b>two</b><br/>three</p>', (11.0, 13.0, "one two three")),
        ('<p begin="00:00:01.500" dur="500ms">clock</p>', (11.5, 12.0, "clock")),
        ('<p begin="00:00:02:05" end="0.1m">frames</p>', (12.2, 16.0, "frames")),
        ('<p begin="25f" end="45t">ticks</p>', (11.0, 14.5, "ticks")),
        (
            '<p begin="0s" end="4s"><span begin="1s" end="2s">a</span> <span begin="2s">b</span></p>',
            (10.0, 14.0, "a b"),
        ),
    ],
    ids=["offset", "clock", "frames", "ticks", "spans"],
)
def test_ttml_times_of_every_kind(paragraph: str, cue: tuple[float, float, str]) -> None:
    (found,) = parse_transcript(TTML.format(paragraph).encode(), "ttml")
    assert (found.start, found.end, found.text) == (pytest.approx(cue[0]), pytest.approx(cue[1]), cue[2])


def test_spans_of_ttml_time_their_words() -> None:
    text = '<p begin="0s" end="4s"><span begin="1s" end="2s">a</span> <span begin="2s" end="3s">b</span></p>'
    (cue,) = parse_transcript(TTML.format(text).encode(), "ttml")
    assert cue.words == (Word(11.0, 12.0, "a"), Word(12.0, 13.0, "b"))


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE tt [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><tt><body><p begin="0s" end="1s">&b;</p></body></tt>',
        '<!DOCTYPE tt SYSTEM "file:///etc/passwd"><tt><body><p begin="0s" end="1s">x</p></body></tt>',
        "<tt>" + "<div>" * 5000 + "</div>" * 5000 + "</tt>",
        '<html><p begin="0s" end="1s">x</p></html>',
        '<tt><body><p begin="soon" end="1s">x</p></body></tt>',
        '<tt><body><p begin="2s" end="1s">x</p></body></tt>',
        "<tt><body>",
    ],
    ids=["entities", "external", "deep", "root", "time", "backwards", "cut"],
)
def test_hostile_ttml_is_refused(text: str) -> None:
    with pytest.raises(BadRecord) as caught:
        parse_transcript(text.encode(), "ttml")
    assert caught.value.reason == "transcript_malformed"


def test_subviewer_is_read() -> None:
    text = "0:00:01.000,0:00:02.500\nHello,\nthere\n\n0:00:03.000,0:00:04.000\nbye\n"
    assert [(cue.start, cue.end, cue.text) for cue in parse_transcript(text.encode(), "sbv")] == [
        (1.0, 2.5, "Hello, there"),
        (3.0, 4.0, "bye"),
    ]


@settings(max_examples=150)
@given(
    data=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["segments", "words", "word", "start", "end", "events", "segs"]), inner)
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_content_gives_cues_or_a_verdict_in_the_other_forms(data: bytes) -> None:
    forms: tuple[TranscriptForm, ...] = ("sbv", "ttml", "json", "ctm")
    for form in forms:
        try:
            assert parse_transcript(data, form)
        except BadRecord as fault:
            assert fault.reason == "transcript_malformed"


SEGMENTS = st.lists(st.floats(0.1, 10), min_size=1, max_size=10)


@settings(max_examples=60)
@given(lengths=SEGMENTS, cues=CUES)
def test_every_word_is_in_the_one_segment_that_holds_its_middle(
    lengths: list[float], cues: list[tuple[int, int, list[str]]]
) -> None:
    marks = [0.0]
    for length in lengths:
        marks.append(marks[-1] + length)
    segments = list(pairwise(marks))
    found = parse_transcript(_write(cues, "srt"), "srt")
    passages = align(found, segments)
    words = [word for cue in found for word in cue.words]
    for (start, end), passage in zip(segments, passages, strict=True):
        inside = [word.text for word in words if start <= (word.start + word.end) / 2 < end]
        assert sorted(passage.text.split() if passage else []) == sorted(inside)
