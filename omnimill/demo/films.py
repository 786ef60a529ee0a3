"""Short films of the photographs: a camera moves over two of them, a tune plays, subtitles say what is seen."""

from __future__ import annotations

from pathlib import Path

import cv2
import ffmpeg
import imageio_ffmpeg
import numpy as np
import soundfile

from omnimill.demo.photos import photo

FRAME_RATE = 10
SAMPLE_RATE = 16000
SCENE_SECONDS = 10.2  # two scenes make five segments of 4.08 s
WIDTH, HEIGHT = 192, 144

# Photographs of a film, how the camera moves over each, the instrument.
FILMS = [
    ("coffee", "chelsea", "right", "closer", "flute"),
    ("rocket", "hubble_deep_field", "up", "left", "organ"),
    ("china", "flower", "right", "away", "bells"),
    ("astronaut", "moon", "closer", "down", "organ"),
    ("motorcycle_left", "gravel", "left", "right", "bells"),
    ("retina", "cell", "closer", "away", "flute"),
    ("grass", "brick", "down", "up", "bells"),
    ("coins", "page", "right", "down", "flute"),
]
NAMES = {
    "coffee": "a cup of coffee",
    "chelsea": "a tabby cat",
    "rocket": "a rocket",
    "hubble_deep_field": "far galaxies",
    "china": "a temple",
    "flower": "an orange flower",
    "astronaut": "an astronaut",
    "moon": "the moon",
    "motorcycle_left": "a motorcycle",
    "gravel": "gravel",
    "retina": "the inside of an eye",
    "cell": "a cell",
    "grass": "grass",
    "brick": "a brick wall",
    "coins": "old coins",
    "page": "a printed page",
}
_MOVES = {
    "right": "The camera moves right over",
    "left": "The camera moves left over",
    "up": "The camera rises over",
    "down": "The camera sinks over",
    "closer": "We come closer to",
    "away": "We back away from",
}
_SCALE = (0, 2, 4, 7, 9)  # major pentatonic, in half-tones
_OVERTONES = {"flute": (1.0, 0.1), "organ": (1.0, 0.6, 0.4, 0.3), "bells": (1.0, 0.0, 0.5, 0.0, 0.4)}


def write_films(folder: Path) -> None:
    """One H.264 film with sound and one WebVTT file for each of `FILMS`."""
    folder.mkdir(parents=True)
    for number, (first, second, move_first, move_second, instrument) in enumerate(FILMS):
        scenes = [(first, move_first), (second, move_second)]
        stem = f"{first}_and_{second}"
        sound = folder / f"{stem}.wav"
        soundfile.write(sound, _melody(number, instrument), SAMPLE_RATE)
        _encode(folder / f"{stem}.mp4", sound, np.concatenate([_scene(*scene) for scene in scenes]))
        sound.unlink()
        (folder / f"{stem}.vtt").write_text(_subtitles(scenes, instrument))


def _scene(name: str, move: str) -> np.ndarray:
    """Frames of a camera move: uint8 [n, HEIGHT, WIDTH, 3]."""
    picture = photo(name)
    height, width = picture.shape[:2]
    frames = []
    for t in np.linspace(0.0, 1.0, round(SCENE_SECONDS * FRAME_RATE)):
        share = {"closer": 0.95 - 0.5 * t, "away": 0.45 + 0.5 * t}.get(move, 0.6)
        side_w = min(width, height * WIDTH / HEIGHT) * share
        side_h = side_w * HEIGHT / WIDTH
        across = {"right": t, "left": 1 - t}.get(move, 0.5)
        along = {"down": t, "up": 1 - t}.get(move, 0.5)
        left, top = (width - side_w) * across, (height - side_h) * along
        to_source = np.array([[side_w / WIDTH, 0, left], [0, side_h / HEIGHT, top]], dtype=np.float64)
        flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
        frames.append(cv2.warpAffine(picture, to_source, (WIDTH, HEIGHT), flags=flags, borderMode=cv2.BORDER_REPLICATE))
    return np.stack(frames)


def _melody(film: int, instrument: str) -> np.ndarray:
    """A tune of half-second notes: float32 [samples] in -1..1."""
    note_samples = SAMPLE_RATE // 2
    t = np.arange(note_samples) / SAMPLE_RATE
    decay = np.exp(-t * {"bells": 6.0, "flute": 1.5, "organ": 0.5}[instrument]) * np.minimum(1.0, t * 50)
    notes = []
    for i in range(round(2 * SCENE_SECONDS * 2) + 1):
        step = _SCALE[(i * (film + 2) + i // 4) % len(_SCALE)] + 12 * ((i // 5 + film) % 2)
        pitch = 220.0 * 2 ** (step / 12)
        tones = enumerate(_OVERTONES[instrument], start=1)
        notes.append(0.3 * decay * sum(level * np.sin(2 * np.pi * pitch * k * t) for k, level in tones))
    return np.concatenate(notes)[: round(2 * SCENE_SECONDS * SAMPLE_RATE)].astype(np.float32)


def _encode(target: Path, sound: Path, frames: np.ndarray) -> None:
    video = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{WIDTH}x{HEIGHT}", framerate=FRAME_RATE)
    options = {
        "vcodec": "libx264",
        "pix_fmt": "yuv420p",
        "crf": 20,
        "threads": 1,
        "acodec": "aac",
        "audio_bitrate": "64k",
    }
    output = ffmpeg.output(video, ffmpeg.input(str(sound)), str(target), fflags="+bitexact", shortest=None, **options)
    output.run(cmd=imageio_ffmpeg.get_ffmpeg_exe(), input=frames.tobytes(), quiet=True, overwrite_output=True)


def _subtitles(scenes: list[tuple[str, str]], instrument: str) -> str:
    lines = ["WEBVTT", ""]
    for i, (name, move) in enumerate(scenes):
        start = i * SCENE_SECONDS
        cues = [
            (start + 0.2, start + 3.9, f"{_MOVES[move]} {NAMES[name]}."),
            (start + 4.2, start + 7.0, f"You hear the {instrument}."),
            (start + 7.2, start + 10.0, f"This is still {NAMES[name]}."),
        ]
        for begin, end, text in cues:
            lines += [f"{_stamp(begin)} --> {_stamp(end)}", text, ""]
    return "\n".join(lines)


def _stamp(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"00:{int(minutes):02d}:{rest:06.3f}"
