"""Networks from published checkpoints, and back to the names they were published under.

A network's tensors are looked for under the names of the reference (the PyTorch port of Unified-IO 2, the whole model
or the code network alone), of taming-transformers, and of this program's own files. Nothing may be
left over or missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from omnimill.errors import OmnimillError
from omnimill.infra import storage
from omnimill.progress import console
from omnimill.tokenizers.checkpoints import Checkpoint, open_checkpoint
from omnimill.tokenizers.config import AudioSettings, ImageSettings, TokenizerConfig, VocoderSettings
from omnimill.tokenizers.networks import CodeNetwork, audio_network, image_network
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.vit_vqgan import VitVqgan
from omnimill.tokenizers.vocoder import HifiGan
from omnimill.tokenizers.vqgan import Vqgan
from omnimill.tokens import AudioLayout, ImageLayout

Form = Literal["reference", "taming", "own"]

LLAMA_PIECES = 32000
# Where the reference's whole model keeps its code networks.
PREFIXES = {"image": "target_embedders.image.vqgan.", "audio": "target_embedders.audio.vqgan."}

# What can be given for each setting, where it was published, and under which name.
PUBLISHED = {
    "text.model": (
        "tokenizer.model: LLaMA's SentencePiece model of 32,000 pieces; with the LLaMA weights at llama.meta.com, on "
        "Hugging Face in meta-llama/Llama-2-7b",
    ),
    "image.weights": (
        "model.safetensors or pytorch_model.bin, whole or in parts with their .index.json: Unified-IO 2, of which the "
        f"tensors {PREFIXES['image']}* are read; on Hugging Face in allenai/uio2-large, -xl and -xxl",
        "model.ckpt: the same network by itself (VQGAN for Open Images, f = 8, 16,384 codes, vq-f8); in the table of "
        "models of CompVis/taming-transformers",
        "image.safetensors: of a tokenizer set of this program",
    ),
    "audio.weights": (
        "model.safetensors or pytorch_model.bin, whole or in parts with their .index.json: Unified-IO 2, of which the "
        f"tensors {PREFIXES['audio']}* are read; on Hugging Face in allenai/uio2-large, -xl and -xxl",
        "audio.safetensors: of a tokenizer set of this program",
    ),
    "audio.vocoder.weights": (
        "g_00930000: HiFi-GAN's generator; in demo/hifigan/checkpoints of allenai/unified-io-2 on GitHub",
        "vocoder.safetensors: of a tokenizer set of this program",
    ),
}

_RENAMES = (
    (re.compile(r"\.(down|up)\.(\d+)\.(block|attn)\.(\d+)\."), r".\1_\2_\3_\4."),
    (re.compile(r"\.(down|up)\.(\d+)\.((?:down|up)sample)\."), r".\1_\2_\3."),
    (re.compile(r"\.mid\."), ".mid_"),
    (re.compile(r"\.layers\.(\d+)\."), r".encoderblock_\1."),
    (re.compile(r"^quantiser\.codebook$"), "quantize.embedding.weight"),
)
# Names of a weight's length and direction under weight normalisation, before and since PyTorch's parametrisations.
_LENGTHS = ((".weight_g", ".weight_v"), (".parametrizations.weight.original0", ".parametrizations.weight.original1"))
_SHOWN = 8


def initial_network(settings: ImageSettings | AudioSettings, layout: ImageLayout | AudioLayout) -> CodeNetwork:
    """The network of some settings: filled from their `weights`, or as it is made when they name none.

    Args:
        settings: ``image`` or ``audio`` of a tokenizer configuration.
        layout: of the same modality.

    Raises:
        OmnimillError: the weights do not exist, cannot be read, or are those of another network.
    """
    if isinstance(settings, ImageSettings) and isinstance(layout, ImageLayout):
        kind, network = "image", image_network(settings.network, layout)
    elif isinstance(settings, AudioSettings) and isinstance(layout, AudioLayout):
        kind, network = "audio", audio_network(settings.network, layout)
    else:
        raise TypeError(f"settings and layout of one modality, found {type(settings)}, {type(layout)}")
    if settings.weights is not None:
        with _explained(f"{kind}.weights"), open_checkpoint(settings.weights) as checkpoint:
            fill(network, checkpoint)
    return network


def initial_vocoder(settings: VocoderSettings, layout: AudioLayout) -> HifiGan:
    """The generator of some settings, with the published weights that they name.

    Raises:
        OmnimillError: the weights do not exist, cannot be read, or are those of another network.
    """
    network = HifiGan(settings.network, layout.mels)
    with _explained("audio.vocoder.weights"), open_checkpoint(settings.weights) as checkpoint:
        tensors = _without_weight_norm(checkpoint.read(checkpoint.names))
        _load(network, {name: name for name in network.state_dict()}, tensors, checkpoint.url)
    return network


def text_model(url: str) -> TextTokenizer:
    """An existing SentencePiece model; says so when it is not of LLaMA's size.

    Raises:
        OmnimillError: there is none, or the file is something else.
    """
    with _explained("text.model"):
        if not storage.exists(url):
            raise OmnimillError(f"{url} does not exist")
        tokenizer = TextTokenizer(url)
    pieces = tokenizer.vocabulary.pieces
    if pieces != LLAMA_PIECES:
        console.print(
            f"{url} has {pieces:,} pieces: ids are not those of published checkpoints, whose model (LLaMA's) has "
            f"{LLAMA_PIECES:,}"
        )
    return tokenizer


def published_digests(config: TokenizerConfig) -> dict[str, str]:
    """By setting, a digest of the published files that a configuration starts from: other files make another set."""
    digests = {}
    if config.text.model is not None:
        with _explained("text.model"):
            digests["text.model"] = storage.digest_file(config.text.model)
    given = {"image.weights": config.image.weights, "audio.weights": config.audio.weights}
    if config.audio.vocoder is not None:
        given["audio.vocoder.weights"] = config.audio.vocoder.weights
    for setting, url in given.items():
        if url is not None:
            prefix = PREFIXES.get(setting.removesuffix(".weights"), "")
            with _explained(setting), open_checkpoint(url) as checkpoint:
                ours = [name for name in checkpoint.names if name.startswith(prefix)]
                digests[setting] = checkpoint.digest(ours or checkpoint.names)
    return digests


def fill(network: CodeNetwork, checkpoint: Checkpoint) -> None:
    """Give a network the tensors of a checkpoint, in whichever form they are named.

    Raises:
        OmnimillError: tensors are missing, of other shapes, or left over; the message lists them.
    """
    kind = _kind(network)
    candidates: list[tuple[str, dict[str, str]]] = [("", published_names(network, "own"))]
    if kind is not None:
        candidates += [
            (prefix, {ours: prefix + name for ours, name in published_names(network, form).items()})
            for form in ("reference", "taming")
            for prefix in (PREFIXES[kind], "")
        ]
    held = set(checkpoint.names)
    prefix, names = max(candidates, key=lambda candidate: len(held & set(candidate[1].values())))
    if not held & set(names.values()):
        wanted = " or ".join(dict.fromkeys(next(iter(names.values())) for _, names in candidates))
        raise OmnimillError(
            f"{checkpoint.url}: holds none of the tensors of this network; looked for {wanted} and so on, found "
            f"{_list(checkpoint.names)}"
        )
    tops = {name.removeprefix(prefix).partition(".")[0] for name in names.values()}
    related = [name for name in held if name.startswith(prefix) and name.removeprefix(prefix).partition(".")[0] in tops]
    _load(network, names, checkpoint.read(related), checkpoint.url)
    if network.quantiser.normalised:
        # Only the directions of published codes are ever used.
        network.quantiser.codebook.copy_(F.normalize(network.quantiser.codebook, dim=-1))


def published_tensors(network: CodeNetwork) -> dict[str, Tensor]:
    """A network's tensors under the names that the reference's whole model has for them.

    Raises:
        OmnimillError: the reference has no network of this type.
    """
    kind = _kind(network)
    if kind is None:
        raise OmnimillError(f"the reference has no code network of type {type(network).__name__}")
    state = network.state_dict()
    return {PREFIXES[kind] + name: state[ours] for ours, name in published_names(network, "reference").items()}


def published_names(network: CodeNetwork, form: Form) -> dict[str, str]:
    """The name that each tensor of a network has in a form, by its own name."""
    names = list(network.state_dict())
    if form == "own":
        return {name: name for name in names}
    if form == "reference":
        return {name: _renamed(name) for name in names}
    levels = len(network.decoder.up) if isinstance(network, Vqgan) else 0  # type: ignore[arg-type]

    def mirrored(match: re.Match[str]) -> str:
        return f"decoder.up.{levels - 1 - int(match[1])}."

    # taming-transformers counts the decoder's levels from the finest.
    return {name: re.sub(r"^decoder\.up\.(\d+)\.", mirrored, _codebook(name)) for name in names}


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def _codebook(name: str) -> str:
    return "quantize.embedding.weight" if name == "quantiser.codebook" else name


def _kind(network: CodeNetwork) -> str | None:
    return "image" if isinstance(network, Vqgan) else "audio" if isinstance(network, VitVqgan) else None


def _without_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights multiplied out of their length and direction (Salimans and Kingma 2016, arXiv 1602.07868)."""
    result = dict(tensors)
    for lengths, directions in _LENGTHS:
        for name in [name for name in tensors if name.endswith(lengths)]:
            base = name.removesuffix(lengths)
            length = result.pop(name).float()
            direction = result.pop(base + directions, None)
            if direction is None:
                raise OmnimillError(f"the checkpoint holds {name} without {base}{directions}")
            norm = direction.float().flatten(1).norm(dim=1).view(-1, *[1] * (direction.ndim - 1))
            result[f"{base}.weight"] = direction.float() * (length.view(norm.shape) / norm)
    return result


def _load(network: nn.Module, names: Mapping[str, str], tensors: Mapping[str, Tensor], source: str) -> None:
    """Load `tensors`, all of which must belong; `names` are the network's own to those in the file."""
    state = network.state_dict()
    faults = {
        "missing": sorted(set(names.values()) - set(tensors)),
        "of another shape": [
            f"{name} {list(tensors[name].shape)} instead of {list(state[ours].shape)}"
            for ours, name in names.items()
            if name in tensors and tensors[name].shape != state[ours].shape
        ],
        "left over": sorted(set(tensors) - set(names.values())),
    }
    if any(faults.values()):
        told = "; ".join(f"{len(some)} {what}: {_list(some)}" for what, some in faults.items() if some)
        raise OmnimillError(f"{source}: not the weights of this network, which has {len(names)} tensors; {told}")
    network.load_state_dict({ours: tensors[name].float() for ours, name in names.items()})


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(list(names)[:_SHOWN]) + more


@contextmanager
def _explained(setting: str) -> Iterator[None]:
    """Adds to a failure which setting it is about, and what can be given for it."""
    try:
        yield
    except OmnimillError as error:
        listed = "\n".join(f"  {line}" for line in PUBLISHED[setting])
        raise OmnimillError(f"{setting}: {error}\nExpected is one of:\n{listed}") from None
