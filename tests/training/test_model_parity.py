"""The whole backbone against the recorded model: every stage, packed and not, with both kinds of decoder masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_backbone import LATENTS, folded, golden, golden_batch, golden_code_networks, golden_model, near
from torch import Tensor

from omnimill.tokenizers.vocabulary import CODE_OFFSET
from omnimill.tokenizers.vq import picture_input
from omnimill.training.backbone.masks import (
    decoder_self_mask,
    dynamic_mask,
    layer_pattern,
    pattern_mask,
    target_index,
)
from omnimill.training.backbone.stepwise import StepwiseDecoder
from omnimill.training.engine.loss import modality_sums
from omnimill.training.loading.batch import DecoderModality, EncoderModality, PackedBatch

TOLERANCE = 1e-4
PAPER = {"sparse_decoder": True, "dynamic_decoder": True}


def recorded(parity: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], PackedBatch] | None:
    """Arrays of the encoder's and the decoder's file, and the inputs of both; None when they are not there."""
    encoder, decoder = golden(parity, "06_encoder.npz"), golden(parity, "07_decoder.npz")
    return (encoder, decoder, golden_batch(encoder, decoder)) if encoder and decoder else None


def pattern_of(name: str, array: Tensor, keys: int) -> Tensor:
    """The recorded sparse mask, bool [queries, keys]."""
    return torch.from_numpy(np.unpackbits(array.numpy(), axis=1)[:, :keys]) > 0 if "packbits" in name else array > 0


def test_golden_patterns(parity: Path) -> None:
    """Row, column and window of every recorded grid and window size."""
    kinds = {"row": "row", "col": "column", "conv": "window"}
    arrays = golden(parity, "10_masks.npz")
    names = [name for name in arrays if name.partition("_")[0] in kinds and "nnz" not in name]
    assert len(names) == (16 if arrays else 0)
    for name in names:
        kind, shape, *rest = name.split("_")
        rows, columns = map(int, shape.split("x"))
        index = torch.arange(rows * columns)
        window = {"window": int(rest[0][1:])} if kind == "conv" and rest != ["packbits"] else {}
        found = pattern_mask(kinds[kind], index[:, None], index, columns, **window)  # type: ignore[arg-type]
        found &= index[:, None] >= index
        assert torch.equal(found, pattern_of(name, arrays[name], len(index))), name
        assert (packed := f"{kind}_{shape}_nnz") not in arrays or int(found.sum()) == int(arrays[packed])


def test_golden_dynamic_and_segment_masks(parity: Path) -> None:
    arrays = golden(parity, "10_masks.npz")
    if not arrays:
        return
    hidden = arrays["dynamic/task_mask"] > 0
    found = dynamic_mask(hidden, torch.arange(hidden.shape[1])[None])
    assert torch.equal(found, arrays["dynamic/mask_b1qk"] > 0)
    segment = arrays["decoder_mask/segment_ids"].long()
    real = segment[0] > 0
    found = decoder_self_mask(segment, torch.zeros_like(segment))
    assert torch.equal(found[:, :, real], arrays["decoder_mask/out"][:, :, real] > 0)


def test_layers_take_turns() -> None:
    """Seven layers of the released code: column where (layer - 1) divides by 4, a window at last, rows elsewhere."""
    assert [layer_pattern(layer, 7) for layer in range(7)] == ["row", "column", "row", "row", "row", "column", "window"]


def test_index_starts_anew_with_every_target() -> None:
    segment = torch.tensor([[1, 1, 1, 2, 2, 2, 2]])
    modality = torch.tensor([[0, 0, 1, 1, 1, 1, 2]])
    index = target_index(decoder_self_mask(segment, modality))
    assert index.tolist() == [[0, 1, 0, 0, 1, 2, 0]]
    # The first slot of a target is fed the start, whatever came before it in the sequence.
    hidden = torch.tensor([[False, True, True, False, True, False, False]])
    shown = dynamic_mask(hidden, index)[0, 0].sum(-1)
    assert (shown == 1).nonzero().flatten().tolist() == [5]


def test_golden_embeddings_and_rotations(parity: Path) -> None:
    """What goes into the encoder, by stream."""
    if not (files := recorded(parity)):
        return
    encoder, _, batch = files
    model = golden_model(parity)
    x = model.inputs(batch, model.text_table)
    turns = model.encode(batch).rotation
    for stream in EncoderModality:
        name, at = stream.name.lower(), batch.encoder_modality[0] == stream
        real = encoder[f"out/{name}/mask"] > 0
        near(x[:, at][real], encoder[f"out/{name}/embed"][real], TOLERANCE)
        found = torch.stack([turns.cos, turns.sin], -1).flatten(2)
        near(found[:, at][real], encoder[f"out/{name}/rope"][real], TOLERANCE)
    assert {stream.name for stream in LATENTS} == {"IMAGE_HISTORY", "AUDIO_HISTORY"}


def test_golden_encoder(parity: Path) -> None:
    """After every layer and at the end; and with two examples interleaved in each sequence."""
    if not (files := recorded(parity)):
        return
    encoder, _, batch = files
    model = golden_model(parity)
    states: list[Tensor] = []
    for layer in model.encoder_layers:
        layer.register_forward_hook(lambda _, __, output: states.append(output))
    real = encoder["out/encoder/concat_mask"] > 0
    near(model.encode(batch).hidden[real], encoder["out/encoder/final"][real], TOLERANCE)
    for number, state in enumerate(states):
        near(state[real], encoder[f"out/encoder/after_layer_{number}"][real], TOLERANCE)
    segment = (encoder["in/segment_ids_for_packed_variant"].long() + 1) * real
    packed = replace(batch, encoder_segment=segment)
    near(model.encode(packed).hidden[real], encoder["out/encoder/final_with_segment_ids"][real], TOLERANCE)


@pytest.mark.parametrize("masks", ["released", "paper"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_golden_logits(parity: Path, masks: str, packed: bool) -> None:
    """All three targets: of two sequences, and of one that holds both examples."""
    if not (files := recorded(parity)):
        return
    _, decoder, batch = files
    model = golden_model(parity, **(PAPER if masks == "paper" else {}))
    given = folded(batch) if packed else batch
    hidden = model.decode(model.encode(given), given).view(*batch.decoder_ids.shape, -1)
    suffix = "__patternmask" if masks == "paper" else ""
    compared = 0
    for run in ("text", "image", "audio", "text+image+audio"):
        for modality in DecoderModality:
            name = modality.name.lower()
            found = model.logits(hidden[:, batch.decoder_modality[0] == modality], modality)
            real = decoder[f"in/{name}/mask"] > 0
            for stride, ending in ((1, ""), (8, "_every8th")):
                # A target that was recorded alone comes out the same beside the others.
                expected = decoder.get(f"out/{run}{suffix}/{name}/logits{ending}")
                if expected is not None:
                    near(found[:, ::stride][real[:, ::stride]], expected[real[:, ::stride]], TOLERANCE)
                    compared += 1
    assert compared == (6 if masks == "released" else 5)


def test_golden_targets_come_from_the_code_networks(parity: Path) -> None:
    """The targets that logits are compared against are what the recorded picture and sound become."""
    decoder = golden(parity, "07_decoder.npz")
    if not decoder:
        return
    picture, sound = golden_code_networks(parity)
    inputs = {
        "image": (picture, picture_input(decoder["in/image/image_u8"])),
        "audio": (sound, decoder["in/audio/audio"].permute(0, 3, 1, 2)),
    }
    for name, (network, values) in inputs.items():
        with torch.inference_mode():
            found = network.encode(values).flatten(1) + CODE_OFFSET
        # Codes that lie as near as another one may come out as that one.
        assert (found == decoder[f"out/{name}/{name}/targets"]).float().mean() > 0.998, name


def test_golden_losses(parity: Path) -> None:
    if not (files := recorded(parity)):
        return
    _, decoder, batch = files
    model = golden_model(parity)
    sums = modality_sums(model(batch), batch)
    hidden = model.decode(model.encode(batch), batch)
    for modality in DecoderModality:
        name = modality.name.lower()
        near(sums.nll[modality] / sums.weight[modality], decoder[f"out/{name}/{name}/ce_mean_over_loss_mask"], 1e-4)
        near(sums.z[modality] / sums.weight[modality], decoder[f"out/{name}/{name}/zloss_1e-4_mean"], 1e-4)
        at = batch.decoder_modality[0] == modality
        right = model.logits(hidden[:, at], modality).argmax(-1) == batch.decoder_targets[:, at]
        counted = batch.decoder_loss[:, at] > 0
        near(right[counted].float().mean(), decoder[f"out/{name}/{name}/accuracy"])


def test_golden_greedy_text(parity: Path) -> None:
    """Eight tokens through the cache, none of which the recorded run took from a whole pass."""
    if not (files := recorded(parity)):
        return
    _, decoder, batch = files
    model = golden_model(parity)
    steps = StepwiseDecoder(model, model.encode(batch), DecoderModality.TEXT)
    expected = decoder["out/generate_text_greedy_8"]
    ids = [torch.zeros(len(expected), dtype=torch.int64)]
    for number in range(expected.shape[1] - 1):
        place = torch.tensor([[float(number), 0.0]]).expand(len(expected), -1)
        ids.append(steps.step(ids[-1], place).argmax(-1))
    assert torch.equal(torch.stack(ids, 1), expected)


@pytest.mark.parametrize("modality", list(DecoderModality))
def test_stepwise_decoding_takes_the_same_masks(parity: Path, modality: DecoderModality) -> None:
    """One position at a time with sparse masks, over two rows of the grid and more."""
    if not (files := recorded(parity)):
        return
    _, _, batch = files
    model = golden_model(parity, **PAPER)
    whole = replace(batch, decoder_hidden=torch.zeros_like(batch.decoder_hidden))
    encoded = model.encode(whole)
    at = (batch.decoder_modality[0] == modality).nonzero()[:70, 0]
    expected = model.logits(model.decode(encoded, whole)[:, at], modality)
    steps = StepwiseDecoder(model, encoded, modality)
    found = [steps.step(batch.decoder_ids[:, slot], batch.decoder_position[:, slot]) for slot in at]
    real = batch.decoder_segment[:, at] > 0
    near(torch.stack(found, 1)[real], expected[real])
