"""How rows become examples: the numbers that a training configuration sets."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from omnimill.config import Config
from omnimill.tokenizers.vocabulary import HISTORY
from omnimill.training.objectives.settings import ObjectiveSettings


class RenderSettings(Config):
    """How rows become examples; token and patch numbers default to the reference's pre-training (paper, section B.4).

    max_text, max_target_text: most tokens of encoder and decoder text, EOS included.
    image_keep, history_keep, audio_keep: share of a canvas's patches that the encoder keeps at most; drawn anew per
    epoch. history_keep is of earlier pictures, audio_keep of current and earlier clips.
    history_frames: most earlier pictures and most earlier clips.
    image_latents, audio_latents: what the backbone's resampler makes of one earlier picture or clip.
    prompt_drop: share of image generation examples whose prompt is replaced by `uninformative_prompt`, for
    classifier-free guidance (the reference: 0.1 when instruction tuning); it may be a special token of the vocabulary.
    form: ``pairs`` of encoder input and decoder target, or one ``sequence``; follows from the kind of backbone. Written
    where it is no pair, so that older settings keep their digests.
    """

    max_text: int = Field(default=512, ge=32)
    max_target_text: int = Field(default=512, ge=8)
    image_keep: float = Field(default=0.5, gt=0, le=1)
    history_keep: float = Field(default=0.5, gt=0, le=1)
    audio_keep: float = Field(default=0.5, gt=0, le=1)
    history_frames: int = Field(default=4, ge=0, le=HISTORY)
    image_latents: int = Field(default=32, ge=1)
    audio_latents: int = Field(default=16, ge=1)
    prompt_drop: float = Field(default=0.0, ge=0, le=1)
    uninformative_prompt: str = "An image of a random picture."
    objectives: ObjectiveSettings = ObjectiveSettings()
    form: Literal["pairs", "sequence"] = "pairs"

    @model_serializer(mode="wrap")
    def _without_pairs(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = dump(self)
        if self.form == "pairs":
            body.pop("form", None)
        return body
