"""Merges, tensor by tensor: at step 0 a merged model computes what its parents computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from omnimill.training.backbone.build import build_sequence_model
from omnimill.training.backbone.decoder_config import DecoderConfig
from omnimill.training.backbone.decoder_only import DecoderOnly, SequenceModel
from omnimill.training.backbone.masks import causal_segments
from omnimill.training.backbone.towers import Towers
from omnimill.training.merging.plan import MERGES, MergePlan, Mismatch, Parent, name_map, shapes_of
from omnimill.training.merging.run import combine
from omnimill.training.merging.settings import Method
from tests.sequence_batches import FIRST_CODE, ROWS, TINY, example, ids_and_positions

LEARNED = TINY.model_copy(update={"positions": "learned", "tied": False, "mlp_form": "gelu"})
NARROW = TINY.model_copy(update={"width": 16, "heads": 1, "layers": 2, "mlp": 24})
# JAM's parents: d = 4096, 32 layers of 12 d², some 56 thousand ids (arXiv 2309.15564).
PAPER = DecoderConfig(
    width=4096,
    heads=32,
    head_width=128,
    mlp=4 * 4096,
    layers=32,
    rows=56_320,
    image_ids=((48_000, 56_192),),
    positions="learned",
    mlp_form="gelu",
    head_norm="none",
)


def planned(method: dict[str, Any], *configs: DecoderConfig) -> MergePlan:
    settings = TypeAdapter(Method).validate_python(method)
    parents = [Parent(letter, config) for letter, config in zip("ABCD", configs, strict=False)]
    plan = MERGES[settings.name](parents, settings)
    plan.check()
    return plan


def some(config: DecoderConfig, seed: int) -> DecoderOnly:
    """A model none of whose weights is as at first: norms differ, too."""
    model = DecoderOnly(config, seed)
    for name, parameter in model.named_parameters():
        if name.endswith("scale"):
            torch.nn.init.normal_(parameter, 1.0, 0.3, generator=torch.Generator().manual_seed(len(name) + seed))
    return model


def merged(method: dict[str, Any], *models: DecoderOnly) -> SequenceModel:
    plan = planned(method, *(model.config for model in models))
    found = build_sequence_model(plan.backbone)  # type: ignore[arg-type]
    found.load_state_dict(combine(plan, [model.state_dict() for model in models], seed=9))
    return found


def run(model: SequenceModel, ids: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """States and logits of one sequence."""
    with torch.no_grad():
        states = model.states(ids, places, causal_segments(torch.ones_like(ids)))
        return states, model.logits(states)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_uniform_is_the_mean() -> None:
    models = [some(TINY, seed) for seed in range(3)]
    for weights in (None, (0.3, 0.7), (0.2, 0.5, 0.3)):
        own = models[: len(weights or models)]
        found = merged({"name": "uniform", "weights": weights}, *own).state_dict()
        shares = np.array(weights or (1 / 3,) * 3)
        for name, value in found.items():
            stacked = np.stack([model.state_dict()[name].numpy() for model in own])
            expected = np.tensordot(shares, stacked.astype(np.float64), 1)
            assert np.abs(value.numpy() - expected).max() < 1e-7 * max(np.abs(stacked).max(), 1)


def test_lambda_of_0_and_1_gives_a_parent_back() -> None:
    models = some(TINY, 1), some(TINY, 2)
    models[0].table.weight.data[0, 0] = torch.inf
    for weights, kept in (((1.0, 0.0), 0), ((0.0, 1.0), 1)):
        found = merged({"name": "uniform", "weights": weights}, *models).state_dict()
        assert all(torch.equal(value, models[kept].state_dict()[name]) for name, value in found.items())


def test_fourier_has_the_harmonic_mean_of_magnitudes() -> None:
    one = some(TINY, 1)
    same = merged({"name": "fourier"}, one, one).state_dict()
    for name, value in one.state_dict().items():
        close(same[name], value)
    other = some(TINY, 1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(3)
    scaled = merged({"name": "fourier"}, one, other).state_dict()
    for name, value in one.state_dict().items():
        close(scaled[name], 1.5 * value)  # 2 / (1 + 1 / 3)
    back, forth = (
        merged({"name": "fourier"}, *pair).state_dict() for pair in ((one, some(TINY, 5)), (some(TINY, 5), one))
    )
    assert all(torch.allclose(back[name], forth[name], atol=1e-6) for name in back)


@pytest.mark.parametrize("config", [TINY, LEARNED], ids=["rotary, tied", "learned, untied"])
def test_width_side_by_side_is_both_parents(config: DecoderConfig) -> None:
    a, b = some(config, 1), some(config, 2)
    both = merged({"name": "width"}, a, b)
    ids, places = ids_and_positions(example(20, "width"))
    (states, logits), (of_a, logits_a), (of_b, logits_b) = (run(one, ids, places) for one in (both, a, b))
    close(states[..., : config.width], of_a)
    close(states[..., config.width :], of_b)
    close(logits, logits_a + logits_b)


def test_width_of_a_merged_model() -> None:
    first, second = (merged({"name": "width"}, some(TINY, seed), some(TINY, seed + 1)) for seed in (1, 3))
    assert isinstance(first, DecoderOnly)
    assert isinstance(second, DecoderOnly)
    ids, places = ids_and_positions(example(12, "again"))
    found = run(merged({"name": "width"}, first, second), ids, places)[1]
    close(found, run(first, ids, places)[1] + run(second, ids, places)[1])


@pytest.mark.parametrize("norm", ["grouped", "full"])
def test_width_fills_the_corners(norm: str) -> None:
    a, b = some(TINY, 1), some(TINY, 2)
    name, (rows, columns) = "tower.layers.1.mlp.wi_0.weight", (TINY.mlp, TINY.width)
    one, other = a.state_dict()[name], b.state_dict()[name]
    corners = {"duplicate": (one, other), "avg_offdiag": ((one + other) / 2, (one + other) / 2)}
    for init, (above, below) in corners.items():
        model = merged({"name": "width", "init": init, "norm": norm}, a, b)
        assert isinstance(model, DecoderOnly)
        assert model.config.norm_groups == (2 if norm == "grouped" else 1)
        found = model.state_dict()[name]
        blocks = found[:rows, :columns], found[:rows, columns:], found[rows:, :columns], found[rows:, columns:]
        for block, expected in zip(blocks, (one, above, below, other), strict=True):
            assert torch.equal(block, expected)


@pytest.mark.parametrize("link", ["attention", "attention_mlp"])
def test_cross_with_closed_gates_is_each_tower(link: str) -> None:
    a, b = some(LEARNED, 1), some(LEARNED, 2)
    text, places = ids_and_positions(example(16, "text", pictures=False))
    codes = torch.randint(FIRST_CODE, ROWS, text.shape, generator=torch.Generator().manual_seed(1))
    model = merged({"name": "cross", "every": 2, "link": link, "join": "first"}, a, b)
    states, logits = run(model, text, places)
    expected, of_text = run(a, text, places)
    assert torch.equal(states[..., : TINY.width], expected)
    close(logits[..., :FIRST_CODE], of_text[..., :FIRST_CODE])
    model = merged({"name": "cross", "every": 2, "link": link, "join": "second"}, a, b)
    states, logits = run(model, codes, places)
    expected, of_codes = run(b, codes, places)
    assert torch.equal(states[..., TINY.width :], expected)
    close(logits[..., FIRST_CODE:], of_codes[..., FIRST_CODE:])


def test_cross_shares_one_table_by_modality() -> None:
    a, b = some(TINY, 1), some(TINY, 2)
    model = merged({"name": "cross"}, a, b)
    assert isinstance(model, Towers)
    table = model.tables[0].weight
    assert torch.equal(table[:FIRST_CODE], a.table.weight[:FIRST_CODE])
    assert torch.equal(table[FIRST_CODE:], b.table.weight[FIRST_CODE:])
    assert torch.equal(model.join.weight @ torch.ones(2 * TINY.width), torch.ones(TINY.width))
    # Links are open to gradients though they change nothing yet.
    ids, places = ids_and_positions(example(16, "mixed"))
    states = model.states(ids, places, causal_segments(torch.ones_like(ids)))
    model.logits(states).log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None]).sum().backward()
    assert all(one.grad is not None and one.grad.any() for name, one in model.named_parameters() if "gate" in name)


def test_closed_links_between_towers_of_other_shapes() -> None:
    a, b = some(TINY, 1), some(NARROW, 2)
    ids, places = ids_and_positions(example(16, "links"))
    (of_a, logits_a), (of_b, logits_b) = (run(one, ids, places) for one in (a, b))
    zipper = merged({"name": "links", "to_first": 1, "to_second": 2}, a, b)
    states, logits = run(zipper, ids, places)
    assert torch.equal(states, torch.cat([of_a, of_b], -1))
    assert torch.equal(logits, torch.cat([logits_a[..., :FIRST_CODE], logits_b[..., FIRST_CODE:]], -1))
    flamingo = merged({"name": "links", "to_first": 3, "output": "first", "link": "attention_mlp"}, a, b)
    assert torch.equal(run(flamingo, ids, places)[1], logits_a)


def test_logits_are_added_up() -> None:
    large, tuned, small = some(TINY, 1), some(NARROW, 2), some(NARROW, 3)
    ids, places = ids_and_positions(example(10, "votes"))
    found = run(merged({"name": "logits", "weights": (1, 1, -1)}, large, tuned, small), ids, places)[1]
    logs = [run(model, ids, places)[1].log_softmax(-1) for model in (large, tuned, small)]
    close(found, logs[0] + logs[1] - logs[2])


def parameters(plan: MergePlan) -> float:
    """In thousand millions."""
    return sum(float(np.prod(one.shape)) for one in plan.made) / 1e9


def test_sizes_at_the_shape_of_the_paper() -> None:
    """12 d² L of blocks and the tables; ranges as the facts about JAM have them for a vocabulary near 56 thousand."""
    d, layers = PAPER.width, PAPER.layers
    one = parameters(planned({"name": "uniform"}, PAPER, PAPER))
    assert one == pytest.approx(
        (12 * d * d * layers + PAPER.rows * d + 4096 * d + (2 * layers + 1) * d) / 1e9, rel=1e-12
    )
    assert one == sum(float(np.prod(shape)) for shape in shapes_of(PAPER).values()) / 1e9
    assert 25.9 < parameters(planned({"name": "width"}, PAPER, PAPER)) < 26.5
    budget = {
        ("attention", 1): (17.4, 18.1),
        ("attention", 2): (15.3, 16.0),
        ("attention", 4): (14.2, 14.9),
        ("attention_mlp", 1): (26.0, 26.7),
        ("attention_mlp", 2): (19.6, 20.3),
        ("attention_mlp", 4): (16.4, 17.1),
    }
    untied = PAPER.model_copy(update={"tied": False})
    for (link, every), (low, high) in budget.items():
        found = parameters(planned({"name": "cross", "link": link, "every": every}, untied, untied))
        assert low - 0.05 < found < high + 0.05, (link, every, found)


def test_shapes_that_differ_are_named() -> None:
    other = TINY.model_copy(update={"mlp": 64, "layers": 4})
    for method in ({"name": "uniform"}, {"name": "width"}, {"name": "fourier"}):
        with pytest.raises(Mismatch) as error:
            planned(method, TINY, other)
        told = str(error.value)
        for layer in range(3):
            assert f"tower.layers.{layer}.mlp.wi_0.weight: A [48, 32], B [64, 32]" in told
            assert f"tower.layers.{layer}.mlp.wo.weight: A [32, 48], B [32, 64]" in told
        assert "tower.layers.3.attention.query.weight: A lacks it, B [32, 32]" in told
        assert "tower.layers.0.attention" not in told


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ({"name": "uniform"}, {"logit_scale": 1.0}, "backbone.logit_scale: A None, B 1.0"),
        ({"name": "uniform", "weights": (0.5, 0.25, 0.25)}, {}, "2 parents, 3 weights"),
        ({"name": "cross"}, {"width": 16}, "width: A 32, B 16"),
        ({"name": "cross", "every": 4}, {}, "4 is more than 3 layers"),
        ({"name": "links"}, {"image_ids": ((50, 60),)}, "image_ids .the joint ids.: A .*, B"),
        ({"name": "logits", "weights": (1.0,)}, {}, "2 parents, 1 weights"),
    ],
)
def test_what_else_does_not_fit(method: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Mismatch, match=message):
        planned(method, TINY, TINY.model_copy(update=changes))


def test_settings_that_mean_nothing_are_refused() -> None:
    for method, message in (
        ({"name": "uniform", "weights": (0.5, 0.6)}, "sum to 1"),
        ({"name": "links", "to_first": None}, "at least one tower"),
        ({"name": "average"}, "uniform"),
    ):
        with pytest.raises(ValueError, match=message):
            TypeAdapter(Method).validate_python(method)


def test_the_map_tells_layers_made_alike_in_one_line() -> None:
    plan = planned({"name": "cross", "every": 2}, TINY, TINY)
    lines = {line.names: line for line in name_map(plan, [Parent("A", TINY), Parent("B", TINY)])}
    query = lines["towers.1.layers.{0-2}.attention.query.weight"]
    assert (query.count, query.shape, query.sources) == (3, (32, 32), "B tower.layers.*.attention.query.weight")
    assert lines["links_to_first.0.gate"].rule == "0: closed"
    assert sum(line.count for line in lines.values()) == len(plan.made)
