"""The decoder-only backbone: packed and alone, whole and step by step, it computes the same."""

from __future__ import annotations

import pytest
import torch

from omnimill.errors import ConfigError
from omnimill.tokens import TokenLayout
from omnimill.training.backbone.build import build, build_sequence_model
from omnimill.training.backbone.decoder_config import DecoderConfig
from omnimill.training.backbone.kinds import SequenceConfig
from omnimill.training.backbone.masks import causal_segments, in_blocks, in_full
from omnimill.training.backbone.sizes import token_work
from omnimill.training.backbone.towers_config import TowersConfig, VotingConfig
from omnimill.training.engine.flops import step_flops
from omnimill.training.engine.loss import modality_sums, modality_weights, total_loss
from omnimill.training.engine.step import StepSettings, train_step
from omnimill.vocabulary_layout import VocabularyLayout
from tests.sequence_batches import FIRST_CODE, ROWS, TINY, batch_of, example, ids_and_positions

NARROW = TINY.model_copy(update={"width": 16, "heads": 1, "layers": 2, "mlp": 24})
KINDS: dict[str, SequenceConfig] = {
    "rotary": TINY,
    "learned": TINY.model_copy(update={"positions": "learned", "head_norm": "none"}),
    "untied gelu": TINY.model_copy(update={"tied": False, "mlp_form": "gelu"}),
    "in groups": TINY.model_copy(update={"norm_groups": 2, "head_groups": 2}),
    "cross": TowersConfig(towers=(TINY, TINY), to_first=1, to_second=2, link="attention_mlp"),
    "zipper": TowersConfig(towers=(TINY, NARROW), to_first=3, to_second=1, output="by_modality"),
    "one way": TowersConfig(towers=(TINY, NARROW), to_first=1, to_second=None, output="first"),
    "voting": VotingConfig(members=(TINY, NARROW), weights=(1.0, 0.5)),
}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> SequenceConfig:
    return KINDS[request.param]


def opened(config: SequenceConfig) -> torch.nn.Module:
    """A model whose links, which start closed, are open."""
    model = build_sequence_model(config, seed=1)
    for name, parameter in model.named_parameters():
        if name.endswith("gate"):
            torch.nn.init.constant_(parameter, 0.5)
    return model


def test_a_packed_example_has_the_losses_it_has_alone(kind: SequenceConfig) -> None:
    examples = [example(length, length) for length in (9, 14, 5, 12)]
    model = opened(kind)
    packed = model(batch_of([examples[:2], examples[2:]], 26))
    alone = [model(batch_of([[one]], 14)) for one in examples]
    for part in range(2):
        found = torch.cat([packed[part][0, :23], packed[part][1, :17]])
        expected = torch.cat([one[part][0, :length] for one, length in zip(alone, (9, 14, 5, 12), strict=True)])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert not packed[part][0, 23:].any()


def test_nothing_depends_on_what_comes_later(kind: SequenceConfig) -> None:
    model = opened(kind)
    ids, places = ids_and_positions(example(15, "first"))
    other = ids.clone()
    other[0, 9:] = torch.randint(3, ROWS, (6,), generator=torch.Generator().manual_seed(0))
    mask = causal_segments(torch.ones_like(ids))
    one, two = (model.logits(model.states(each, places, mask)) for each in (ids, other))
    torch.testing.assert_close(one[:, :9], two[:, :9])
    assert not torch.allclose(one[:, 9:], two[:, 9:])


def test_step_by_step_gives_what_is_given_at_once(kind: SequenceConfig) -> None:
    model = opened(kind)
    ids, places = ids_and_positions(example(12, "steps"))
    mask = causal_segments(torch.ones_like(ids))
    whole = model.logits(model.states(ids, places, mask)).detach()
    caches = model.new_caches()
    found = [model.step(ids[:, :4], places[:, :4], caches)]
    found += [model.step(ids[:, i : i + 1], places[:, i : i + 1], caches) for i in range(4, 12)]
    torch.testing.assert_close(torch.stack(found, 1), whole[:, 3:], rtol=1e-4, atol=1e-4)


def test_every_parameter_that_is_trained_has_a_gradient(kind: SequenceConfig) -> None:
    model = opened(kind)
    batch = batch_of([[example(20, "a")], [example(16, "b")]], 20)
    total_loss(modality_sums(model(batch), batch), modality_weights(batch)).backward()
    lacking = [
        name
        for name, one in model.named_parameters()
        if one.requires_grad and (one.grad is None or not one.grad.any()) and not _reads_nothing(name, kind)
    ]
    assert lacking == []


def _reads_nothing(name: str, kind: SequenceConfig) -> bool:
    """Nobody looks at what a tower computes behind the last link to it."""
    return isinstance(kind, TowersConfig) and kind.output == "first" and name.startswith("towers.1.layers.1.")


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_blocks_that_nobody_sees_are_left_out() -> None:
    segment = torch.tensor([[1] * 100 + [2] * 150 + [0] * 6])
    mask = causal_segments(segment)
    assert torch.equal(in_full(in_blocks(mask)), mask)
    model = build(TINY, seed=1)
    batch = batch_of([[example(100, "a"), example(150, "b")]], 256)
    with torch.no_grad():
        plain = model(batch)
        model.flex_attention = True
        torch.testing.assert_close(model(batch).nll, plain.nll, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_work_for_a_token_is_that_of_the_weights(name: str) -> None:
    config = KINDS[name]
    with torch.device("meta"):
        model = build_sequence_model(config)
    matrices = sum(
        one.numel()
        for path, one in model.named_parameters()
        if one.ndim == 2 and "norm" not in path and "position" not in path
    )
    work = token_work(config)
    # Tables that are not the output matrix as well are looked things up in, and nothing else.
    looked_up = {"untied gelu": ROWS * TINY.width, "one way": ROWS * NARROW.width}.get(name, 0)
    assert work.weights == matrices - looked_up
    batch = batch_of([[example(10, "a"), example(6, "b")]], 20)
    assert step_flops(batch, config, False).tolist() == [0, 6 * work.weights * 16 + 12 * work.attention * 136, 0]


def test_every_target_can_count_alike() -> None:
    model, batch = build(TINY, seed=1), batch_of([[example(20, "a"), example(9, "b", pictures=False)]], 32)
    losses, settings = model(batch), StepSettings(tasks=1, z_loss=0.0, gradient_clip=1.0, over_all=True)
    metrics = train_step(model, torch.optim.SGD(model.parameters(), lr=0.0), batch, settings, 0.0)
    assert metrics.loss == pytest.approx(float(losses.nll.detach().sum()) / 29, rel=1e-5)
    assert metrics.loss != pytest.approx(sum(metrics.modality_loss.values()), rel=0.1)


def test_seed_and_name_decide_a_weight() -> None:
    one, two = (dict(build(TINY, seed=3).named_parameters()) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    links = build(KINDS["cross"], seed=3)
    assert not any(one.any() for name, one in links.named_parameters() if name.endswith("gate"))


def test_one_table_needs_one_id_space() -> None:
    layout = TokenLayout(tokenizers="apart", digests={})
    with pytest.raises(ConfigError, match=r"one table.*layout.vocabulary.joint"):
        DecoderConfig.of("tiny", layout)
    joint = VocabularyLayout(joint=("image",), specials=("<break>",))
    found = DecoderConfig.of("tiny", layout.model_copy(update={"vocabulary": joint}))
    ((first, behind),) = found.image_ids
    assert (behind - first, found.rows % 128) == (layout.image.codes, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_width": 6}, "multiple of 4"),
        ({"norm_groups": 3}, "norm_groups"),
        ({"image_ids": ((FIRST_CODE, ROWS + 1),)}, "64 rows"),
    ],
)
def test_impossible_decoders_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecoderConfig.model_validate({**TINY.model_dump(), **changes})


def test_towers_that_cannot_stand_together_are_refused() -> None:
    with pytest.raises(ValueError, match="joined shares the table"):
        TowersConfig(towers=(TINY, NARROW))
    with pytest.raises(ValueError, match="same ids"):
        TowersConfig(towers=(TINY, TINY.model_copy(update={"rows": 128})))
    with pytest.raises(ValueError, match="at most the tower's 3 layers"):
        TowersConfig(towers=(TINY, TINY), to_first=4)
    with pytest.raises(ValueError, match="a weight for each of the 2 members"):
        VotingConfig(members=(TINY, TINY), weights=(1.0,))
