"""How an update is computed: spread over workers, in what precision, and what it counts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import NonNegativeFloat, PositiveInt, SerializerFunctionWrapHandler, model_serializer

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
    """What the loss of each target modality counts.

    mean: over what a modality's sum is divided. ``modality``: its own targets, so that each counts alike however many
        they are. ``all``: those of all modalities, so that every target counts alike: plain next-token likelihood.
        Written where it is not the first, so that older settings keep their digests.
    """

    text: NonNegativeFloat = 1.0
    image: NonNegativeFloat = 1.0
    audio: NonNegativeFloat = 1.0
    mean: Literal["modality", "all"] = "modality"

    @model_serializer(mode="wrap")
    def _without_the_first_mean(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = dump(self)
        if self.mean == "modality":
            body.pop("mean", None)
        return body
