"""Packed equals unpacked, no leakage, causality, sizes, and what a fresh model is made of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from omnimill.tokens import AudioLayout, ImageLayout, TokenLayout
from omnimill.training.backbone.config import BackboneConfig, PatchEncoderConfig, Size
from omnimill.training.backbone.model import Backbone
from omnimill.training.backbone.watch import watch_attention
from omnimill.training.engine.loss import modality_sums
from omnimill.training.loading.batch import DecoderModality, EncoderModality, Frames, PackedBatch

LAYOUT = TokenLayout(
    text_pieces=100,
    image=ImageLayout(input_size=32, history_size=24, target_size=32, patch=8, code_stride=8, codes=50),
    audio=AudioLayout(frames=32, mels=16, patch=8, code_patch=(8, 8), codes=40),
    tokenizers="none",
    digests={},
)
GRIDS = {
    EncoderModality.IMAGE: (4, 4, 192),
    EncoderModality.IMAGE_HISTORY: (3, 3, 192),
    EncoderModality.AUDIO: (4, 2, 64),
    EncoderModality.AUDIO_HISTORY: (4, 2, 64),
}
LATENTS = {EncoderModality.IMAGE_HISTORY: 3, EncoderModality.AUDIO_HISTORY: 2}
CODES = {DecoderModality.TEXT: 90, DecoderModality.IMAGE: 52, DecoderModality.AUDIO: 42}


def small_config(**changes: object) -> BackboneConfig:
    """A backbone of the tiny kind, smaller still."""
    plain = BackboneConfig.of("tiny", LAYOUT)
    encoder = {"width": 16, "heads": 2, "mlp": 24}
    resampler = {"width": 16, "heads": 2, "head_width": 8, "mlp": 24}
    return plain.model_copy(
        update={
            "width": 32,
            "heads": 2,
            "head_width": 16,
            "mlp": 40,
            "image_encoder": plain.image_encoder.model_copy(update=encoder),
            "audio_encoder": plain.audio_encoder.model_copy(update=encoder),
            "image_resampler": plain.image_resampler.model_copy(update={**resampler, "latents": 3}),
            "audio_resampler": plain.audio_resampler.model_copy(
                update={**resampler, "latents": 2, "attention": "scaled_cosine"}
            ),
            **changes,
        }
    )


def small_model(**changes: object) -> Backbone:
    """A model whose norms, biases and vectors all differ from what they start as."""
    model = Backbone(small_config(**changes), seed=1)
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith(("_table.weight", "wi.weight", "wo.weight")):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    return model


@dataclass
class Frame:
    patches: Tensor
    index: Tensor


@dataclass
class Example:
    """text: ids. frames: by stream. targets: ids per target modality; hidden: bool, those the encoder's input hides."""

    text: Tensor
    frames: dict[EncoderModality, list[Frame]]
    targets: dict[DecoderModality, Tensor]
    hidden: dict[DecoderModality, Tensor] = field(default_factory=dict)

    def slots(self, stream: EncoderModality) -> int:
        if stream == EncoderModality.TEXT:
            return len(self.text)
        if stream in LATENTS:
            return LATENTS[stream] * len(self.frames[stream])
        return sum(len(frame.index) for frame in self.frames[stream])


def random_example(random: np.random.Generator) -> Example:
    def frame(stream: EncoderModality) -> Frame:
        rows, columns, values = GRIDS[stream]
        index = random.permutation(rows * columns)[: random.integers(1, rows * columns + 1)]
        return Frame(
            torch.from_numpy(random.normal(size=(len(index), values)).astype(np.float32)), torch.from_numpy(index)
        )

    most = {stream: 3 if stream in LATENTS else 1 for stream in GRIDS}
    frames = {stream: [frame(stream) for _ in range(random.integers(0, most[stream] + 1))] for stream in GRIDS}
    chosen = [modality for modality in DecoderModality if random.random() < 0.6] or [DecoderModality.TEXT]
    targets = {
        modality: torch.from_numpy(random.integers(2, CODES[modality], random.integers(1, 9))) for modality in chosen
    }
    coded = [modality for modality in chosen if modality != DecoderModality.TEXT]
    return Example(
        text=torch.from_numpy(random.integers(0, 90, random.integers(1, 7))),
        frames=frames,
        targets=targets,
        hidden={modality: torch.from_numpy(random.random(len(targets[modality])) < 0.4) for modality in coded},
    )


def pack(sequences: Sequence[Sequence[Example]], spare: int = 0) -> PackedBatch:
    """The batch of these packed sequences; `spare` slots of padding more than needed."""
    encoder = max(sum(example.slots(stream) for stream in EncoderModality for example in row) for row in sequences)
    decoder = max(sum(len(ids) for example in row for ids in example.targets.values()) for row in sequences)
    shape_e, shape_d = (len(sequences), encoder + spare), (len(sequences), decoder + spare)
    text_ids, text_slot = [], []
    frames: dict[EncoderModality, list[tuple[Frame, Tensor, int]]] = {stream: [] for stream in GRIDS}
    e_segment, e_modality = (torch.zeros(shape_e, dtype=torch.int64) for _ in range(2))
    e_position = torch.zeros(*shape_e, 2)
    d_ids, d_targets, d_segment, d_modality = (torch.zeros(shape_d, dtype=torch.int64) for _ in range(4))
    d_task = torch.full(shape_d, -1)
    d_position, d_loss = torch.zeros(*shape_d, 2), torch.zeros(shape_d)
    d_hidden = torch.zeros(shape_d, dtype=torch.bool)

    for row, examples in enumerate(sequences):
        at = 0
        for number, example in enumerate(examples, 1):
            for stream in EncoderModality:
                count = example.slots(stream)
                here = slice(at, at + count)
                e_segment[row, here], e_modality[row, here] = number, stream
                slots = row * shape_e[1] + torch.arange(at, at + count)
                if stream == EncoderModality.TEXT:
                    e_position[row, here, 0] = torch.arange(count).float()
                    text_ids.append(example.text)
                    text_slot.append(slots)
                else:
                    kept = example.frames[stream]
                    sizes = [LATENTS.get(stream, len(frame.index)) for frame in kept]
                    for k, (frame, own) in enumerate(zip(kept, torch.split(slots, sizes) if kept else (), strict=True)):
                        frames[stream].append((frame, own, k))
                    e_position[row, here] = positions(stream, kept)
                at += count
        at = 0
        for number, example in enumerate(examples, 1):
            for modality, targets in example.targets.items():
                here = slice(at, at + len(targets))
                d_segment[row, here], d_modality[row, here], d_task[row, here] = number, modality, 0
                d_targets[row, here] = targets
                d_ids[row, here] = torch.cat([torch.zeros(1, dtype=torch.int64), targets[:-1]])
                d_loss[row, here] = 1.0
                d_hidden[row, here] = example.hidden.get(modality, torch.tensor(False))
                d_position[row, here] = torch.stack(
                    [torch.arange(len(targets)), torch.arange(len(targets)) % 3], 1
                ).float()
                at += len(targets)
    return PackedBatch(
        text_ids=torch.cat(text_ids),
        text_slot=torch.cat(text_slot),
        **{stream.name.lower(): collate(frames[stream]) for stream in GRIDS},
        encoder_segment=e_segment,
        encoder_modality=e_modality,
        encoder_position=e_position,
        decoder_ids=d_ids,
        decoder_targets=d_targets,
        decoder_loss=d_loss,
        decoder_segment=d_segment,
        decoder_modality=d_modality,
        decoder_position=d_position,
        decoder_hidden=d_hidden,
        decoder_task=d_task,
    )


def positions(stream: EncoderModality, frames: list[Frame]) -> Tensor:
    if stream in LATENTS:
        return torch.cartesian_prod(torch.arange(len(frames)), torch.arange(LATENTS[stream])).float().view(-1, 2)
    index = torch.cat([torch.zeros(0, dtype=torch.int64), *(frame.index for frame in frames)])
    return torch.stack([index // GRIDS[stream][1], index % GRIDS[stream][1]], 1) * 4 / 3


def collate(frames: list[tuple[Frame, Tensor, int]]) -> Frames | None:
    if not frames:
        return None
    most = max(len(frame.index) for frame, _, _ in frames)
    most_slots = max(len(slots) for _, slots, _ in frames)
    result = Frames(
        patches=torch.full((len(frames), most, frames[0][0].patches.shape[1]), 7.0),
        index=torch.zeros(len(frames), most, dtype=torch.int64),
        valid=torch.zeros(len(frames), most, dtype=torch.bool),
        slot=torch.full((len(frames), most_slots), -1),
        frame=torch.tensor([k for _, _, k in frames]),
    )
    for i, (frame, slots, _) in enumerate(frames):
        patches = len(frame.index)
        result.patches[i, :patches], result.index[i, :patches] = frame.patches, frame.index
        result.valid[i, :patches], result.slot[i, : len(slots)] = True, slots
    return result


def per_example(values: Tensor, sequences: Sequence[Sequence[int]], examples: Sequence[Example]) -> dict[int, Tensor]:
    """Decoder slots [B, D, …] cut into the examples that fill them, by number."""
    parts: list[tuple[int, Tensor]] = []
    for row, numbers in enumerate(sequences):
        sizes = [sum(map(len, examples[number].targets.values())) for number in numbers]
        parts.extend(zip(numbers, torch.split(values[row, : sum(sizes)], sizes), strict=True))
    return dict(parts)


def loss_sum(model: Backbone, batch: PackedBatch) -> Tensor:
    sums = modality_sums(model(batch), batch)
    return (sums.nll + sums.z).sum()


def gradients(model: Backbone, batches: Sequence[PackedBatch]) -> dict[str, Tensor]:
    model.zero_grad()
    for batch in batches:
        loss_sum(model, batch).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), sparse=st.booleans(), dynamic=st.booleans())
def test_packed_equals_unpacked(seed: int, sparse: bool, dynamic: bool) -> None:
    """Whatever shares a sequence, every token has the same logits and losses, and the gradients add up.

    With every kind of decoder mask, and with both to 1e-5: logits and losses as they are, gradients of the mean loss.
    """
    random = np.random.default_rng(seed)
    released = {"audio_target_positions": "released"} if seed % 2 else {}
    model = small_model(sparse_decoder=sparse, dynamic_decoder=dynamic, **released)
    examples = [random_example(random) for _ in range(int(random.integers(2, 7)))]
    order = random.permutation(len(examples)).tolist()
    cuts = sorted(set(random.integers(1, len(order), 2).tolist())) if len(order) > 1 else []
    packing = [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(order)], strict=True)]
    packed = pack([[examples[number] for number in row] for row in packing], spare=int(random.integers(0, 5)))
    alone = [pack([[example]]) for example in examples]

    with torch.no_grad():
        hidden = per_example(model.decode(model.encode(packed), packed), packing, examples)
        losses = model(packed)
        nll, log_z = (per_example(values, packing, examples) for values in losses)
        for number, batch in enumerate(alone):
            own = model.decode(model.encode(batch), batch)[0]
            kind = batch.decoder_modality[0]
            for modality in examples[number].targets:
                at = kind == modality
                expected = model.logits(own[at], modality)
                assert_near(model.logits(hidden[number][at], modality), expected)
                targets = examples[number].targets[modality]
                direct = torch.nn.functional.cross_entropy(expected, targets, reduction="none")
                assert_near(nll[number][at], direct)
                assert_near(log_z[number][at], expected.logsumexp(-1))
    together, summed = gradients(model, [packed]), gradients(model, alone)
    assert together.keys() == summed.keys()
    tokens = float(packed.decoder_loss.sum())
    for name, gradient in together.items():
        assert torch.allclose(gradient / tokens, summed[name] / tokens, atol=1e-5, rtol=1e-5), name


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kinds", [{}, {"sparse_decoder": True, "dynamic_decoder": True}])
def test_flex_attention_computes_the_same(kinds: dict[str, bool]) -> None:
    """Its plain form, on the CPU and without gradients: the blocks and what is in them."""
    random = np.random.default_rng(5)
    examples = [random_example(random) for _ in range(5)]
    batch, model = pack([examples[:3], examples[3:]], spare=7), small_model(**kinds)
    found = []
    with torch.no_grad():
        for model.flex_attention in (False, True):
            with watch_attention(model) as maxima:
                losses = model(batch)
            found.append([losses.nll, losses.log_z, *maxima.values()])
    for one, other in zip(*found, strict=True):
        assert_near(one, other)


def assert_near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def full_example(seed: int) -> Example:
    """An example that has every stream and every target."""
    random = np.random.default_rng(seed)
    while True:
        example = random_example(random)
        if all(example.frames.values()) and len(example.targets) == 3 and min(map(len, example.targets.values())) > 3:
            return example


def test_neighbours_never_leak() -> None:
    """Replacing one example's whole content does not change a bit of what its neighbours see."""
    model = small_model().requires_grad_(False)
    first, second, third = (full_example(seed) for seed in (3, 4, 5))
    other = Example(
        text=(second.text + 1) % 90,
        frames={
            stream: [Frame(-frame.patches, frame.index) for frame in frames] for stream, frames in second.frames.items()
        },
        targets={modality: (ids + 1) % CODES[modality] for modality, ids in second.targets.items()},
    )
    before, after = (model(pack([[first, middle, third]])) for middle in (second, other))
    sizes = [sum(map(len, example.targets.values())) for example in (first, second, third)]
    for old, new in zip(before, after, strict=True):
        a, b, c = old[0].split(sizes)
        new_a, new_b, new_c = new[0].split(sizes)
        assert torch.equal(a, new_a)
        assert torch.equal(c, new_c)
        assert not torch.isclose(b, new_b).any()


def test_every_input_stream_reaches_every_target() -> None:
    model = small_model().requires_grad_(False)
    example = full_example(6)
    before = model(pack([[example]])).nll[0]
    changed = [replace(example, text=example.text.flip(0) + 1)]
    for stream in GRIDS:
        moved = [Frame(frame.patches + 1.0, frame.index) for frame in example.frames[stream]]
        changed.append(replace(example, frames={**example.frames, stream: moved}))
    for other in changed:
        assert not torch.isclose(model(pack([[other]])).nll[0], before, atol=1e-6).any()


def test_decoder_is_causal_and_targets_do_not_see_each_other() -> None:
    model = small_model().requires_grad_(False)
    batch = pack([[full_example(7)]])
    sizes = [int((batch.decoder_modality == modality).sum()) for modality in DecoderModality]
    encoded = model.encode(batch)
    before = model.decode(encoded, batch)[0]
    for place, start in zip([2, sizes[0] + 2, sizes[0] + sizes[1] + 2], np.cumsum([0, *sizes]), strict=False):
        ids = batch.decoder_ids.clone()
        ids[0, place] += 1
        same = (model.decode(encoded, replace(batch, decoder_ids=ids))[0] == before).all(-1)
        end = start + sizes[int(batch.decoder_modality[0, place])]
        expected = torch.ones_like(same)
        expected[place:end] = False
        assert torch.equal(same, expected)


def test_padding_gives_no_loss_and_no_nan() -> None:
    model = small_model()
    random = np.random.default_rng(8)
    empty_row = [[full_example(9), random_example(random)], [random_example(random)]]
    batch = pack(empty_row, spare=3)
    # A sequence that holds nothing at all, as when a stream has run out.
    batch.encoder_segment[1], batch.decoder_segment[1] = 0, 0
    losses = model(batch)
    assert not losses.nll[batch.decoder_segment == 0].any()
    assert not losses.log_z[batch.decoder_segment == 0].any()
    (losses.nll.sum() + losses.log_z.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_frozen_encoders_keep_their_weights() -> None:
    model = small_model(frozen_encoders=True)
    found = gradients(model, [pack([[full_example(10)]])])
    frozen = {name for name, _ in model.named_parameters()} - found.keys()
    assert frozen == {
        n for n, _ in model.named_parameters() if n.startswith(("inputs.image_encoder", "inputs.audio_enc"))
    }


def test_memorises_a_batch() -> None:
    model = Backbone(small_config(), seed=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    random = np.random.default_rng(11)
    batch = pack([[random_example(random) for _ in range(3)]])
    tokens = float(batch.decoder_loss.sum())
    first = loss_sum(model, batch).item() / tokens
    for _ in range(60):
        optimizer.zero_grad()
        loss = loss_sum(model, batch) / tokens
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.5 < 3.0 < first


def test_parts_of_the_published_sizes() -> None:
    """In millions, as the published models count them: encoder and decoder layers, text table, ViT, AST."""
    published: dict[Size, tuple[float, float, float]] = {
        "large": (308.3, 409.0, 34.1),
        "xl": (1157.7, 1560.4, 68.2),
        "xxl": (2718.1, 3624.1, 102.2),
    }
    layout = TokenLayout(tokenizers="none", digests={})
    for size, expected in published.items():
        config = BackboneConfig.of(size, layout)
        assert (config.text_rows, config.image_rows, config.audio_rows) == (33_280, 16_512, 8_320)
        assert (config.frozen_encoders, config.audio_target_positions) == (True, "released")
        assert not config.sparse_decoder
        assert not config.dynamic_decoder
        with torch.device("meta"):
            model = Backbone(config)
        stacks = (model.encoder_layers, model.decoder_layers, model.text_table)
        assert tuple(round(count(part) / 1e6, 1) for part in stacks) == expected
        assert round(count(model.inputs.image_encoder) / 1e6, 2) == 78.71
        assert round(count(model.inputs.audio_encoder) / 1e6, 2) == 78.56


def test_layer_sizes_follow_the_formula() -> None:
    config = small_config()
    model = Backbone(config)
    d, inner, mlp, k = config.width, config.heads * config.head_width, config.mlp, config.head_width
    attention = 4 * d * inner + 2 * k
    assert count(model.encoder_layers[0]) == attention + 3 * d * mlp + 2 * d
    assert count(model.decoder_layers[0]) == 2 * attention + 3 * d * mlp + 3 * d
    r = config.image_resampler
    layer = 4 * r.width * r.heads * r.head_width + 2 * r.head_width + 2 * r.width * r.mlp + 2 * r.width
    around = config.image_encoder.width * r.width + r.latents * r.width + 2 * r.width + r.width * d
    assert count(model.inputs.image_resampler) == 2 * layer + around


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_tiny_takes_its_sizes_from_the_layout() -> None:
    config = BackboneConfig.of("tiny", LAYOUT)
    assert (config.text_rows, config.image_rows, config.audio_rows) == (1408, 128, 128)
    assert (config.image_grid, config.history_grid, config.audio_grid) == ((4, 4), (3, 3), (4, 2))
    assert (config.image_encoder.patch_values, config.audio_encoder.patch_values) == (192, 64)
    assert not config.frozen_encoders
    assert BackboneConfig.model_validate(config.model_dump(mode="json")) == config


def test_encoders_need_two_layers() -> None:
    """Features are those of the last and of the second layer."""
    plain = small_config().image_encoder.model_dump()
    with pytest.raises(ValidationError, match="layers"):
        PatchEncoderConfig.model_validate({**plain, "layers": 1})


def test_initial_weights_depend_on_seed_and_name_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, same, other = (Backbone(small_config(), seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["text_table.weight"], other["text_table.weight"])
    deeper = Backbone(small_config(encoder_layers=3), 1).state_dict()
    assert all(torch.equal(value, deeper[name]) for name, value in one.items())
    assert deeper.keys() - one.keys() == {name for name in deeper if name.startswith("encoder_layers.2")}

    assert abs(float(one["text_table.weight"].std()) - 1.0) < 0.02
    wo = one["decoder_layers.0.mlp.wo.weight"]
    assert abs(float(wo.std()) * wo.shape[1] ** 0.5 - 1.0) < 0.1
    assert abs(float(one["inputs.image_encoder.positions"].std()) - 0.02) < 0.005
    assert torch.equal(one["encoder_norm.scale"], torch.ones(32))
    assert not one["inputs.image_encoder.layers.0.query.bias"].any()


def test_model_and_loss_need_neither_ray_nor_mlflow() -> None:
    program = (
        "import sys, omnimill.training.backbone.model, omnimill.training.engine.loss; "
        "import omnimill.training.generation.generate; "
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'ray', 'mlflow'}))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
