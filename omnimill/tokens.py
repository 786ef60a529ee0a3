"""Token shards: the Arrow schema of a tokenized example, and the layout that says what its numbers mean.

Everything that plans (sampling, packing, cost) reads the length columns only, never media.
"""

from __future__ import annotations

import pyarrow as pa

from omnimill.config import Config
from omnimill.errors import IntegrityError
from omnimill.vocabulary_layout import NumberLayout, VocabularyLayout

TOKEN_SCHEMA_VERSION = 3
TOKEN_VERSION_KEY = b"omnimill.token_schema"

# Columns that say how long every stream is; `omnimill.training` plans from these and the roles alone.
LENGTH_COLUMNS = (
    "text_roles",
    "text_images",
    "text_audio",
    "text_items",
    "text_lengths",
    "image_patches",
    "history_patches",
    "audio_patches",
    "image_codes_lengths",
    "audio_codes_lengths",
    "target_roles",
    "target_images",
    "target_items",
    "target_codes_lengths",
)

_TEXT_COLUMNS = [
    # Segment i of the example: its role, the image, the audio clip and the item that it belongs to (null: none; without
    # an item it belongs to the whole example, see `omnimill.schema`), its ids without EOS.
    pa.field("text_roles", pa.list_(pa.string()), nullable=False),
    pa.field("text_images", pa.list_(pa.int32()), nullable=False),
    pa.field("text_audio", pa.list_(pa.int32()), nullable=False),
    pa.field("text_items", pa.list_(pa.int32()), nullable=False),
    pa.field("text_lengths", pa.list_(pa.int32()), nullable=False),
    pa.field("text_ids", pa.list_(pa.list_(pa.int32())), nullable=False),
]
_IMAGE_COLUMNS = [
    # Image i: valid patches on the input canvas and on the history canvas, number of codes (0: has none).
    pa.field("image_patches", pa.list_(pa.int32()), nullable=False),
    pa.field("history_patches", pa.list_(pa.int32()), nullable=False),
    pa.field("image_codes_lengths", pa.list_(pa.int32()), nullable=False),
    # JPEG or PNG already scaled to fit the input canvas; codes of the target canvas in raster order, from 0.
    pa.field("image_data", pa.list_(pa.large_binary()), nullable=False),
    pa.field("image_codes", pa.list_(pa.list_(pa.uint16())), nullable=False),
]
_AUDIO_COLUMNS = [
    # Clip i: valid spectrogram patches, number of codes (0: has none).
    pa.field("audio_patches", pa.list_(pa.int32()), nullable=False),
    pa.field("audio_codes_lengths", pa.list_(pa.int32()), nullable=False),
    # FLAC, mono, at the layout's sample rate, at most one segment long; codes time-major, from 0.
    pa.field("audio_data", pa.list_(pa.large_binary()), nullable=False),
    pa.field("audio_codes", pa.list_(pa.list_(pa.uint16())), nullable=False),
]
_TARGET_COLUMNS = [
    # Target picture i, one that the example asks for beside those that it shows: what a task calls it, the image and
    # the item that it belongs to (null: none).
    pa.field("target_roles", pa.list_(pa.string()), nullable=False),
    pa.field("target_images", pa.list_(pa.int32()), nullable=False),
    pa.field("target_items", pa.list_(pa.int32()), nullable=False),
    # Pixels of the target canvas that it covers, in the middle; the codes of the others are padding, see
    # `omnimill.tokenizers.image.covered_patches`.
    pa.field("target_heights", pa.list_(pa.int32()), nullable=False),
    pa.field("target_widths", pa.list_(pa.int32()), nullable=False),
    # Of a map with holes, a bit for each code, first code first: whether what it stands for is known; null: all is.
    pa.field("target_known", pa.list_(pa.binary()), nullable=False),
    # Codes of the target canvas, as of any picture: number, and the codes.
    pa.field("target_codes_lengths", pa.list_(pa.int32()), nullable=False),
    pa.field("target_codes", pa.list_(pa.list_(pa.uint16())), nullable=False),
]

TOKEN_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        *_TEXT_COLUMNS,
        *_IMAGE_COLUMNS,
        *_AUDIO_COLUMNS,
        *_TARGET_COLUMNS,
    ],
    metadata={TOKEN_VERSION_KEY: str(TOKEN_SCHEMA_VERSION).encode()},
)

# The role of a target picture that is a mask.
SEGMENTATION = "segmentation"

# Columns by what decides them: each part depends on the examples and on its own tokenizer or sizes alone, so a change
# of one leaves the columns of the others as they are. The columns that no part names are copied from the examples.
PARTS: dict[str, tuple[str, ...]] = {
    "text": ("text_roles", "text_images", "text_audio", "text_items", "text_lengths", "text_ids"),
    "image": ("image_patches", "history_patches", "image_data"),
    "image_codes": ("image_codes_lengths", "image_codes"),
    "audio": ("audio_patches", "audio_data"),
    "audio_codes": ("audio_codes_lengths", "audio_codes"),
    "target_codes": (
        "target_roles",
        "target_images",
        "target_items",
        "target_heights",
        "target_widths",
        "target_known",
        "target_codes_lengths",
        "target_codes",
    ),
}


def check_token_schema(schema: pa.Schema, where: str) -> None:
    """Refuse a table of another token schema version.

    Raises:
        IntegrityError: names `where`, the version found, the version this program reads, and what to do.
    """
    found = (schema.metadata or {}).get(TOKEN_VERSION_KEY, b"none").decode()
    if found != str(TOKEN_SCHEMA_VERSION):
        raise IntegrityError(
            f"{where}: token schema version {found}, but this omnimill reads version {TOKEN_SCHEMA_VERSION}; "
            "run `omnimill tokenize` again: it makes a new version of the token dataset from the same examples"
        )


class ImageLayout(Config):
    """Sizes of the image streams; the defaults are the reference's (paper, Table 8).

    input_size, history_size, target_size: side of the square canvas in pixels.
    patch: side of an encoder patch. code_stride: pixels per code and side. codes: codebook size.
    """

    input_size: int = 384
    history_size: int = 256
    target_size: int = 256
    patch: int = 16
    code_stride: int = 8
    codes: int = 16384

    @property
    def input_grid(self) -> int:
        return self.input_size // self.patch

    @property
    def history_grid(self) -> int:
        return self.history_size // self.patch

    @property
    def target_grid(self) -> int:
        return self.target_size // self.code_stride


class AudioLayout(Config):
    """Sizes of the audio streams; the defaults are the reference's (paper, Table 8).

    A segment of `segment_seconds` becomes `frames` x `mels` of log-mel spectrogram.
    patch: side of an encoder patch. code_patch: (time, mel) sides of the patch behind one code. codes: codebook size.
    """

    sample_rate: int = 16000
    segment_seconds: float = 4.08
    frames: int = 256
    mels: int = 128
    patch: int = 16
    code_patch: tuple[int, int] = (8, 8)
    codes: int = 8192

    @property
    def segment_samples(self) -> int:
        return round(self.segment_seconds * self.sample_rate)

    @property
    def input_grid(self) -> tuple[int, int]:
        """Encoder patches along (time, mel)."""
        return self.frames // self.patch, self.mels // self.patch

    @property
    def target_grid(self) -> tuple[int, int]:
        """Codes along (time, mel)."""
        return self.frames // self.code_patch[0], self.mels // self.code_patch[1]


class TokenLayout(Config):
    """What a token dataset's numbers mean; stored in its manifest's attributes under ``layout``.

    text_pieces: SentencePiece vocabulary size before the added tokens (32,000 for the reference).
    vocabulary: the tokens beside pieces and codes. numbers: how sparse structures are written.
    tokenizers: name of the tokenizer set under ``<root>/tokenizers``; digests: blake3 of its files by part.
    """

    text_pieces: int = 32000
    image: ImageLayout = ImageLayout()
    audio: AudioLayout = AudioLayout()
    vocabulary: VocabularyLayout = VocabularyLayout()
    numbers: NumberLayout = NumberLayout()
    tokenizers: str
    digests: dict[str, str]
