"""The kinds of code networks, chosen by their settings' `type`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from omnimill.tokenizers.code_network import CodeNetwork
from omnimill.tokenizers.patch_vq import (
    AudioPatchesConfig,
    ImagePatchesConfig,
    audio_patch_network,
    image_patch_network,
)
from omnimill.tokenizers.vit_vqgan import VitVqgan, VitVqganConfig
from omnimill.tokenizers.vqgan import Vqgan, VqganConfig
from omnimill.tokens import AudioLayout, ImageLayout

__all__ = [
    "AudioNetworkConfig",
    "AudioPatchesConfig",
    "CodeNetwork",
    "ImageNetworkConfig",
    "ImagePatchesConfig",
    "VitVqganConfig",
    "VqganConfig",
    "audio_network",
    "image_network",
]

ImageNetworkConfig = Annotated[VqganConfig | ImagePatchesConfig, Field(discriminator="type")]
AudioNetworkConfig = Annotated[VitVqganConfig | AudioPatchesConfig, Field(discriminator="type")]


def image_network(config: ImageNetworkConfig, layout: ImageLayout) -> CodeNetwork:
    """Network for pictures, its codebook not yet placed."""
    if isinstance(config, VqganConfig):
        return Vqgan(config, layout)
    return image_patch_network(config, layout)


def audio_network(config: AudioNetworkConfig, layout: AudioLayout) -> CodeNetwork:
    """Network for spectrograms, its codebook not yet placed."""
    if isinstance(config, VitVqganConfig):
        return VitVqgan(config, layout)
    return audio_patch_network(config, layout)
