"""One small example for every task family: a drawn scene with known annotations, in the roles that families read."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageDraw

from omnimill.locations import spherical_views
from omnimill.pipelines.decoders.audio import SAMPLE_RATE, encode_flac
from omnimill.pipelines.decoders.masks import mask_png
from omnimill.pipelines.decoders.pixels import settle
from omnimill.pipelines.operators.augmentation_types import AUGMENTATION_TYPES
from omnimill.schema import (
    Annotation,
    Audio,
    Example,
    Image,
    Provenance,
    Target,
    Text,
    Trajectory,
    View,
    example_id,
)

WIDTH, HEIGHT = 192, 144
Pixels = npt.NDArray[np.uint8]
# Corners x1, y1, x2, y2 in pixels, and what draws them.
OBJECTS: dict[str, tuple[int, int, int, int]] = {
    "crate": (84, 60, 150, 120),
    "lamp": (156, 12, 180, 60),
    "ball": (20, 70, 68, 118),
}
_COLOURS = {"ball": (206, 48, 42), "crate": (160, 110, 60), "lamp": (250, 220, 90), "cup": (70, 120, 210)}


def scene(moved: int = 0, without: tuple[str, ...] = (), view: int = 0) -> Pixels:
    """A room: wall, floor, a ball (shifted to the right by so many pixels), a crate and a lamp."""
    picture = Pillow.new("RGB", (WIDTH, HEIGHT), (214, 220, 228))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 92 + view, WIDTH, HEIGHT), fill=(120, 104, 92))
    for x in range(-40 + 3 * view, WIDTH, 24):
        draw.line((x, HEIGHT, x + 30, 92 + view), fill=(96, 82, 72))
    for name, (x1, y1, x2, y2) in OBJECTS.items():
        if name not in without:
            shift = moved if name == "ball" else 0
            shape = draw.ellipse if name == "ball" else draw.rectangle
            shape((x1 + shift, y1, x2 + shift - 1, y2 - 1), fill=_COLOURS[name], outline=(30, 30, 30))
    return np.asarray(picture, np.uint8)


def box(name: str, moved: int = 0) -> list[float]:
    x1, y1, x2, y2 = OBJECTS[name]
    return [y1 / HEIGHT, (x1 + moved) / WIDTH, y2 / HEIGHT, (x2 + moved) / WIDTH]


def mask(name: str) -> bytes:
    x1, y1, x2, y2 = OBJECTS.get(name, (0, 0, 0, 0))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = (rows >= y1) & (rows < y2) & (columns >= x1) & (columns < x2)
    if name == "ball":
        inside &= ((rows - (y1 + y2) / 2) / 24) ** 2 + ((columns - (x1 + x2) / 2) / 24) ** 2 <= 1
    return mask_png(inside)


def image(pixels: Pixels) -> Image:
    data = png(pixels)
    return Image(data=data, format="png", width=pixels.shape[1], height=pixels.shape[0], digest="")


def png(pixels: Pixels) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def npy(values: npt.NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values.astype(np.float32))
    return stream.getvalue()


def clip(low: float, high: float) -> Audio:
    """A second of a tone that rises."""
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    waveform = 0.5 * np.sin(2 * np.pi * (low * time + (high - low) / 2 * time**2))
    data = encode_flac(waveform.astype(np.float32))
    return Audio(data=data, format="flac", sample_rate=SAMPLE_RATE, channels=1, samples=len(waveform), digest="")


def spot(name: str, role: str | None = None, item: int | None = None, **more: Any) -> Annotation:
    return Annotation(kind="box", image=0, box=box(name), role=role, item=item, **more)


def said(role: str, text: str, item: int | None = None, **more: Any) -> Text:
    return Text(role=role, text=text, item=item, **more)


def film(*text: Text, frames: int = 5, sound: bool = False, **columns: Any) -> dict[str, Any]:
    images = [image(scene(moved=14 * number)) for number in range(frames)]
    audio = [clip(200 + 150 * number, 400 + 150 * number) for number in range(frames)] if sound else []
    return {"images": images, "audio": audio, "text": list(text), **columns}


def photo(*text: Text, annotations: tuple[Annotation, ...] = (), **columns: Any) -> dict[str, Any]:
    return {"images": [image(scene())], "text": list(text), "annotations": list(annotations), **columns}


def ask(question: str, answer: str) -> tuple[Text, Text]:
    return said("question", question, 0), said("answer", answer, 0)


def rounded() -> npt.NDArray[np.float64]:
    """Surface normals: a wall that faces the camera, a floor that faces up, and the round ball."""
    normals = np.zeros((HEIGHT, WIDTH, 3))
    normals[..., 2] = 1
    normals[92:] = (0, 1, 0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    x, y = (columns - 44) / 24, (94 - rows) / 24
    ball = x**2 + y**2 < 0.98
    normals[ball] = np.stack([x, y, np.sqrt(np.maximum(1 - x**2 - y**2, 0))], axis=-1)[ball]
    return normals


def robot(steps: int = 3) -> dict[str, Any]:
    path = Trajectory(
        episode="lift",
        first_step=0,
        steps_per_second=10.0,
        state_names=["x", "y"],
        action_names=["dx", "dy", "grip"],
        states=[[0.1 * step, 0.2 * step] for step in range(steps)],
        actions=[[0.1, 0.2, step / steps] for step in range(steps)],
        step_images=list(range(steps)),
    )
    words = ["go to the ball", "grasp the ball", "lift the ball"]
    told = [said("step", word, image=number) for number, word in enumerate(words)]
    return film(said("instruction", "lift the ball"), *told, frames=steps, trajectory=path)


def turned() -> dict[str, Any]:
    views: list[View] = spherical_views([(1.2, 0.4 * number, 2.0) for number in range(3)])
    return {"images": [image(scene(view=6 * number, moved=9 * number)) for number in range(3)], "views": views}


def tracked() -> dict[str, Any]:
    track = [
        Annotation(kind="box", role="track", image=number, box=box("ball", 14 * number), item=0) for number in range(4)
    ]
    last = Annotation(kind="box", image=4, box=box("ball", 56), item=0)
    return film(annotations=[*track, last])


CLASSES = tuple(
    part
    for item, name in enumerate((*OBJECTS, "cup"))
    for part in (said("classes", name, item), Annotation(kind="region", image=0, mask=mask(name), item=item))
)
CLASS_TEXTS = tuple(part for part in CLASSES if isinstance(part, Text))
CLASS_MASKS = tuple(part for part in CLASSES if isinstance(part, Annotation))
CAPTION = said("caption", "A red ball and a wooden crate under a yellow lamp in an empty room.")
LISTED = tuple(spot(name, label=name) for name in OBJECTS)
EXPRESSIONS = tuple(
    said("expression", words, item)
    for item, words in enumerate(("the big box on the right", "what gives light", "the round red thing"))
)
EXPRESSION_BOXES = tuple(spot(name, item=item) for item, name in enumerate(OBJECTS))
RELATIONS: dict[str, Any] = photo(
    said("predicate", "left of", 0),
    said("predicate", "under", 1),
    annotations=(
        spot("ball", "subject", 0, label="ball"),
        spot("crate", "object", 0, label="crate"),
        spot("ball", "subject", 1, label="ball"),
        spot("lamp", "object", 1, label="lamp"),
    ),
)
POSE = [v for number in range(17) for v in (0.3 + 0.03 * number, 0.5 + 0.02 * (number % 4), 2 if number % 5 else 0)]
CUBOID = [0.4, 0.1, 2.0, 0.6, 0.5, 0.5, *np.eye(3).reshape(-1).tolist(), 160.0, WIDTH / 2, HEIGHT / 2]
PERSON: dict[str, Any] = photo(
    annotations=(
        Annotation(kind="region", image=0, box=[0.2, 0.4, 0.95, 0.7], item=0),
        Annotation(kind="keypoints", image=0, values=POSE, item=0),
    )
)
NORMALS: dict[str, Any] = photo(targets=[Target(kind="normals", data=npy(rounded()), format="npy", image=0)])

# What each family's example holds.
COLUMNS: dict[str, Callable[[], dict[str, Any]]] = {
    "image-from-text": lambda: photo(CAPTION),
    "image-from-web-text": lambda: photo(CAPTION),
    "controllable-image-editing": lambda: photo(
        said("control", "segmentation"),
        CAPTION,
        targets=[Target(kind="picture", role="picture", data=png(scene()), format="png", image=0)],
    ),
    "image-editing": lambda: photo(
        said("instruction", "Take the ball away.", 0),
        targets=[Target(kind="picture", role="edited", data=png(scene(without=("ball",))), format="png", item=0)],
    ),
    "next-frame-generation": tracked,
    "image-inpainting": lambda: photo(
        said("label", "crate", 0),
        annotations=(Annotation(kind="region", image=0, box=box("crate"), item=0),),
        images=[image(scene(without=("crate",)))],
        targets=[Target(kind="picture", role="picture", data=png(scene()), format="png", image=0, item=0)],
    ),
    "view-synthesis": turned,
    "view-completion": lambda: film(frames=2),
    "audio-from-text": lambda: {"audio": [clip(200, 2000)], "text": [said("caption", "a whistle that rises")]},
    "music-from-text": lambda: {"audio": [clip(400, 410)], "text": [said("caption", "one calm note of an organ")]},
    "speech-from-text": lambda: {"audio": [clip(150, 300)], "text": [said("caption", "the ball is red")]},
    "audio-from-video": lambda: film(sound=True),
    "vqa": lambda: photo(*ask("What colour is the ball?", "red")),
    "image-captioning": lambda: photo(CAPTION),
    "web-image-captioning": lambda: photo(CAPTION),
    "paragraph-captioning": lambda: photo(CAPTION),
    "region-classification": lambda: photo(
        said("label", "crate", 0), annotations=(Annotation(kind="region", image=0, box=box("crate"), item=0),)
    ),
    "image-tagging": lambda: photo(said("label", "ball")),
    "species-tagging": lambda: photo(said("label", "Pila rubra")),
    "scene-tagging": lambda: photo(said("label", "empty room")),
    "relationship-prediction": lambda: RELATIONS,
    "region-captioning": lambda: photo(
        said("phrase", "a wooden crate", 0), annotations=(Annotation(kind="region", image=0, box=box("crate"), item=0),)
    ),
    "image-instruction-following": lambda: photo(*ask("Tell a story about this room.", "Once a ball met a crate.")),
    "image-pair-qa": lambda: film(*ask("What is different?", "The ball has moved to the right."), frames=2),
    "object-detection": lambda: photo(annotations=LISTED),
    "object-localization": lambda: photo(said("label", "ball", 0), annotations=(spot("ball", item=0),)),
    "referring-expression": lambda: photo(*EXPRESSIONS, annotations=EXPRESSION_BOXES),
    "3d": lambda: photo(
        annotations=(Annotation(kind="cuboid", image=0, box=box("crate"), values=CUBOID, label="crate"),)
    ),
    "camera-pose": turned,
    "text-detection": lambda: photo(annotations=(spot("crate", label="FRAGILE"),)),
    "keypoint-detection": lambda: PERSON,
    "semantic-segmentation": lambda: photo(*CLASS_TEXTS, annotations=CLASS_MASKS),
    "localized-segmentation": lambda: photo(
        annotations=(Annotation(kind="region", image=0, box=box("ball"), label="ball", mask=mask("ball"), item=0),)
    ),
    "surface-normal-estimation": lambda: NORMALS,
    "referring-expression-segmentation": lambda: photo(
        EXPRESSIONS[2], annotations=(Annotation(kind="region", image=0, mask=mask("ball"), item=2),)
    ),
    "depth-estimation": lambda: photo(
        targets=[
            Target(kind="depth", data=npy(np.linspace(9, 1, HEIGHT)[:, None].repeat(WIDTH, 1)), format="npy", image=0)
        ]
    ),
    "optical-flow": lambda: film(
        frames=2,
        targets=[
            Target(
                kind="flow",
                data=npy(np.stack(np.meshgrid(np.linspace(-9, 9, WIDTH), np.linspace(-9, 9, HEIGHT)), -1)),
                format="npy",
                image=1,
            )
        ],
    ),
    "video-captioning": lambda: film(said("caption", "A ball rolls to the right."), sound=True),
    "video-tagging": lambda: film(said("label", "rolling")),
    "action-anticipation": lambda: film(said("label", "falling")),
    "video-question-answering": lambda: film(*ask("Which way does the ball roll?", "right"), sound=True),
    "video-instruction-following": lambda: film(*ask("Describe how the ball moves.", "It rolls to the right.")),
    "video-tracking": tracked,
    "video-action-localization": lambda: film(
        said("label", "roll", 0), annotations=[Annotation(kind="box", image=4, box=box("ball", 56), item=0)]
    ),
    "video-sound-localization": lambda: film(
        sound=True, annotations=[Annotation(kind="box", image=4, box=box("lamp"))]
    ),
    "audio-tagging": lambda: {"audio": [clip(200, 2000)], "text": [said("label", "whistle")]},
    "audio-captioning": lambda: {"audio": [clip(200, 2000)], "text": [said("caption", "a whistle rises")]},
    "music-captioning": lambda: {"audio": [clip(400, 410)], "text": [said("caption", "one calm note of an organ")]},
    "speech-transcription": lambda: {"audio": [clip(150, 300)], "text": [said("caption", "the ball is red")]},
    "text-instruction-following": lambda: {"text": [*ask("Name a round thing.", "a ball")]},
    "language-modeling": lambda: {
        "text": [said("body", "Balls roll because they are round, and crates stay where they are. " * 6)]
    },
    "code-modeling": lambda: {"text": [said("code", "def roll(ball):\n    return ball.x + 1\n" * 5)]},
    "action-prediction": robot,
    "action-from-picture": robot,
    "action-in-words": robot,
    "next-frame-state-prediction": robot,
    "next-state-prediction": robot,
    "goal-generation": lambda: film(said("instruction", "roll the ball to the right"), frames=2),
    "embodied-qa": lambda: photo(*ask("Can you grasp the ball from here?", "yes")),
}

_BOXED: dict[str, Any] = photo(*EXPRESSIONS, annotations=(*LISTED, *EXPRESSION_BOXES))
_SEGMENTED: dict[str, Any] = photo(CAPTION, *CLASS_TEXTS, annotations=CLASS_MASKS)
_SUBGOALS: dict[str, Any] = film(*(said("subgoal", "roll the ball to the lamp", image=number) for number in range(3)))
# Families of augmentation: the operator that makes them, its settings, and what it starts from.
AUGMENTED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "segmentation-any-of": ("augment_segmentation", {"variants": ["any_of"]}, _SEGMENTED),
    "segmentation-none-of": ("augment_segmentation", {"variants": ["none_of"]}, _SEGMENTED),
    "segmentation-within": ("augment_segmentation", {"variants": ["within"]}, _SEGMENTED),
    "box-property": ("augment_boxes", {"variants": ["property"]}, _BOXED),
    "box-format": ("augment_boxes", {"variants": ["format"]}, _BOXED),
    "detection-any-of": ("augment_detection", {"variants": ["any_of"], "vocabulary": [*OBJECTS, "cup"]}, _BOXED),
    "expressions-in-order": ("augment_detection", {"variants": ["several"]}, _BOXED),
    "joint-boxes": ("augment_detection", {"variants": ["joint"]}, _BOXED),
    "relations-of-box": ("augment_relations", {"variants": ["of_box"]}, RELATIONS),
    "relations-of-class": ("augment_relations", {"variants": ["of_class"]}, RELATIONS),
    "caption-longer": ("augment_captions", {"variants": ["longer"]}, _SEGMENTED),
    "caption-shorter": ("augment_captions", {"variants": ["shorter"]}, _SEGMENTED),
    "caption-with-words": ("augment_captions", {"variants": ["words"]}, _SEGMENTED),
    "caption-with-start": ("augment_captions", {"variants": ["start"]}, _SEGMENTED),
    "keypoint-of-part": ("augment_keypoints", {}, PERSON),
    "normals-channels": ("augment_normals", {"variants": ["channels"]}, NORMALS),
    "normals-at-point": ("augment_normals", {"variants": ["point"]}, NORMALS),
    "normals-facing": ("augment_normals", {"variants": ["facing"]}, NORMALS),
    "episode-plan": ("augment_episodes", {"variants": ["plan"]}, robot()),
    "episode-affordance": ("augment_episodes", {"variants": ["affordance"]}, robot()),
    "subgoal-generation": ("augment_goals", {"of": "subgoal"}, _SUBGOALS),
    # The operators that change the picture, for families of the table.
    "image-inpainting": ("augment_inpainting", {}, _BOXED),
    "controllable-image-editing": ("augment_control", {}, _SEGMENTED),
}


def example(source: str, columns: dict[str, Any]) -> Example:
    """An example of its own: lists are copied, so that an operator changes nothing else."""
    own = {name: list(value) if isinstance(value, list) else value for name, value in columns.items()}
    key = f"{source}/0"
    return Example(
        id=example_id(source, key, ""),
        source=source,
        unit="u",
        key=key,
        provenance=Provenance(uri="", digest=""),
        **own,
    )


def augmented(operator: str, settings: dict[str, Any], one: Example) -> Example:
    """An example that an operator has been over."""
    assert verdict(operator, settings, one) is None
    return one


def verdict(operator: str, settings: dict[str, Any], one: Example) -> str | None:
    """What an operator of augmentation says of an example, which it changes."""
    kind = next(kind for kind in AUGMENTATION_TYPES if operator in str(kind.model_fields["op"].annotation))
    (reason,) = kind.model_validate({"op": operator, **settings})([one])
    settle(one)
    return reason


@cache
def examples() -> dict[str, Example]:
    """By family; of a family that an operator makes, the operator's."""
    found = {name: example(name, columns()) for name, columns in COLUMNS.items()}
    for name, (operator, settings, columns) in AUGMENTED.items():
        found[name] = augmented(operator, settings, example(name, columns))
    return found
