"""Small copies of published annotations of films, sound and agents, in their files, columns and units.

``FORMATS`` gives for every format a function that writes it below a folder and returns the source that reads it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import soundfile
from layouts.video import film

Source = dict[str, Any]
RATE = 16_000


@cache
def film_bytes(seconds: float = 2.0) -> bytes:
    """A film of 64 x 48 pixels at 10 frames a second, with sound."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        film(path, seconds, size="64x48")
        return path.read_bytes()


def put_film(path: Path, seconds: float = 2.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(film_bytes(seconds))


def put_sound(path: Path, seconds: float, tone: float = 440.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * tone * np.arange(int(RATE * seconds)) / RATE), RATE)


def put_picture(path: Path, number: int, width: int = 80, height: int = 60) -> None:
    """A picture with a bright square that moves to the right with its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), 40, np.uint8)
    pixels[20:36, 4 + 4 * number : 20 + 4 * number] = (60, 200, 240)
    assert cv2.imwrite(str(path), pixels)


def put_json(path: Path, said: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(said), encoding="utf-8")


def put_csv(path: Path, rows: list[list[Any]], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)


def films(folder: Path, table: dict[str, Any], **more: Any) -> Source:
    return {"name": "films", "type": "video", "path": str(folder), "segments": "equal", "table": table, **more}


def sounds(folder: Path, table: dict[str, Any], **more: Any) -> Source:
    return {"name": "sounds", "type": "audio_files", "path": str(folder), "segments": "equal", "table": table, **more}


def audiocaps(folder: Path) -> Source:
    """``train.csv``: a caption of ten seconds of a YouTube film, the sound as ``<youtube_id>_<start>.wav``."""
    put_csv(
        folder / "train.csv",
        [
            ["audiocap_id", "youtube_id", "start_time", "caption"],
            [91139, "r1nicOVtvkQ", 130, "A woman talks nearby as water pours"],
            [58146, "UDGBjjwyaqE", 20, "Multiple clanging and clanking sounds"],
        ],
    )
    put_sound(folder / "train" / "r1nicOVtvkQ_130.wav", 10.0)
    put_sound(folder / "train" / "notInTheTable_0.wav", 1.0)
    return sounds(folder, {"files": ["train.csv"], "file": "{youtube_id}_{start_time}", "caption": "caption"})


def clotho(folder: Path) -> Source:
    """``clotho_captions_development.csv``: five captions per file, the files in ``development/``."""
    put_csv(
        folder / "clotho_captions_development.csv",
        [
            ["file_name", *(f"caption_{number}" for number in range(1, 6))],
            ["Distorted AM Radio noise.wav", *(f"A muddled noise of broken channel {number}" for number in "abcde")],
        ],
    )
    put_sound(folder / "development" / "Distorted AM Radio noise.wav", 3.0)
    captions = [f"caption_{number}" for number in range(1, 6)]
    table = {"files": ["clotho_captions_*.csv"], "file": "{file_name}", "caption": captions}
    return sounds(folder, table)


def musiccaps(folder: Path) -> Source:
    """``musiccaps-public.csv``: aspects as a list in Python's writing, and a caption of ten seconds."""
    header = "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,is_balanced_subset"
    aspects = "\"['low quality', 'sustained strings melody']\""
    row = f'-0Gj8-vB1q4,30,40,"/m/0140xf,/m/02cjck",{aspects},"The low quality recording features a ballad.",4,False'
    (folder).mkdir(parents=True, exist_ok=True)
    (folder / "musiccaps-public.csv").write_text(f"{header}\n{row}\n")
    put_sound(folder / "audio" / "-0Gj8-vB1q4.wav", 5.0)
    labels = {"labels": "aspect_list", "label_strip": "[]'\""}
    table = {"files": ["musiccaps-public.csv"], "file": "{ytid}", "caption": "caption", **labels}
    return sounds(folder, table)


def ljspeech(folder: Path) -> Source:
    """``metadata.csv``: id, text, normalised text with bars between them, quotation marks as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.csv").write_text('LJ001-0001|"Printing, in 15|"Printing, in fifteen\n', encoding="utf-8")
    put_sound(folder / "wavs" / "LJ001-0001.wav", 2.0)
    columns = {"columns": ["id", "text", "normalised"], "delimiter": "|", "quoted": False}
    return sounds(folder, {"files": ["metadata.csv"], "file": "wavs/{id}", "caption": "normalised", **columns})


def macs(folder: Path) -> Source:
    """``MACS.yaml``: per file the captions and tags of several annotators."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MACS.yaml").write_text(
        "files:\n- filename: airport-barcelona-0-0-a.wav\n  annotations:\n"
        "  - annotator_id: 59\n    sentence: Adults talking and some footsteps.\n"
        "    tags: [adults_talking, footsteps]\n"
        "  - annotator_id: 62\n    sentence: People are walking.\n    tags: [footsteps]\n"
    )
    put_sound(folder / "audio" / "airport-barcelona-0-0-a.wav", 2.0)
    table = {
        "files": ["MACS.yaml"],
        "file": "{filename}",
        "rows": "files.*.annotations.*",
        "caption": "sentence",
        "labels": "tags",
        "split_labels": True,
    }
    return sounds(folder, table)


def vggsound(folder: Path) -> Source:
    """``vggsound.csv`` without header: YouTube id, start, label, split; films as ``<id>_<start in six digits>.mp4``."""
    put_csv(folder / "vggsound.csv", [["---g-f_I2yQ", 1, "people marching", "test"]])
    put_film(folder / "video" / "---g-f_I2yQ_000001.mp4")
    table = {
        "files": ["vggsound.csv"],
        "columns": ["id", "start", "label", "split"],
        "file": "{id}_{start:06d}",
        "labels": "label",
        # A label may hold a comma.
        "label_separator": "\n",
        "tags": {"split": "split"},
    }
    return films(folder, table)


def msrvtt(folder: Path) -> Source:
    """``train_val_videodatainfo.json``: ``videos`` and, apart from them, ``sentences``."""
    said = {
        "info": {"year": "2016"},
        "videos": [{"category": 9, "video_id": "video2960", "split": "train", "id": 2960}],
        "sentences": [
            {"caption": "a cartoon animals runs through an ice cave", "video_id": "video2960", "sen_id": 0},
            {"caption": "cartoon character runs around", "video_id": "video2960", "sen_id": 1},
        ],
    }
    put_json(folder / "train_val_videodatainfo.json", said)
    put_film(folder / "TrainValVideo" / "video2960.mp4")
    table = {"files": ["*videodatainfo.json"], "rows": "sentences.*", "file": "{video_id}", "caption": "caption"}
    return films(folder, table)


def msrvtt_qa(folder: Path) -> Source:
    """``train_qa.json``: a list of questions with one-word answers; films by number."""
    rows = [
        {"answer": "couch", "category_id": 14, "id": 0, "question": "what are three people sitting on?", "video_id": 0},
        {"answer": "show", "category_id": 14, "id": 1, "question": "what is a family having?", "video_id": 0},
    ]
    put_json(folder / "train_qa.json", rows)
    put_film(folder / "video" / "video0.mp4")
    questions = {"question": "question", "answer": "answer"}
    table = {"files": ["*_qa.json"], "file": "video{video_id}", "questions": questions}
    return films(folder, table, current="middle")


def star(folder: Path) -> Source:
    """``STAR_train.json``: questions about spans of films, with choices; the answer is the text of one."""
    row = {
        "question_id": "Interaction_T1_13",
        "question": "Which object was tidied up by the person?",
        "video_id": "6H78U",
        "start": 0.4,
        "end": 1.6,
        "answer": "The closet/cabinet.",
        "choices": [{"choice_id": 0, "choice": "The blanket."}, {"choice_id": 1, "choice": "The closet/cabinet."}],
    }
    put_json(folder / "STAR_train.json", [row])
    put_film(folder / "Charades_v1_480" / "6H78U.mp4")
    questions = {"question": "question", "answer": "answer", "choices": "choices"}
    span = {"start": "start", "end": "end", "cut": True}
    return films(
        folder,
        {"files": ["STAR_*.json"], "file": "{video_id}", "questions": questions, **span},
        current="middle",
    )


def m4_vitevqa(folder: Path) -> Source:
    """``ViteVQA_*train.json``: ``data`` with questions and several answers each."""
    row = {"video_id": "09921", "question": "what is on the sign?", "answers": ["stop", "stop sign"], "question_id": 1}
    put_json(folder / "ViteVQA_0.0.2_t1s1train.json", {"dataset_name": "ViteVQA", "data": [row]})
    put_film(folder / "videos" / "09921.mp4")
    questions = {"question": "question", "answer": "answers"}
    table = {"files": ["ViteVQA_*.json"], "rows": "data.*", "file": "{video_id}", "questions": questions}
    return films(folder, table, current="middle")


def vatex(folder: Path) -> Source:
    """``vatex_training_v1.0.json``: ten English and ten Chinese captions; films by id and span."""
    row = {
        "videoID": "Ptf_2VRj-V0_000122_000132",
        "enCap": ["Someone is using a rope.", "A man climbs."],
        "chCap": ["x"],
    }
    put_json(folder / "vatex_training_v1.0.json", [row])
    put_film(folder / "videos" / "Ptf_2VRj-V0_000122_000132.mp4")
    return films(folder, {"files": ["vatex_*.json"], "file": "{videoID}", "caption": "enCap"})


def activitynet(folder: Path) -> Source:
    """``train.json``: by film the times of its events and, in a list beside it, their sentences."""
    film_of = {"duration": 2.0, "timestamps": [[0.0, 1.2], [1.0, 2.0]], "sentences": ["A girl dances.", " She sits."]}
    put_json(folder / "train.json", {"v_QOlSCBRmfWY": film_of})
    put_film(folder / "videos" / "v_QOlSCBRmfWY.mp4")
    table = {
        "files": ["train.json"],
        "rows": "{video}",
        "file": "{video}",
        "parallel": ["timestamps", "sentences"],
        "start": "timestamps.0",
        "end": "timestamps.1",
        "caption": "sentences",
        "cut": True,
    }
    return films(folder, table)


def kinetics(folder: Path) -> Source:
    """``train.csv`` and films as ``<youtube id>_<start>_<end>.mp4`` with six digits each."""
    header = ["label", "youtube_id", "time_start", "time_end", "split"]
    put_csv(folder / "train.csv", [header, ["testifying", "---QUuC4vJs", 84, 94, "train"]])
    put_film(folder / "train" / "---QUuC4vJs_000084_000094.mp4")
    name = "{youtube_id}_{time_start:06d}_{time_end:06d}"
    return films(folder, {"files": ["train.csv"], "file": name, "labels": "label", "label_separator": "\n"})


def ssv2(folder: Path) -> Source:
    """``train.json`` of Something-Something v2: a template with things in brackets; films as ``<id>.webm``."""
    row = {
        "id": "78687",
        "label": "holding potato next to vicks vaporub bottle",
        "template": "Holding [something] next to [something]",
        "placeholders": ["potato", "vicks vaporub bottle"],
    }
    put_json(folder / "labels" / "train.json", [row])
    put_film(folder / "20bn-something-something-v2" / "78687.webm")
    labels = {"labels": "template", "label_strip": "[]", "label_separator": "\n"}
    return films(folder, {"files": ["labels/train.json"], "file": "{id}", **labels})


def ucf101(folder: Path) -> Source:
    """``trainlist01.txt`` (path, number of the class) and ``classInd.txt`` (number, name in capitals)."""
    splits = folder / "ucfTrainTestlist"
    splits.mkdir(parents=True)
    (splits / "classInd.txt").write_text("1 ApplyEyeMakeup\n2 ApplyLipstick\n")
    (splits / "trainlist01.txt").write_text("ApplyLipstick/v_ApplyLipstick_g08_c01.avi 2\n")
    put_film(folder / "UCF-101" / "ApplyLipstick" / "v_ApplyLipstick_g08_c01.avi")
    names = {
        "file": "ucfTrainTestlist/classInd.txt",
        "columns": ["number", "name"],
        "delimiter": " ",
        "key": "number",
        "name": "name",
    }
    table = {
        "files": ["ucfTrainTestlist/trainlist0*.txt"],
        "columns": ["path", "class"],
        "delimiter": " ",
        "file": "{path}",
        "labels": "class",
        "label_names": names,
        "split_labels": True,
    }
    return films(folder, table)


def epic_kitchens(folder: Path, **more: Any) -> Source:
    """``EPIC_100_train.csv``: actions in long films, with clock times."""
    header = ["narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp", "narration", "verb"]
    rows = [["P01_01_0", "P01", "P01_01", "00:00:01.10", "00:00:01.90", "open door", "open"]]
    put_csv(folder / "EPIC_100_train.csv", [header, *rows])
    put_film(folder / "P01" / "videos" / "P01_01.MP4")
    span = {"start": "start_timestamp", "end": "stop_timestamp", "cut": True, **more}
    table = {"files": ["EPIC_100_train.csv"], "file": "{video_id}", "labels": "narration", "label_separator": "\n"}
    return films(folder, {**table, **span})


def epic_anticipation(folder: Path) -> Source:
    """The same: what is seen ends before the action begins."""
    return epic_kitchens(folder, before=(0.6, 0.2))


def got10k(folder: Path) -> Source:
    """A folder per film: frames from 1, ``groundtruth.txt`` (x, y, width, height), ``absence.label``, what it is."""
    home = folder / "train" / "GOT-10k_Train_000001"
    for number in range(1, 10):
        put_picture(home / f"{number:08d}.jpg", number)
    (home / "groundtruth.txt").write_text("".join(f"{4 + 4 * n}.0000,20.0000,16.0000,16.0000\n" for n in range(1, 10)))
    (home / "absence.label").write_text("0\n" * 9)
    (home / "cover.label").write_text("8\n" * 9)
    (home / "meta_info.ini").write_text(
        "[METAINFO]\nurl: https://example.org\nbegin: 00:00:27\nanno_fps: 10Hz\nobject_class: beetle\nmotion: fly\n"
    )
    return {"name": "tracks", "type": "tracks", "layout": "got10k", "path": str(folder), "step": 2}


def lasot(folder: Path) -> Source:
    """``<class>/<class>-<n>/img``, ``groundtruth.txt``, flags on one line, a sentence in ``nlp.txt``."""
    home = folder / "airplane" / "airplane-1"
    for number in range(1, 7):
        put_picture(home / "img" / f"{number:08d}.jpg", number)
    (home / "groundtruth.txt").write_text("".join(f"{4 + 4 * n},20,16,16\n" for n in range(1, 7)))
    (home / "full_occlusion.txt").write_text("0,1,0,0,0,0\n")
    (home / "out_of_view.txt").write_text("0,0,0,0,0,0\n")
    (home / "nlp.txt").write_text("white airplane landing on ground")
    return {"name": "tracks", "type": "tracks", "layout": "lasot", "path": str(folder), "step": 1}


def youtube_bb(folder: Path) -> Source:
    """``yt_bb_detection_train.csv`` without header: boxes each second, as x1, x2, y1, y2 in shares."""
    rows: list[list[Any]] = [
        ["AAB6lO-XiKE", time * 250, 0, "person", 0, "present", 0.1 + time / 20, 0.4 + time / 20, 0.2, 0.8]
        for time in range(1, 7)
    ]
    rows[3][5:] = ["absent", -1.0, -1.0, -1.0, -1.0]
    put_csv(folder / "yt_bb_detection_train.csv", rows)
    put_film(folder / "videos" / "AAB6lO-XiKE.mp4")
    source = {"name": "boxes", "type": "video_boxes", "layout": "youtube_bb", "path": str(folder)}
    return {**source, "apart_seconds": 0.25}


def ava(folder: Path) -> Source:
    """``ava_train_v2.2.csv`` without header: second, x1, y1, x2, y2 in shares, action, person; names as pbtxt."""
    rows = [
        ["-5KQ66BBWC4", "0001", 0.077, 0.151, 0.283, 0.811, 80, 1],
        ["-5KQ66BBWC4", "0001", 0.077, 0.151, 0.283, 0.811, 9, 1],
        ["-5KQ66BBWC4", "0001", 0.5, 0.151, 0.9, 0.811, 9, 0],
        ["-5KQ66BBWC4", "0002", "", "", "", "", "", ""],
    ]
    put_csv(folder / "ava_train_v2.2.csv", rows[:3])
    (folder / "ava_action_list_v2.2.pbtxt").write_text(
        'label {\n  name: "read"\n  label_id: 9\n  label_type: OBJECT_MANIPULATION\n}\n'
        'label {\n  name: "watch (a person)"\n  label_id: 80\n  label_type: PERSON_INTERACTION\n}\n'
    )
    put_film(folder / "videos" / "-5KQ66BBWC4.mkv")
    source = {"name": "boxes", "type": "video_boxes", "layout": "ava", "path": str(folder), "apart_seconds": 0.3}
    return {**source, "names": "ava_action_list_v2.2.pbtxt"}


def flickr_soundnet(folder: Path) -> Source:
    """``frames``, ``audio`` and ``Annotations`` by name; three people's boxes on a grid of 256."""
    put_picture(folder / "frames" / "10000130166.jpg", 3, 128, 128)
    put_sound(folder / "audio" / "10000130166.wav", 6.0)
    boxes = [(30, 60, 130, 190), (32, 64, 128, 192), (40, 70, 120, 180)]
    drawn = "".join(
        "<bbox><label>object</label>"
        + "".join(f"<{tag}>{v}</{tag}>" for tag, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bbox>"
        for box in boxes
    )
    (folder / "Annotations").mkdir()
    (folder / "Annotations" / "10000130166.xml").write_text(
        f"<annotation><annotators>{drawn}</annotators></annotation>"
    )
    return {"name": "sound-places", "type": "sound_places", "path": str(folder)}


def vima(folder: Path) -> Source:
    """A folder per trajectory, as `omnimill.pipelines.adapters.table_manipulation` says."""
    home = folder / "visual_manipulation" / "000000"
    for name, number in (("prompt_0", 1), ("prompt_1", 4), ("000000", 8), ("000001", 9)):
        put_picture(home / "frames" / f"{name}.jpg", number)
    put_json(
        home / "episode.json",
        {
            "episode_id": "000000",
            "task": "visual_manipulation",
            "prompt": "Put the {dragged_obj} into the {base_obj}.",
            "prompt_assets": {"base_obj": "frames/prompt_1.jpg", "dragged_obj": "frames/prompt_0.jpg"},
            "frames": ["frames/000000.jpg", "frames/000001.jpg"],
            "actions": [
                {
                    "pose0_position": [0.61, -0.2],
                    "pose0_rotation": [0.0, 0.0, 0.0, 1.0],
                    "pose1_position": [0.42, 0.1],
                    "pose1_rotation": [0.0, 0.0, 0.7071, 0.7071],
                }
            ],
            "end_effector": "suction",
        },
    )
    return {"name": "vima", "type": "table_manipulation", "path": str(folder)}


FORMATS: dict[str, Callable[[Path], Source]] = {
    maker.__name__: maker
    for maker in (
        activitynet, audiocaps, ava, clotho, epic_anticipation, epic_kitchens, flickr_soundnet, got10k, kinetics, lasot,
        ljspeech, m4_vitevqa, macs, msrvtt, msrvtt_qa, musiccaps, ssv2, star, ucf101, vatex, vggsound, vima, youtube_bb,
    )
}  # fmt: skip
