"""What one example costs and what one packed sequence can hold: all that planning ever looks at."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from omnimill.config import Config


class Budgets(Config):
    """Room in one packed sequence; token defaults are the reference's for pre-training (paper, section B.3).

    encoder, decoder: tokens. images: current pictures. image_history: earlier pictures. audio: clips, current and
    earlier ones together.
    """

    encoder: int = Field(default=864, ge=1)
    decoder: int = Field(default=1280, ge=1)
    images: int = Field(default=4, ge=0)
    image_history: int = Field(default=8, ge=0)
    audio: int = Field(default=8, ge=0)

    @property
    def limits(self) -> tuple[int, ...]:
        """The budgets in the order of :attr:`Lengths.costs`."""
        return self.encoder, self.decoder, self.images, self.image_history, self.audio


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Exact number of slots of every stream of one example.

    text: encoder text with prefix token and EOS. image, audio: patches kept. image_history, audio_history: latents.
    target_text (with EOS), target_image, target_audio: decoder tokens.
    images, earlier_images, clips, earlier_clips: frames that the modality encoders run on.
    cut: tokens of the example's texts that the limits left out.
    """

    text: int
    image: int = 0
    image_history: int = 0
    audio: int = 0
    audio_history: int = 0
    target_text: int = 0
    target_image: int = 0
    target_audio: int = 0
    images: int = 0
    earlier_images: int = 0
    clips: int = 0
    earlier_clips: int = 0
    cut: int = 0

    @property
    def encoder(self) -> int:
        return self.text + self.image + self.image_history + self.audio + self.audio_history

    @property
    def decoder(self) -> int:
        return self.target_text + self.target_image + self.target_audio

    @property
    def costs(self) -> tuple[int, ...]:
        """What the example takes of each budget, in the order of :attr:`Budgets.limits`."""
        return self.encoder, self.decoder, self.images, self.earlier_images, self.clips + self.earlier_clips
