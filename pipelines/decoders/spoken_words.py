"""Transcripts of timed words: JSON as speech recognisers write it, and CTM (NIST's time-marked conversations)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any

from omnimill.pipelines.decoders.cues import (
    Cue,
    Word,
    cue_of,
    cue_of_words,
    decode_text,
    ended,
    malformed,
    seconds_of,
    span,
)

# Names under which recognisers give a word, its start and its end.
_WORD_KEYS = ("word", "text", "punctuated_word", "w")
_START_KEYS = ("start", "time", "start_time", "begin", "timestamp")
_END_KEYS = ("end", "end_time")
# Words in a cue where the file makes no groups; and where a pause of so many seconds ends it earlier.
_CUE_WORDS = 32
_PAUSE = 2.0
# Matching cleaned to recognised words takes time by the product of their numbers.
_MAX_MATCHED = 4000


def parse_words(data: bytes) -> list[Cue]:
    """The cues of a JSON transcript, by start time. Understood are, by what is there:

    * ``{"segments": [{"start", "end", "text", "words": [{"word", "start", "end"}]}]}`` (Whisper, WhisperX), with or
      without words;
    * ``[{"word", "start", "end"}]``, or the same below ``words`` or ``subtitles``; an end may be left out, and
      ``time`` may stand for ``start``;
    * ``{"subtitles": [{"word", "time"}], "denoised": [{"noisyasr", "cleanasr"}]}`` (YT-Temporal): the cleaned words,
      each with the time of the recognised word that it stands for;
    * ``{"events": [{"tStartMs", "dDurationMs", "segs": [{"utf8", "tOffsetMs"}]}]}`` (YouTube's json3).

    Raises:
        BadRecord: ``transcript_malformed``.
    """
    try:
        content = json.loads(decode_text(data))
    except (ValueError, RecursionError) as error:
        raise malformed(f"no JSON: {str(error)[:200]}") from None
    cues = [cue for cue in _cues(content) if cue.words]
    if not cues:
        raise malformed("it holds no timed words")
    return sorted(cues, key=lambda cue: (cue.start, cue.end))


def _cues(content: Any) -> Iterator[Cue]:
    if isinstance(content, list):
        timed = content and isinstance(content[0], dict) and ("words" in content[0] or "word" not in content[0])
        yield from _segments(content, "") if timed and "text" in content[0] else _grouped(_words(content, ""))
    elif not isinstance(content, dict):
        raise malformed(f"a JSON {type(content).__name__}, not an object or a list")
    elif isinstance(content.get("segments"), list):
        yield from _segments(content["segments"], "segments")
    elif isinstance(content.get("events"), list):
        yield from _events(content["events"])
    elif isinstance(content.get("subtitles"), list):
        words = ended(_words(content["subtitles"], "subtitles"))
        denoised = content.get("denoised")
        yield from _grouped((w.start, w.end, w.text) for w in _denoised(words, denoised or []))
    elif isinstance(content.get("words"), list):
        yield from _grouped(_words(content["words"], "words"))
    else:
        raise malformed("none of segments, words, subtitles and events is a list")


def _words(items: list[Any], where: str) -> Iterator[tuple[float, float | None, str]]:
    """Start, end and text of word objects. One without times (WhisperX on digits) takes the end of the one before."""
    moment = 0.0
    for number, item in enumerate(items):
        place = f"{where}[{number}]"
        if not isinstance(item, dict):
            raise malformed(f"{place}: not an object")
        text = _first(item, _WORD_KEYS)
        if not isinstance(text, str):
            raise malformed(f"{place}: no word")
        start, end, lasts = _first(item, _START_KEYS), _first(item, _END_KEYS), item.get("duration")
        begin = moment if start is None else seconds_of(start, place)
        until = None if end is None else seconds_of(end, place)
        if until is None and lasts is not None:
            until = begin + seconds_of(lasts, place)
        if until is not None:
            span(begin, until, place)
        moment = begin if until is None else until
        if text.strip():
            yield begin, until, text


def _first(item: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((item[key] for key in keys if item.get(key) is not None), None)


def _segments(items: list[Any], where: str) -> Iterator[Cue]:
    for number, item in enumerate(items):
        place = f"{where}[{number}]"
        if not isinstance(item, dict):
            raise malformed(f"{place}: not an object")
        words = item.get("words")
        if isinstance(words, list) and words:
            timed = ended(_words(words, f"{place}.words"))
            if timed:
                yield cue_of_words(timed)
        elif isinstance(item.get("text", ""), str):
            start = seconds_of(_first(item, _START_KEYS), place)
            end, lasts = _first(item, _END_KEYS), item.get("duration")
            until = start + seconds_of(lasts, place) if end is None else seconds_of(end, place)
            yield cue_of(*span(start, until, place), item.get("text", ""))
        else:
            raise malformed(f"{place}: its text is none")


def _events(items: list[Any]) -> Iterator[Cue]:
    for number, item in enumerate(items):
        pieces = item.get("segs") if isinstance(item, dict) else None
        if not isinstance(pieces, list):
            continue  # a window's position
        place = f"events[{number}]"
        start = seconds_of(item.get("tStartMs"), place) / 1000
        end = start + seconds_of(item.get("dDurationMs", 0), place) / 1000
        starts = []
        for piece in pieces:
            if not isinstance(piece, dict) or not isinstance(piece.get("utf8", ""), str):
                raise malformed(f"{place}: a segment without text")
            offset = seconds_of(piece.get("tOffsetMs", 0), place) / 1000
            if piece.get("utf8", "").strip():
                starts.append((start + offset, piece["utf8"]))
        following = [begin for begin, _ in starts[1:]] + [end]
        words = ended((begin, max(begin, until), text) for (begin, text), until in zip(starts, following, strict=True))
        if words:
            yield cue_of_words(words)


def _denoised(words: list[Word], chunks: Any) -> list[Word]:
    """The cleaned words of `chunks` at the times of the recognised ones; words that no chunk covers stay as they are.

    Chunks follow the recognised words in order. Within one, runs of equal words (longest matching blocks, Ratcliff
    and Obershelp) take each other's times and what lies between two runs is spread over the time between them.
    """
    if not isinstance(chunks, list):
        raise malformed("denoised: not a list")
    timed: list[Word] = []
    position = 0
    for number, chunk in enumerate(chunks):
        if not isinstance(chunk, dict) or not isinstance(chunk.get("cleanasr"), str):
            raise malformed(f"denoised[{number}]: no cleanasr")
        noisy = chunk.get("noisyasr")
        count = len(noisy.split()) if isinstance(noisy, str) else len(words) - position
        heard = words[position : position + count]
        position += len(heard)
        timed.extend(_matched(heard, chunk["cleanasr"].split()))
    return timed + words[position:]


def _matched(heard: list[Word], clean: list[str]) -> list[Word]:
    if not heard or not clean or max(len(heard), len(clean)) > _MAX_MATCHED:
        return heard
    sides = [_letters(word.text) for word in heard], [_letters(word) for word in clean]
    blocks = SequenceMatcher(None, *sides, autojunk=False).get_matching_blocks()
    timed: list[Word] = []
    at_heard = at_clean = 0
    moment = heard[0].start
    for block in blocks:
        between = clean[at_clean : block.b]
        until = heard[block.a].start if block.size else heard[-1].end
        timed.extend(cue_of(moment, max(until, moment), " ".join(between)).words)
        for offset in range(block.size):
            word = heard[block.a + offset]
            timed.append(Word(word.start, word.end, clean[block.b + offset]))
        at_heard, at_clean = block.a + block.size, block.b + block.size
        moment = heard[at_heard - 1].end if at_heard else moment
    return timed


def _letters(word: str) -> str:
    return re.sub(r"\W", "", word).lower()


def parse_ctm(data: bytes) -> list[Cue]:
    """The words of a CTM file: lines of recording, channel, start, duration, word and perhaps a confidence.

    Raises:
        BadRecord: ``transcript_malformed`` with the line number, or when the file is about several recordings.
    """
    words: list[tuple[float, float | None, str]] = []
    recordings = set()
    for number, line in enumerate(decode_text(data).splitlines(), start=1):
        if not line.strip() or line.startswith(";;"):
            continue
        fields = line.split()
        if len(fields) not in (5, 6, 7):
            raise malformed(f"line {number}: {len(fields)} fields, 5 to 7 expected")
        recordings.add(fields[0])
        start, lasts = (seconds_of(field, f"line {number}") for field in fields[2:4])
        words.append((start, start + lasts, fields[4]))
    if not words:
        raise malformed("it holds no words")
    if len(recordings) > 1:
        raise malformed(f"about {len(recordings)} recordings")
    return list(_grouped(words))


def _grouped(words: Iterable[tuple[float, float | None, str]]) -> Iterator[Cue]:
    """Words as cues of at most `_CUE_WORDS`, broken at pauses."""
    timed = ended(words)
    run: list[Word] = timed[:1]
    for before, word in pairwise(timed):
        if len(run) == _CUE_WORDS or word.start - before.end > _PAUSE:
            yield cue_of_words(run)
            run = []
        run.append(word)
    if run:
        yield cue_of_words(run)
