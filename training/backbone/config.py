"""Sizes of the backbone: one definition, four named sizes."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import Field

from omnimill.config import Config
from omnimill.errors import ConfigError
from omnimill.tokenizers.vocabulary import Vocabulary
from omnimill.tokens import TokenLayout

Size = Literal["tiny", "large", "xl", "xxl"]


class PatchEncoderConfig(Config):
    """A transformer over the patches of one picture or spectrogram.

    kind: ``vit``: one class token, norm after the embedding, positions resized to the grid in use. ``ast``: class and
        distillation tokens, positions run column by column and are read as they are.
    width, heads, layers, mlp: heads divide the width; features are those of the last and of the second layer.
    patch_values: numbers in a patch. positions: (rows, columns) of the learned position table.
    """

    kind: Literal["vit", "ast"]
    width: int
    heads: int
    layers: int = Field(ge=2)
    mlp: int
    patch_values: int
    positions: tuple[int, int]


class ResamplerConfig(Config):
    """A perceiver resampler; `latents` tokens stand for one history frame."""

    width: int
    heads: int
    head_width: int
    mlp: int
    latents: int
    attention: Literal["qk_norm", "scaled_cosine"] = "qk_norm"


class BackboneConfig(Config):
    """The encoder-decoder with its modality encoders.

    text_rows, image_rows, audio_rows: rows of the three tied tables.
    image_grid, history_grid, audio_grid: (rows, columns) of patches of a current picture, a history picture and a
        spectrogram (time, mel).
    image_target_grid, audio_target_grid: (rows, columns) of codes of a target picture and of a target clip (time, mel).
    sparse_decoder, dynamic_decoder: mask the self-attention over picture and sound targets as the paper says; off is
        what the released checkpoints compute, see `omnimill.training.backbone.masks`.
    audio_target_positions: ``tokens``: a code's place on its grid. ``released``: the place that it would have if the
        grid were the other way round, which is what the released checkpoints were trained with.
    frozen_encoders: no gradient enters the image and audio encoders.
    """

    width: int
    heads: int
    head_width: int
    mlp: int
    encoder_layers: int
    decoder_layers: int
    text_rows: int
    image_rows: int
    audio_rows: int
    image_grid: tuple[int, int]
    history_grid: tuple[int, int]
    audio_grid: tuple[int, int]
    image_target_grid: tuple[int, int]
    audio_target_grid: tuple[int, int]
    image_encoder: PatchEncoderConfig
    audio_encoder: PatchEncoderConfig
    image_resampler: ResamplerConfig
    audio_resampler: ResamplerConfig
    sparse_decoder: bool = False
    dynamic_decoder: bool = False
    audio_target_positions: Literal["tokens", "released"] = "tokens"
    frozen_encoders: bool = False

    @property
    def target_columns(self) -> tuple[int, int, int]:
        """Columns of the grid that a target of text (none: 0), pictures and sound lies on."""
        return 0, self.image_target_grid[1], self.audio_target_grid[1]

    @classmethod
    def of(cls, size: Size, layout: TokenLayout, frozen_encoders: bool | None = None) -> BackboneConfig:
        """The configuration of a named size for the streams of `layout`.

        Args:
            frozen_encoders: default: trained for ``tiny``, which has no pre-trained encoders to start from, frozen
                for the others. These also take the released positions of sound, so that they fit the released weights.

        Raises:
            ConfigError: the tokenizers keep codes in the text table.
        """
        if layout.vocabulary.joint:
            raise ConfigError(
                f"the backbone has a table for every modality; tokenizer set {layout.tokenizers!r} keeps codes of "
                f"{', '.join(layout.vocabulary.joint)} in the text table, for decoder-only models: train it with "
                "layout.vocabulary.joint empty"
            )
        shape = _SHAPES[size]
        vocabulary = Vocabulary.of(layout)
        grid, (rows, columns) = layout.image.input_grid, layout.audio.input_grid
        image_positions, audio_positions = ((grid, grid), (columns, rows)) if size == "tiny" else ((14, 14), (8, 64))
        return cls(
            **shape.stack,
            text_rows=vocabulary.text.rows,
            image_rows=vocabulary.tables["image"].rows,
            audio_rows=vocabulary.tables["audio"].rows,
            image_grid=(grid, grid),
            history_grid=(layout.image.history_grid, layout.image.history_grid),
            audio_grid=(rows, columns),
            image_target_grid=(layout.image.target_grid, layout.image.target_grid),
            audio_target_grid=layout.audio.target_grid,
            audio_target_positions="tokens" if size == "tiny" else "released",
            image_encoder=PatchEncoderConfig(
                kind="vit", patch_values=layout.image.patch**2 * 3, positions=image_positions, **shape.patches
            ),
            audio_encoder=PatchEncoderConfig(
                kind="ast", patch_values=layout.audio.patch**2, positions=audio_positions, **shape.patches
            ),
            image_resampler=ResamplerConfig(latents=shape.image_latents, **shape.resampler),
            audio_resampler=ResamplerConfig(latents=shape.audio_latents, **shape.resampler),
            frozen_encoders=size != "tiny" if frozen_encoders is None else frozen_encoders,
        )


class _Shape(NamedTuple):
    stack: dict[str, int]
    patches: dict[str, int]
    resampler: dict[str, Any]
    image_latents: int
    audio_latents: int


def _published(width: int, heads: int, head_width: int, mlp: int, resampler: dict[str, Any]) -> _Shape:
    """A size of the reference (Unified-IO 2, arXiv 2312.17172, Tables 1 and 9)."""
    stack = {"width": width, "heads": heads, "head_width": head_width, "mlp": mlp}
    patches = {"width": 768, "heads": 12, "layers": 11, "mlp": 3072}
    return _Shape({**stack, "encoder_layers": 24, "decoder_layers": 24}, patches, resampler, 32, 16)


def _resampler(width: int, heads: int, head_width: int, mlp: int, attention: str = "qk_norm") -> dict[str, Any]:
    return {"width": width, "heads": heads, "head_width": head_width, "mlp": mlp, "attention": attention}


_SHAPES: dict[Size, _Shape] = {
    "tiny": _Shape(
        {"width": 128, "heads": 4, "head_width": 32, "mlp": 352, "encoder_layers": 2, "decoder_layers": 2},
        {"width": 64, "heads": 2, "layers": 3, "mlp": 256},
        _resampler(64, 2, 32, 128),
        image_latents=8,
        audio_latents=4,
    ),
    "large": _published(1024, 16, 64, 2816, _resampler(768, 12, 64, 2048)),
    "xl": _published(2048, 16, 128, 5120, _resampler(1024, 16, 64, 4096)),
    "xxl": _published(3072, 24, 128, 8192, _resampler(1024, 16, 64, 4096, "scaled_cosine")),
}
