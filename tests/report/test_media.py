"""Players and charts: what is put into a page is short, says what it should, and comes out the same every time."""

from __future__ import annotations

import base64
import io
from itertools import pairwise

import av
import numpy as np
import pytest
import soundfile
from made_report import clip, picture

from omnimill.infra.report import charts, media


def unpacked(url: str, media_type: str) -> bytes:
    head, _, data = url.partition(",")
    assert head == f"data:{media_type};base64"
    return base64.b64decode(data)


def test_a_film_shows_every_picture_at_its_time_and_lasts_to_its_end() -> None:
    pictures = [(0.0, picture(0).data), (1.5, picture(60).data), (22.0, picture(90, 33, 77).data)]
    url = media.film(pictures, [(0.5, clip(0.5).data), (22.5, clip(2.0).data)], 23.0)
    assert url == media.film(pictures, [(0.5, clip(0.5).data), (22.5, clip(2.0).data)], 23.0)
    with av.open(io.BytesIO(unpacked(url, "video/webm"))) as film:
        assert film.duration / av.time_base == pytest.approx(23.0, abs=0.06)
        times = [round(float(frame.pts * frame.time_base), 2) for frame in film.decode(video=0)]
        assert times == [0.0, 1.5, 22.0, 22.96]
        film.seek(0)
        heard = np.concatenate([frame.to_ndarray()[0] for frame in film.decode(audio=0)])
        film.seek(0)
        order = [float(packet.pts * packet.time_base) for packet in film.demux() if packet.pts is not None]
    assert max(before - after for before, after in pairwise(order)) < 0.1, "pictures and sound lie side by side"
    loud = [bool(np.abs(heard[int(at * 48_000) :][:2400]).max() > 0.05) for at in (0.2, 0.7, 1.5, 22.7)]
    assert loud == [False, True, False, True]


def test_a_long_clip_is_cut_and_says_so() -> None:
    long = clip(16.0)
    data = unpacked(media.sound(long.data, "audio/flac", 16.0), "audio/flac")
    assert soundfile.info(io.BytesIO(data)).duration == 15.0
    assert media.shown_seconds(16.0) == "the first 15 of 16 s"
    short = clip(1.0)
    assert unpacked(media.sound(short.data, "audio/flac", 1.0), "audio/flac") == short.data


def test_captions_are_text_whatever_they_say() -> None:
    told = unpacked(media.captions([(61.0, 62.5, "a < b &\n\n00:00.000 --> 00:01.000")]), "text/vtt").decode()
    assert told == "WEBVTT\n\n01:01.000 --> 01:02.500\na &lt; b &amp; 00:00.000 --&gt; 00:01.000\n"


def test_a_chart_has_its_numbers_as_a_table_and_no_colour_of_its_own() -> None:
    lines = {
        f"cost in $ of {name}": [(step, step / (i + 1)) for step in range(100)] for i, name in enumerate("abcdefgh")
    }
    chart = charts.curves("Loss & <gain>", lines, "step", "nats")
    assert chart.columns == ["step", *lines]
    assert (chart.rows[0][0], chart.rows[-1][0], len(chart.rows)) == ("0", "99", 12)
    assert chart.rows[-1][1:3] == ["99", "49.5"]
    html = chart.__html__()
    assert "Loss &amp; &lt;gain&gt;" in html
    assert "cost in $ of a" in html
    assert "var(--series-8)" in html
    assert not set(charts._SERIES) & set(html.split('"'))
    assert html == charts.curves("Loss & <gain>", lines, "step", "nats").__html__()


def test_quantities_of_different_size_share_a_chart() -> None:
    wide = {"a": charts.quantiles(np.geomspace(1, 1e6, 50)), "b": charts.quantiles(np.array([5.0]))}
    chart = charts.boxes("Lengths", wide, "characters")
    assert chart.rows[1] == ["b", "1", *["5"] * 7]
    assert "10^{" not in chart.svg
