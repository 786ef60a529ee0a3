"""Photographs that ship inside installed packages, with captions; as a folder and, cut into details, as tar files."""

from __future__ import annotations

import io
import json
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from omnimill import rng
from omnimill.errors import OmnimillError

# Package, file inside it, caption.
PHOTOS = [
    ("skimage", "data/astronaut.png", "An astronaut in an orange space suit smiles in front of a flag."),
    ("skimage", "data/brick.png", "A wall of bricks laid in even rows."),
    ("skimage", "data/camera.png", "A man looks through a film camera on a tripod, in black and white."),
    ("skimage", "data/cell.png", "A single cell seen through a microscope."),
    ("skimage", "data/chelsea.png", "A tabby cat with green eyes looks past the camera."),
    ("skimage", "data/clock_motion.png", "A wall clock, blurred because the camera moved."),
    ("skimage", "data/coffee.png", "A cup of coffee with a spoon on a wooden table."),
    ("skimage", "data/coins.png", "Rows of old coins on a dark background."),
    ("skimage", "data/color.png", "A table of colours used to check a camera."),
    ("skimage", "data/grass.png", "Blades of grass seen from above, in black and white."),
    ("skimage", "data/gravel.png", "Small stones of gravel, in black and white."),
    ("skimage", "data/hubble_deep_field.jpg", "Many galaxies on a black sky, seen by a space telescope."),
    ("skimage", "data/ihc.png", "Stained tissue in brown and blue under a microscope."),
    ("skimage", "data/microaneurysms.png", "A small part of a retina with fine vessels."),
    ("skimage", "data/moon.png", "The surface of the moon with craters."),
    ("skimage", "data/motorcycle_left.png", "A motorcycle stands in a workshop among tools."),
    ("skimage", "data/motorcycle_right.png", "A motorcycle in a workshop, seen from slightly further right."),
    ("skimage", "data/page.png", "A page of printed text, unevenly lit."),
    ("skimage", "data/retina.jpg", "The inside of an eye, with the optic disc and red vessels."),
    ("skimage", "data/rocket.jpg", "A rocket lights up as it leaves the launch pad."),
    ("skimage", "data/text.png", "Handwritten lines on paper."),
    ("sklearn", "datasets/images/china.jpg", "A temple with curved roofs and red walls under a blue sky."),
    ("sklearn", "datasets/images/flower.jpg", "A flower with orange and yellow petals on a dark ground."),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "A woman in navy uniform sits before a flag."),
]

DETAILS_PER_PHOTO = 12
DETAILS_PER_TAR = 96
_ROWS = ("upper", "middle", "lower")
_COLUMNS = ("left", "centre", "right")


def package_file(package: str, file: str) -> Path:
    """A data file of an installed package.

    Raises:
        OmnimillError: the package is not installed or does not hold the file.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise OmnimillError(f"the demo needs the package {package!r}: pip install 'omnimill[demo]'")
    path = Path(spec.origin).parent / file
    if not path.exists():
        raise OmnimillError(f"the installed {package!r} has no {file}: pip install 'omnimill[demo]'")
    return path


def photo(name: str) -> np.ndarray:
    """One of `PHOTOS` by its file's stem, as uint8 [height, width, 3]."""
    package, file, _ = next(entry for entry in PHOTOS if Path(entry[1]).stem == name)
    with Image.open(package_file(package, file)) as image:
        return np.asarray(image.convert("RGB"))


def write_photos(folder: Path) -> None:
    """The photographs as they are, ``captions.jsonl``, and two files to turn down: an icon and a cut-off file."""
    folder.mkdir(parents=True)
    lines = []
    for package, file, caption in PHOTOS:
        source = package_file(package, file)
        (folder / source.name).write_bytes(source.read_bytes())
        lines.append({"image": source.name, "caption": caption})
    rocket = package_file("skimage", "data/rocket.jpg").read_bytes()
    (folder / "rocket_cut_off.jpg").write_bytes(rocket[: len(rocket) // 3])
    lines.append({"image": "rocket_cut_off.jpg", "caption": "A rocket, but the file ends too early."})
    icon = Image.fromarray(photo("coffee")).resize((24, 24))
    icon.save(folder / "coffee_icon.png")
    lines.append({"image": "coffee_icon.png", "caption": "A tiny picture of a cup."})
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_details(folder: Path, seed: int) -> None:
    """Square details of the photographs with captions that say where they lie, as WebDataset tars."""
    folder.mkdir(parents=True)
    members = [detail for _, file, caption in PHOTOS for detail in _details(Path(file).stem, caption, seed)]
    for number, start in enumerate(range(0, len(members), DETAILS_PER_TAR)):
        with tarfile.open(folder / f"details-{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in (pair for member in members[start : start + DETAILS_PER_TAR] for pair in member):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _details(name: str, caption: str, seed: int) -> list[list[tuple[str, bytes]]]:
    picture = photo(name)
    height, width = picture.shape[:2]
    result = []
    for i in range(DETAILS_PER_PHOTO):
        draw = rng.generator(seed, "detail", name, i)
        side = int(min(height, width) * draw.uniform(0.35, 0.75))
        top, left = (int(draw.integers(0, whole - side + 1)) for whole in (height, width))
        crop = np.ascontiguousarray(picture[top : top + side, left : left + side])
        crop = np.asarray(Image.fromarray(crop).resize((192, 192), Image.Resampling.LANCZOS))
        place = f"{_third(top + side / 2, height, _ROWS)} {_third(left + side / 2, width, _COLUMNS)}"
        text = f"A detail from the {place}: {caption[0].lower()}{caption[1:]}"
        key = f"{name}_{i:03d}"
        jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(crop), quality=92, colorspace="RGB")
        facts = json.dumps({"photo": name, "box": [top, left, top + side, left + side]}).encode()
        result.append([(f"{key}.jpg", jpeg), (f"{key}.txt", text.encode()), (f"{key}.json", facts)])
    return result


def _third(position: float, whole: int, names: tuple[str, str, str]) -> str:
    return names[min(2, int(3 * position / whole))]
