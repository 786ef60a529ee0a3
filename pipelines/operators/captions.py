"""Captions that say nothing about their picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field

from omnimill.pipelines.base import Operator
from omnimill.schema import Example, Text

# What authoring tools, cameras and templates leave where a description should be.
_STOCK = re.compile(
    r"(?:an? |the |my |this is (?:an? |the )?)?(?:featured |default |main |sample |test |new |full[- ]size )*"
    r"(?:image|img|picture|pic|photo|photograph|thumbnail|thumb|icon|logo|avatar|banner|placeholder|graphic|screenshot"
    r"|untitled|unnamed|unknown|no (?:name|title|caption|description|alt(?: text)?|image)(?: available)?|none|null|nan"
    r"|undefined|n/?a|tbd|todo|caption|title|description|alt(?:ernative)? text|alt|lorem ipsum.*|spacer|blank|default"
    r"|image (?:not available|coming soon|may contain.{0,3})|click (?:here|to enlarge|for (?:details|larger image)))"
    r"(?: (?:image|img|photo|picture|here|text))?[\s\d#.,:;!?()\[\]_-]*",
    re.IGNORECASE,
)
_CAMERA = re.compile(
    r"(?:IMG|DSCN?|DSCF|DSC|DCIM|PICT?|P|MVI|VID|GOPR|SAM|CIMG|PXL|WP|FB_IMG|Screenshot|Screen Shot|WhatsApp Image)?"
    r"[-_ ]?(?:at )?\d[-_\d\s.:()~]*(?:at [\d.]+)?(?:\s?[AP]M)?",
    re.IGNORECASE,
)
_FILE = re.compile(r"[^\s/\\]+\.(?:jpe?g|png|gif|webp|bmp|tiff?|heic|avif|svg|jfif|ico)", re.IGNORECASE)
_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|<%.*?%>|\$\{\w+\}|\[\[.*?\]\]|%[A-Z_]{3,}%|\{\w+\}")
# Characters of a caption that are looked at: what says nothing is short, and a hostile one is megabytes long.
_LOOK_AT = 2000
_HASH = re.compile(r"(?=.*\d)[0-9a-f]{16,}|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)


class CaptionPlaceholder(Operator):
    """Takes out captions that say nothing, and drops examples that are left without any text.

    A caption says nothing when it is a file's name (with its ending, or that of its own picture), a camera's numbering
    ("IMG_1234"), a stock word ("image", "untitled", "placeholder", "logo 2"), a bare URL, a hash, holds what a template
    should have replaced ("{{ title }}"), or has fewer letters than `min_letters` (an ideograph or a syllable sign
    counts for three). The share of such captions is the score `placeholder_captions`.

    remove: take them out; otherwise they are only measured.
    own_name: when it is the name of its own picture: `verbatim`, as it stands and with a digit, underscore or hyphen
        ("red_shoe" for red_shoe.jpg), or `any`, apart from case and separators ("Red shoe." too).
    """

    reads: ClassVar[tuple[str, ...]] = ("text", "images", "provenance")
    writes: ClassVar[tuple[str, ...]] = ("text", "meta")

    op: Literal["caption_placeholder"]
    roles: tuple[str, ...] = ("caption", "alt_text")
    remove: bool = True
    min_letters: int = Field(3, ge=0)
    own_name: Literal["verbatim", "any"] = "verbatim"

    def __call__(self, examples: Sequence[Example]) -> list[str | None]:
        return [self._judge(example) for example in examples]

    def _judge(self, example: Example) -> str | None:
        captions = [text for text in example.text if text.role in self.roles]
        if not captions:
            return None
        empty = [text for text in captions if self.says_nothing(text.text, _names(example, text))]
        example.meta.scores["placeholder_captions"] = len(empty) / len(captions)
        if not empty or not self.remove:
            return None
        gone = set(map(id, empty))
        left = [text for text in example.text if id(text) not in gone]
        if not left:
            return "caption_placeholder"
        example.text = left
        return None

    def says_nothing(self, caption: str, names: Sequence[str]) -> bool:
        """Whether a caption says nothing, of a picture that goes by these file names."""
        text = " ".join(caption[:_LOOK_AT].split()).strip(" .\"'“”*_-")
        if _letters(text) < self.min_letters or _TEMPLATE.search(text):
            return True
        if any(pattern.fullmatch(text) for pattern in (_STOCK, _CAMERA, _FILE, _URL, _HASH)):
            return True
        stems = [name.rsplit(".", 1)[0] for name in names]
        if self.own_name == "any":
            return _plain(text) in map(_plain, stems)
        return re.search(r"[\d_-]", text) is not None and text.casefold() in map(str.casefold, stems)


def _names(example: Example, text: Text) -> list[str]:
    """The file names of the picture of a text, or of all its example's when the text names none."""
    images = example.images if text.image is None else [example.images[text.image]]
    places = [image.uri for image in images if image.uri] or [example.provenance.uri]
    return [unquote(urlsplit(place).path).rsplit("/", 1)[-1] for place in [*places, example.key]]


def _letters(text: str) -> int:
    # Beyond the alphabets of Europe, Africa and India a sign is a syllable or a word.
    return sum(3 if char >= "\u2e80" else 1 for char in text if char.isalpha())


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()
