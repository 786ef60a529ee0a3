"""How an update is computed: spread over workers, in what precision, and what it counts."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, PositiveInt

from omnimill.config import Config


class ParallelSettings(Config):
    """What changes nothing of what is learnt but the order of summation.

    strategy: ``ddp``: every worker has the whole model; ``fsdp``: every worker has a part of every parameter, of its
        gradient and of its optimizer state. Alone, a worker has the whole model either way.
    micro_batches: parts that a worker's sequences are computed in, one after the other; gradients are added up.
    checkpoint_activations: keep of every layer its input alone, and compute it again for the gradients.
    compile: layers by ``torch.compile``.
    attention: of packed sequences. ``auto``: on CUDA flex attention, which skips blocks of slots in which nobody looks
        at anybody, elsewhere as ``masked``: all pairs of slots, and then a mask.
    """

    strategy: Literal["ddp", "fsdp"] = "ddp"
    micro_batches: PositiveInt = 1
    checkpoint_activations: bool = False
    compile: bool = False
    attention: Literal["auto", "masked"] = "auto"


class PrecisionSettings(Config):
    """What is computed in what. Parameters, gradients, the optimizer, norms, the softmax of attention, logits and the
    modality encoders are float32 always.

    activations: of the layers of encoder and decoder, and of their weights while they are used.
    tf32: let float32 products on CUDA round their factors to TF32.
    """

    activations: Literal["float32", "bfloat16"] = "float32"
    tf32: bool = True


class LossWeights(Config):
    """What the mean loss of each target modality counts."""

    text: NonNegativeFloat = 1.0
    image: NonNegativeFloat = 1.0
    audio: NonNegativeFloat = 1.0
