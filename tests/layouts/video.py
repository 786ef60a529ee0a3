"""Small copies of collections of films: tiny H.264 films with sound, in the files and columns of the real ones."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

from imageio_ffmpeg import get_ffmpeg_exe

from layouts import Expected, Layout

SPEECH = "sin(880*PI*t)*(0.3+0.2*sin(8*PI*t))"


def film(path: Path, seconds: float, *, sound: str | None = SPEECH, size: str = "320x240", moves: bool = True) -> None:
    """A film at 10 frames a second; a test card that moves, or one grey, and a tone or silence."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = f"testsrc2=size={size}:rate=10" if moves else f"color=gray:size={size}:rate=10"
    inputs = ["-f", "lavfi", "-i", f"{picture}:duration={seconds}"]
    if sound is not None:
        inputs += ["-f", "lavfi", "-i", f"aevalsrc={sound}:sample_rate=22050:duration={seconds}"]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-threads", "1", "-c:a", "aac"]
    command = [get_ffmpeg_exe(), "-nostdin", "-y", "-v", "error", *inputs, *coding, str(path)]
    subprocess.run(command, check=True, timeout=60)


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def table(path: Path, rows: list[list[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def yt_temporal(data: Path) -> Expected:
    """Per film ``<id>.mp4``, ``<id>.grover.json`` (words with times and the cleaned text), ``<id>.en.vtt``."""
    home = data / "yt_temporal"
    film(home / "WAaKRUoY6Io.mp4", 9)
    words = ["guys", "this", "is", "a", "delicious", "sweet", "onion", "tomato", "sauce"]
    lines(
        home / "WAaKRUoY6Io.grover.json",
        [
            {
                "denoised": [
                    {
                        "noisyasr": " ".join(words),
                        "cleanasr": "Guys, this is a delicious sweet onion tomato sauce.",
                        "ctx_ppl": 63.0,
                    }
                ],
                "info": {"id": "WAaKRUoY6Io", "title": "Pasta", "duration": 9},
                "subtitles": [{"word": word, "time": 0.5 * number} for number, word in enumerate(words)],
            }
        ],
    )
    film(home / "b0CZpjn5lzE.mp4", 9)
    (home / "b0CZpjn5lzE.en.vtt").write_text(
        "WEBVTT\nKind: captions\nLanguage: en\n\n00:00:00.480 --> 00:00:02.950 align:start position:0%\n \n"
        "hello<00:00:00.719><c> everyone</c>\n\n00:00:02.950 --> 00:00:02.960 align:start position:0%\nhello everyone\n"
    )
    film(home / "xxxxxxxxxxx.mp4", 9)  # without words: too few are said
    film(home / "mmmmmmmmmmm.mp4", 9, moves=False)
    (home / "zzzzzzzzzzz.mp4").write_text("#EXTM3U\nhttp://localhost/secret\n")
    return Expected(
        records=7,
        examples=2,
        quarantined={"video_unreadable": 1},
        dropped={"sidecar": 2},
        examples_dropped={"video_static": 1, "transcript_sparse": 1},
    )


def hd_vila(data: Path) -> Expected:
    """``hdvila_part<n>.jsonl``, a line per film with its clips, and the films by id."""
    home = data / "hd_vila"
    clips = [("00:00:01.000", "00:00:06.500"), ("00:00:08.000", "00:00:13.250"), ("00:04:52.140", "00:05:03.350")]
    for number, name in enumerate(["QMi8x8o55Ns", "A1b2C3d4E5f"]):
        rows = [{"clip_id": f"{name}.{clip}.mp4", "span": list(span)} for clip, span in enumerate(clips)]
        address = f"https://www.youtube.com/watch?v={name}"
        lines(home / f"hdvila_part{number}.jsonl", [{"video_id": name, "url": address, "clip": rows}])
    film(home / "videos" / "QMi8x8o55Ns.mp4", 14)
    film(home / "videos" / "notInTheList.mp4", 1)
    return Expected(records=2, examples=2, dropped={"not_in_table": 1})


def acav(data: Path) -> Expected:
    """A CSV file of videoID, start and end, and clips named after them."""
    home = data / "acav"
    film(home / "clips" / "0a1b2c3d4e5_30_40.mp4", 10)
    film(home / "clips" / "-xYz_012345_0_10.mp4", 10, sound="0")
    rows = [["videoID", "start", "end"], ["0a1b2c3d4e5", 30, 40], ["-xYz_012345", 0, 10], ["gone0000000", 5, 15]]
    table(home / "acav100m.csv", rows)
    return Expected(records=2, examples=1, examples_dropped={"audio_silent": 1})


def audioset(data: Path) -> Expected:
    """The published CSV files (three lines of comment, a space after commas), the class names, ten-second clips."""
    home = data / "audioset"
    film(home / "clips" / "--4gqARaEJE_0.000_10.000.mp4", 10)
    film(home / "clips" / "--BfvyPmVMo_20.000_30.000.mp4", 10)
    (home / "balanced_train_segments.csv").write_text(
        "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=2, num_segs=2, num_unique_labels=3\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        '--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/07q6cd_"\n--BfvyPmVMo, 20.000, 30.000, "/m/03l9g"\n'
    )
    table(
        home / "class_labels_indices.csv",
        [
            ["index", "mid", "display_name"],
            [73, "/m/068hy", "Domestic animals, pets"],
            [413, "/m/07q6cd_", "Squeak"],
            [418, "/m/03l9g", "Hammer"],
        ],
    )
    return Expected(records=2, examples=2)


def webvid(data: Path) -> Expected:
    """``results_10M_train.csv`` and silent films in a folder for each page."""
    home = data / "webvid"
    film(home / "videos" / "000001_000050" / "31353427.mp4", 9, sound=None)
    film(home / "videos" / "000051_000100" / "14781349.mp4", 9, sound=None, moves=False)
    address = "https://ak.picdn.net/shutterstock/videos/{}/preview/stock.mp4"
    table(
        home / "results_10M_train.csv",
        [
            ["videoid", "contentUrl", "duration", "page_dir", "name"],
            [31353427, address.format(31353427), "PT00H00M09S", "000001_000050", "Tourists, walking on a roadside"],
            [14781349, address.format(14781349), "PT00H00M09S", "000051_000100", "Happy family using laptop"],
            [1, address.format(1), "PT00H00M09S", "000051_000100", "Gone"],
        ],
    )
    return Expected(records=2, examples=1, examples_dropped={"video_static": 1})


def ego4d(data: Path) -> Expected:
    """``v2/full_scale/<uid>.mp4``, ``v2/annotations/narration.json``, ``v2/manifest.csv``."""
    home = data / "ego4d" / "v2"
    uid = "001e3e4e-2743-47fc-8564-d5efd11f9e90"
    film(home / "full_scale" / f"{uid}.mp4", 9, sound=None)
    film(home / "clips" / "77cc4654-4eec-44c6-af05-dbdf71f9a401.mp4", 1)
    told = [(3.0, "#C C picks a bag of clothes from the floor"), (7.0, "#C C opens the door")]
    narrations = [
        {"timestamp_sec": time, "timestamp_frame": round(time * 30), "narration_text": text, "annotation_uid": "a"}
        for time, text in told
    ]
    notes = {"narrations": narrations, "summaries": [{"start_sec": 0, "end_sec": 9, "summary_text": "#Summary"}]}
    (home / "annotations").mkdir()
    (home / "annotations" / "narration.json").write_text(
        json.dumps({uid: {"status": "complete", "narration_pass_1": notes}})
    )
    table(home / "manifest.csv", [["video_uid", "canonical_s3_location"], [uid, "s3://ego4d/full_scale"]])
    return Expected(records=1, examples=1)


LAYOUTS: dict[str, Layout] = {
    "yt_temporal": yt_temporal,
    "hd_vila": hd_vila,
    "acav": acav,
    "audioset": audioset,
    "webvid": webvid,
    "ego4d": ego4d,
}
