"""The configuration that ``tokenizer train`` and ``tokenize`` share."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from omnimill.config import Config
from omnimill.tokenizers.audio import hop_samples
from omnimill.tokenizers.augment import AugmentConfig
from omnimill.tokenizers.losses import LossConfig
from omnimill.tokenizers.networks import AudioNetworkConfig, ImageNetworkConfig, VitVqganConfig, VqganConfig
from omnimill.tokenizers.store import VectorRanges
from omnimill.tokenizers.text import BpeConfig
from omnimill.tokenizers.vocoder import VocoderConfig
from omnimill.tokens import AudioLayout, ImageLayout
from omnimill.vocabulary_layout import NumberLayout, VocabularyLayout

MAX_CODES = 1 << 16  # token shards hold codes as 16-bit numbers


class TextSettings(BpeConfig):
    """model: path or URL of an existing SentencePiece model, which is then used as it is; trained when None."""

    model: str | None = None


# Settings of training that say where, how fast and how watched, not what is learnt: they may change between launches.
# Weights stay the same to the last bit as long as workers, GPUs and threads do too, else up to the order of sums.
FREE_TO_CHANGE = frozenset(
    {"workers", "num_gpus", "threads", "loaders", "checkpoint_every", "log_every", "max_failures", "measured"}
)


class FitConfig(Config):
    """How a network is trained; the defaults are those of Unified-IO 2's audio ViT-VQGAN, its batch included.

    steps: updates in all; 0 takes the initial weights as they are.
    batch: pictures or clips of an update, over all workers. learning_rate: the highest; of AdamW, as betas and
        weight_decay are. warmup_steps: of linear growth; 2 % of the steps, as 20,000 of 1,000,000, when None.
    schedule: after that, half a cosine down to zero, or none. gradient_clip: most that the gradient's norm may be.
    held_out: share of the examples that measures quality; measured: pictures or clips of them at most.
    workers: processes that train together; one without a GPU is the command's own. num_gpus: of each; threads: of
        PyTorch, of each; loaders: threads that decode, of each.
    bf16: networks compute in bfloat16; weights, codebook and losses stay in float32.
    max_failures: times that lost workers are started again.
    """

    steps: int = Field(default=1_000_000, ge=0)
    batch: int = Field(default=512, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup_steps: int | None = Field(default=None, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    gradient_clip: float = Field(default=1.0, gt=0)
    losses: LossConfig = LossConfig()
    held_out: float = Field(default=0.1, gt=0, lt=1)
    measured: int = Field(default=256, ge=1)
    workers: int = Field(default=1, ge=1)
    num_gpus: float = Field(default=0.0, ge=0)
    threads: int = Field(default=1, ge=1)
    loaders: int = Field(default=1, ge=1)
    bf16: bool = False
    checkpoint_every: int = Field(default=1000, ge=1)
    log_every: int = Field(default=50, ge=1)
    max_failures: int = Field(default=2, ge=0)

    @model_validator(mode="after")
    def _shared_out(self) -> Self:
        if self.batch % self.workers:
            raise ValueError(f"batch ({self.batch}) must be a multiple of workers ({self.workers})")
        return self


class ImageFitConfig(FitConfig):
    """side: of the canvas in training, in pixels; the layout's target_size when None. A convolutional network may
    learn from smaller pieces than it works on.
    augment: random scale and crop, see `omnimill.tokenizers.augment`; whole pictures when None.
    """

    side: int | None = Field(default=None, ge=1)
    augment: AugmentConfig | None = None


class AudioFitConfig(FitConfig):
    """random_segments: learn from any segment of a longer clip, instead of the one in its middle."""

    random_segments: bool = False


class ImageSettings(Config):
    """weights: path or URL of a published checkpoint that the network starts from, see docs/tokenizers.md."""

    network: ImageNetworkConfig = VqganConfig()
    weights: str | None = None
    training: ImageFitConfig = ImageFitConfig()


class VocoderSettings(Config):
    """weights: path or URL of the published generator. network: its shape."""

    weights: str
    network: VocoderConfig = VocoderConfig()


class AudioSettings(Config):
    """weights: as for pictures. vocoder: makes waveforms of decoded spectrograms; Griffin-Lim does when None."""

    network: AudioNetworkConfig = VitVqganConfig()
    weights: str | None = None
    vocoder: VocoderSettings | None = None
    training: AudioFitConfig = AudioFitConfig()


class LayoutSettings(Config):
    """Sizes of the streams, see `omnimill.tokens`; the defaults are the reference's.

    vocabulary: the tokens beside pieces of text and codes. numbers: how sparse structures are written.
    """

    image: ImageLayout = ImageLayout()
    audio: AudioLayout = AudioLayout()
    vocabulary: VocabularyLayout = VocabularyLayout()
    numbers: NumberLayout = NumberLayout()

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        image, audio = self.image, self.audio
        for name, size, part in (
            ("image.input_size", image.input_size, image.patch),
            ("image.history_size", image.history_size, image.patch),
            ("image.target_size", image.target_size, image.code_stride),
            ("audio.frames", audio.frames, audio.patch),
            ("audio.mels", audio.mels, audio.patch),
            ("audio.frames", audio.frames, audio.code_patch[0]),
            ("audio.mels", audio.mels, audio.code_patch[1]),
        ):
            if size % part:
                raise ValueError(f"{name} must be a multiple of {part}, found {size}")
        for name, codes in (("image.codes", image.codes), ("audio.codes", audio.codes)):
            if not 2 <= codes <= MAX_CODES:
                raise ValueError(f"{name} must lie between 2 and {MAX_CODES}, found {codes}")
        if self.numbers.form == "locations" and not self.vocabulary.locations:
            raise ValueError("numbers.form must be decimals in a vocabulary without location tokens, found locations")
        return self


class ActorSettings(Config):
    """The pool that tokenizes.

    count: actors; as many as the cluster has room for, up to this number, work at once. min_count: so many are kept
        while the cluster has other work too.
    num_cpus: of each; as many threads prepare examples. num_gpus: of each; several may share one, by fractions. In a
        cluster with fewer GPUs than one actor asks for, actors run on CPUs.
    batch: pictures or spectrograms that a network takes at a time.
    bf16: networks compute in bfloat16. compile: they go through `torch.compile`. Like `batch`, both may change codes
        that lie near a boundary, so media are encoded again when one of them is changed.
    """

    count: int = Field(default=2, ge=1)
    min_count: int = Field(default=1, ge=1)
    num_cpus: float = Field(default=1.0, gt=0)
    num_gpus: float = Field(default=0.0, ge=0)
    batch: int = Field(default=16, ge=1)
    bf16: bool = False
    compile: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_count > self.count:
            raise ValueError(f"min_count ({self.min_count}) must not be above count ({self.count})")
        return self


class TokenizerConfig(Config):
    """name: of the tokenizer set. dataset: examples; tokens: token dataset to make of them. seed: of training.

    selections: of the examples, by name; what one leaves out is neither learnt from nor tokenized.
    ranges: of states and actions by source, where they should not be what the dataset holds.
    jpeg_quality: of the pictures in token shards. max_quarantined_share: of the examples, before `tokenize` fails.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    dataset: str
    tokens: str
    selections: tuple[str, ...] = ()
    seed: int = 0
    layout: LayoutSettings = LayoutSettings()
    text: TextSettings = TextSettings()
    image: ImageSettings = ImageSettings()
    audio: AudioSettings = AudioSettings()
    ranges: dict[str, VectorRanges] = Field(default_factory=dict)
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    max_quarantined_share: float = Field(default=0.05, ge=0, le=1)
    actors: ActorSettings = ActorSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tokens == self.dataset:
            raise ValueError(f"the token dataset needs a name of its own, found {self.tokens!r} for both")
        stride = self.layout.image.code_stride
        if self.image.network.stride != stride:
            raise ValueError(
                f"image.network makes a code of {self.image.network.stride} pixels a side, "
                f"layout.image.code_stride says {stride}"
            )
        side = self.image.training.side
        if side is not None and side % stride:
            raise ValueError(f"image.training.side must be a multiple of layout.image.code_stride ({stride})")
        vocoder = self.audio.vocoder
        if vocoder is not None and vocoder.network.hop != hop_samples(self.layout.audio):
            raise ValueError(
                f"audio.vocoder.network makes {vocoder.network.hop} samples of a frame, "
                f"layout.audio has {hop_samples(self.layout.audio)} between frames"
            )
        return self
