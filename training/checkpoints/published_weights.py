"""The backbone's weights under the names that Unified-IO 2 publishes them by, in and out.

Nothing is computed: tensors are renamed, and vectors of which this program keeps several in one tensor are stacked or
taken apart. The published files hold the code networks of pictures and sound too, which
`omnimill.tokenizers.weights` reads and writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from omnimill.errors import OmnimillError
from omnimill.infra import storage
from omnimill.tokenizers.checkpoints import Checkpoint, open_checkpoint
from omnimill.tokenizers.weights import PREFIXES
from omnimill.training.loading.batch import DecoderModality, EncoderModality

# What can be imported, where it was published, and under which name.
PUBLISHED = (
    "model.safetensors or pytorch_model.bin, whole or in parts with their .index.json: Unified-IO 2; on Hugging Face "
    "in allenai/uio2-large, -xl and -xxl, and the same with -bfloat16",
    "model.safetensors: of `omnimill checkpoint export`",
)

# Tensors that hold several published ones, in this order.
_STACKS = {
    "inputs.modality": tuple(f"input_embedders.{kind.name.lower()}.modality_embedding" for kind in EncoderModality),
    "decoder_modality": tuple(f"target_embedders.{kind.name.lower()}.modality_embedding" for kind in DecoderModality),
    "inputs.image_encoder.extra_tokens": ("input_embedders.image.image_encoder.vision_transformer.class_embedding",),
    "inputs.audio_encoder.extra_tokens": tuple(
        f"input_embedders.audio.image_encoder.vision_transformer.{name}" for name in ("cls_token", "dist_token")
    ),
}
_PATCH_ENCODER = (
    (r"^layers\.", "transformer.resblocks."),
    (r"\.(query|key|value)\.(weight|bias)$", r".attn.\1_in_proj_\2"),
    (r"\.out\.", ".attn.out_proj."),
    (r"\.mlp\.wi\.", ".mlp.fc1."),
    (r"\.mlp\.wo\.", ".mlp.fc2."),
    (r"^pre_norm\.", "pre_ln."),
    (r"^positions$", "positional_embedding"),
)
_PERCEIVER = (
    (r"^layers\.(\d+)\.", r"layers_\1."),
    (r"\.attention\.", ".xattention."),
    (r"\.pre_attention_norm\.", ".pre_xattention_norm."),
    (r"^norm\.", "perceiver_norm."),
)
_STACK_OF_LAYERS = (
    (r"^(encoder|decoder)_layers\.(\d+)\.", r"\1.layers_\2."),
    (r"^(encoder|decoder)_norm\.", r"\1.\1_norm."),
    (r"\.cross_attention\.", ".encoder_decoder_attention."),
    (r"^(text|image|audio)_table\.", r"\1_token_embedder."),
    (r"^inputs\.(image|audio)_projection\.", r"input_embedders.\1.projection."),
)
# The encoder of earlier pictures and clips is that of the current ones; PyTorch's own format may list it twice.
_TWICE = re.compile(r"^input_embedders\.(image|audio)_history\.vit_image_encoder\.")
_SHOWN = 8


def published_names(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The published names of the tensors of a backbone, by their own: one each, or those that it stacks."""
    return {name: _STACKS.get(name) or (_published_name(name),) for name in names}


def published_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A backbone's state dict as the published tensors, sorted by name."""
    found: dict[str, Tensor] = {}
    for own, names in published_names(state).items():
        # Parts of one tensor share its memory, which safetensors does not take.
        parts = [part.clone() for part in state[own].unbind(0)] if own in _STACKS else [state[own]]
        found |= dict(zip(names, parts, strict=True))
    return dict(sorted(found.items()))


def fill_from_published(model: nn.Module, url: str) -> None:
    """Give a backbone published weights, in its own precision; tensor by tensor, so that no second copy is held.

    Args:
        model: a `Backbone`, on the CPU.
        url: see `omnimill.tokenizers.checkpoints.Checkpoint`.

    Raises:
        OmnimillError: there are no such files, or tensors are missing, of other shapes, or left over; the message lists
            them.
    """
    with _explained(), open_checkpoint(url) as checkpoint:
        _fill(model.state_dict(), checkpoint)


def published_digest(url: str) -> str:
    """A digest of published files; errors as for :func:`fill_from_published`."""
    with _explained(), open_checkpoint(url) as checkpoint:
        return checkpoint.digest(_of_backbone(checkpoint))


def write_published(folder: str, tensors: Mapping[str, Tensor]) -> str:
    """Write ``model.safetensors`` into a folder, whole or not at all; returns its URL."""
    url = storage.join(folder, "model.safetensors")
    temporary: Path = storage.scratch_path(url)
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, temporary)
    storage.publish_file(temporary, url)
    return url


def _of_backbone(checkpoint: Checkpoint) -> set[str]:
    """Names of all but the code networks."""
    return {name for name in checkpoint.names if not name.startswith(tuple(PREFIXES.values()))}


def _fill(state: Mapping[str, Tensor], checkpoint: Checkpoint) -> None:
    wanted = published_names(state)
    held = _of_backbone(checkpoint)
    needed = {name for names in wanted.values() for name in names}
    pairs = ((name, _TWICE.sub(r"input_embedders.\1.image_encoder.", name)) for name in held - needed)
    again = {name: other for name, other in pairs if other in needed}
    faults = {"missing": sorted(needed - held), "left over": sorted(held - needed - again.keys())}
    differing: list[str] = []
    for own, names in wanted.items() if not faults["missing"] else ():
        stored = checkpoint.read(names)
        shape = state[own].shape[1:] if own in _STACKS else state[own].shape
        wrong = [name for name in names if stored[name].shape != shape]
        differing += [f"{name} {list(stored[name].shape)} instead of {list(shape)}" for name in wrong]
        if not wrong:
            parts = [stored[name] for name in names]
            with torch.no_grad():
                state[own].copy_(torch.stack(parts) if own in _STACKS else parts[0])
    faults["of another shape"] = differing
    faults["stored twice with other values"] = [] if any(faults.values()) else sorted(_unequal(again, checkpoint))
    if any(faults.values()):
        told = "; ".join(f"{len(some)} {what}: {_list(some)}" for what, some in faults.items() if some)
        raise OmnimillError(
            f"{checkpoint.url}: not the weights of this backbone, which has {len(needed)} tensors; {told}"
        )


def _unequal(again: Mapping[str, str], checkpoint: Checkpoint) -> Iterator[str]:
    """Of tensors that are stored under two names, those that are not equal."""
    for name, other in again.items():
        first, second = (next(iter(checkpoint.read([one]).values())) for one in (name, other))
        if not torch.equal(first, second):
            yield name


def _published_name(name: str) -> str:
    """Of a tensor that has one published name."""
    if match := re.match(r"inputs\.(image|audio)_encoder\.", name):
        inner = _renamed(name[match.end() :], _PATCH_ENCODER)
        return f"input_embedders.{match[1]}.image_encoder.vision_transformer.{inner}"
    if match := re.match(r"inputs\.(image|audio)_resampler\.", name):
        inner = name[match.end() :]
        if not inner.startswith(("pre_projection.", "post_projection.")):
            inner = "resampler.perceiver." + _renamed(inner, _PERCEIVER)
        return f"input_embedders.{match[1]}_history.{inner}"
    return _renamed(name, _STACK_OF_LAYERS)


def _renamed(name: str, rules: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(list(names)[:_SHOWN]) + more


@contextmanager
def _explained() -> Iterator[None]:
    """Adds to a failure what can be imported."""
    try:
        yield
    except OmnimillError as error:
        listed = "\n".join(f"  {line}" for line in PUBLISHED)
        raise OmnimillError(f"{error}\nExpected is one of:\n{listed}") from None
