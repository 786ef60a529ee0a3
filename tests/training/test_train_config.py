"""Training configurations: what is wrong with one is said at its line, and what changed since a checkpoint by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnimill.config import load_config
from omnimill.errors import ConfigError
from omnimill.mixtures.versions import Versions
from omnimill.tokens import TokenLayout
from omnimill.training.backbone.config import BackboneConfig, Size
from omnimill.training.engine.optim import AdafactorConfig
from omnimill.training.engine.schedules import learning_rate
from omnimill.training.engine.settings import ParallelSettings
from omnimill.training.rendering.settings import RenderSettings
from omnimill.training.runs.config import BackboneSettings, TrainConfig, differences
from omnimill.training.runs.inputs import TrainInputs, resolve
from omnimill.training.runs.stage_plan import plan_stages
from omnimill.training.runs.stages import read_stages

PROJECT = Path(__file__).parents[2]


def write(folder: Path, text: str) -> Path:
    path = folder / "train.yaml"
    path.write_text(text)
    return path


def test_a_short_file_means_the_reference_settings(tmp_path: Path) -> None:
    path = write(tmp_path, "name: a\nmixture: m.yaml\nsteps: 10\nstreams: 4\n")
    config = load_config(path, TrainConfig)
    assert (config.optimizer.name, config.optimizer.warmup_steps, config.gradient_clip) == ("adafactor", 5000, 1.0)
    assert (config.packing.budgets.encoder, config.packing.budgets.decoder) == (864, 1280)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("name: a\nmixture: m\nsteps: 1\nstreams: 5\nworkers: 2", r"streams \(5\) must be a multiple of workers \(2\)"),
        (
            "name: a\nmixture: m\nsteps: 1\nstreams: 1\nelastic: {min_workers: 2}",
            r"min_workers \(2\) is more than workers",
        ),
        ("name: a\nmixture: m\nsteps: 1\nstreams: 1\ncheckpoints: {keep_best: {}}", "keep_best needs evaluations"),
        ("name: a\nmixture: m\nsteps: 0\nstreams: 1", r"train.yaml:3: steps: .*greater than 0; found 0"),
        ("name: a.b\nmixture: m\nsteps: 1\nstreams: 1", r"train.yaml:1: name: .*found 'a.b'"),
        ("name: a\nmixture: m\nsteps: 1\nstreams: 1\nsteams: 2", r"train.yaml:5: steams: unknown key.*'streams'"),
        (
            "name: a\nmixture: m\nsteps: 1\nstreams: 1\noptimizer: {name: adamw, momentum: 0.9}",
            r"train.yaml:5: optimizer.*momentum: unknown key",
        ),
        ("name: a\nmixture: m\nsteps: 1\nstreams: 1\noptimizer: {name: sgd}", r"train.yaml:5: optimizer.*sgd"),
    ],
)
def test_errors_name_the_line_and_the_key(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, lines), TrainConfig)


def test_overrides_change_single_fields(layout: TokenLayout) -> None:
    plain = BackboneConfig.of("tiny", layout)
    changed = BackboneSettings(overrides={"encoder_layers": 1, "image_resampler": {"latents": 5}}).resolve(layout)
    expected = plain.model_copy(
        update={
            "encoder_layers": 1,
            "image_resampler": plain.image_resampler.model_copy(update={"latents": 5}),
        }
    )
    assert changed == expected
    with pytest.raises(ConfigError, match=r"backbone\.overrides: encoder_layer: .*allowed keys: .*encoder_layers"):
        BackboneSettings(overrides={"encoder_layer": 1}).resolve(layout)


def test_a_size_and_its_flags_come_from_the_file(tmp_path: Path) -> None:
    layout = TokenLayout(tokenizers="none", digests={})
    for size in get_args(Size):
        backbone = f"backbone: {{size: {size}, overrides: {{sparse_decoder: true}}}}"
        lines = f"name: a\nmixture: m\nsteps: 1\nstreams: 1\n{backbone}"
        found = load_config(write(tmp_path, lines), TrainConfig).backbone.resolve(layout)
        assert found == BackboneConfig.of(size, layout).model_copy(update={"sparse_decoder": True})


def test_rendering_counts_latents_as_the_backbone_makes_them(train_config: TrainConfig, train_root: Path) -> None:
    inputs = resolve(train_config, str(train_root))
    made = inputs.backbone.image_resampler.latents, inputs.backbone.audio_resampler.latents
    assert (train_config.render.image_latents, train_config.render.audio_latents) != made
    assert (inputs.config.render.image_latents, inputs.config.render.audio_latents) == made
    assert resolve(inputs.config, str(train_root)) == inputs
    wrong = train_config.model_copy(update={"render": RenderSettings(image_latents=31)})
    with pytest.raises(ConfigError, match=r"render\.image_latents: found 31, allowed: 8"):
        resolve(wrong, str(train_root))


def changed(inputs: TrainInputs, **values: Any) -> TrainInputs:
    return inputs.model_copy(update={"config": inputs.config.model_copy(update=values)})


def test_only_what_decides_the_learning_counts_as_a_change(inputs: TrainInputs) -> None:
    free = {
        "steps": 1000,
        "workers": 2,
        "checkpoints": {"every": 7},
        "log_every": 3,
        "mixture": "moved.yaml",
        "name": "b",
    }
    assert inputs.changes(changed(inputs, **free)) == []
    assert inputs.changes(changed(inputs, seed=4)) == ["config.seed: was 0, is 4"]
    task = inputs.mixture.tasks[0].model_copy(update={"rate": 9.5})
    mixture = inputs.mixture.model_copy(update={"tasks": (task, *inputs.mixture.tasks[1:])})
    (line,) = inputs.changes(inputs.model_copy(update={"mixture": mixture}))
    assert line == f"mixture.tasks.caption.rate: was {inputs.mixture.tasks[0].rate}, is 9.5"
    (tokens,) = inputs.versions.datasets
    newer = Versions(datasets=(tokens.model_copy(update={"manifest": "1" * 64}),))
    (line,) = inputs.changes(inputs.model_copy(update={"versions": newer}))
    assert line == f"versions.datasets.0.manifest: was '{tokens.manifest}', is '{'1' * 64}'"


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.data())
def test_micro_batches_stay_as_small_with_fewer_workers(
    workers: int, parts: int, held: int, data: st.DataObject
) -> None:
    config = TrainConfig(
        name="a",
        mixture="m",
        steps=1,
        streams=workers * parts * held,
        workers=workers,
        parallel=ParallelSettings(micro_batches=parts),
    )
    world = data.draw(st.integers(1, config.streams))
    shares = [len(range(rank, config.streams, world)) for rank in range(world)]
    found = config.micro_batches(world)
    assert config.micro_batches(workers) == parts
    assert 1 <= found <= min(shares), "all workers go through the same number, each with a sequence at least"
    assert -(-max(shares) // found) <= held + (max(shares) != min(shares))


def test_differences_tell_absent_from_none() -> None:
    assert differences({"a": None, "b": [1]}, {"b": [1, 2], "c": {}}) == [
        "a: was None, is absent",
        "b.1: was absent, is 2",
        "c: was absent, is {}",
    ]


def test_shipped_configurations_load() -> None:
    paths = sorted((PROJECT / "training" / "configs").glob("*.yaml"))
    assert paths
    for path in paths:
        for stage in read_stages(path):
            assert (PROJECT / stage.config.mixture).exists()


@pytest.mark.parametrize(
    ("size", "parameters"), [("large", 962_110_208), ("xl", 3_056_929_536), ("xxl", 6_745_690_432)]
)
def test_the_reference_s_training_is_shipped(size: str, parameters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fact sheet of the reference, sections 6 and 8: paper, sections 3.5, B.3 and B.4; configurations of the code."""
    monkeypatch.chdir(PROJECT)
    stages = read_stages(f"training/configs/uio2-{size}.yaml")
    first, second, last = (stage.config for stage in stages)
    assert [stage.after and stage.after.name for stage in stages] == [None, first.name, second.name]
    assert first.steps + second.steps == last.steps == 1_500_000
    assert (first.streams, second.streams, last.streams) == (512, 512, 256)
    assert [(one.packing.budgets.encoder, one.packing.budgets.decoder) for one in (first, second, last)] == [
        (864, 1280),
        (1024, 1280),
        (1024, 1280),
    ]
    assert [(one.render.image_keep, one.render.audio_keep) for one in (first, second, last)] == [
        (0.5, 0.5),
        (0.5, 0.5),
        (0.875, 0.875),
    ]
    assert (second.init_optimizer, last.init_optimizer) == (True, True)
    optimizer = AdafactorConfig()
    assert {one.optimizer for one in (first, second, last)} == {optimizer}
    rates = [learning_rate(optimizer, update - 1) for update in (5000, 1_500_000, 3_000_000)]
    assert rates == pytest.approx([0.01414, 8.16e-4, 5.77e-4], rel=1e-3)
    # The budgets hold both published mixtures; and so much is to be held of the model.
    plans = plan_stages(stages[::2], "runs/none")
    assert {plan.memory.trained + plan.memory.frozen for plan in plans} == {parameters}
