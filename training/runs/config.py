"""The configuration of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from omnimill.config import Config, flat
from omnimill.errors import ConfigError
from omnimill.mixtures.online_config import OnlineConfig
from omnimill.tokens import TokenLayout
from omnimill.training.backbone.config import BackboneConfig, Size
from omnimill.training.backbone.decoder_config import DecoderConfig, DecoderSize
from omnimill.training.checkpoints.settings import CheckpointSettings
from omnimill.training.engine.optim import AdafactorConfig, OptimizerConfig
from omnimill.training.engine.settings import LossWeights, ParallelSettings, PrecisionSettings
from omnimill.training.evaluation.forgetting_settings import ForgettingSettings
from omnimill.training.evaluation.settings import EvaluationSettings
from omnimill.training.loading.settings import LoaderSettings
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.rendering.settings import RenderSettings

# Settings that may change between two launches of one run: they say where, how long and how watched, not what is
# learnt. Losses stay the same to the last bit as long as `workers` and `threads` do too, else up to summation order.
FREE_TO_CHANGE = frozenset(
    {
        "steps",
        "workers",
        "threads",
        "use_gpu",
        "checkpoints",
        "elastic",
        "evaluation",
        "forgetting",
        "loader",
        "log_every",
        "max_failures",
        "on_change",
        "parallel",
        "watch_attention",
    }
)


class BackboneSettings(Config):
    """kind: ``encoder_decoder``; ``decoder``: decoder-only, over one joint id space; ``inherited``: whatever the
    checkpoint of `init_from` has, such as what `omnimill merge` made. Written where it is no encoder-decoder, so that
    older settings keep their digests.
    size: a named size of the kind; not of an inherited one. overrides: fields of `BackboneConfig` or `DecoderConfig` to
    set differently, nested as there.
    """

    kind: Literal["encoder_decoder", "decoder", "inherited"] = "encoder_decoder"
    size: Size | DecoderSize = "tiny"
    overrides: dict[str, Any] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _without_the_first_kind(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = dump(self)
        if self.kind == "encoder_decoder":
            body.pop("kind", None)
        return body

    @property
    def described(self) -> str:
        """In a word or two."""
        return {"encoder_decoder": self.size, "decoder": f"decoder {self.size}"}.get(self.kind, self.kind)

    def resolve(self, layout: TokenLayout) -> BackboneConfig | DecoderConfig:
        """The backbone for the streams of `layout`.

        Raises:
            ConfigError: the kind has no such size, or is inherited; an override names no field or has an impossible
                value.
        """
        kinds: dict[str, tuple[type[BackboneConfig | DecoderConfig], tuple[str, ...]]] = {
            "encoder_decoder": (BackboneConfig, get_args(Size)),
            "decoder": (DecoderConfig, get_args(DecoderSize)),
        }
        if self.kind not in kinds:
            raise ConfigError(f"backbone.kind: found {self.kind!r}, allowed here: {', '.join(kinds)}")
        model, sizes = kinds[self.kind]
        if self.size not in sizes:
            raise ConfigError(f"backbone.size: found {self.size!r}; {self.kind} has {', '.join(sizes)}")
        plain = model.of(self.size, layout).model_dump()  # type: ignore[arg-type]
        try:
            return model.model_validate(_merged(plain, self.overrides))
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ConfigError(f"backbone.overrides: {faults}; allowed keys: {', '.join(sorted(plain))}") from None


class ElasticSettings(Config):
    """Train on with as many workers as there is room for.

    min_workers: fewer than this wait for room. The most are the run's `workers`.
    look_every: seconds between looks for room for more. A run that grows begins anew from its newest checkpoint.
    """

    min_workers: PositiveInt
    look_every: PositiveFloat = 60.0


class TrainConfig(Config):
    """One training run: ``omnimill train`` starts it, or goes on with it from its newest checkpoint.

    name: of the run, under ``<root>/runs``. mixture: path of the mixture file. seed: of the initial weights (the
    order of the data has the mixture's seed). steps: updates to do in all.
    streams: packed sequences in every global batch; a multiple of `workers`.
    init_from: weights that the run starts from instead of random ones: a checkpoint's folder, a run's (its newest
        checkpoint), or published weights, see docs/training.md.
    init_optimizer: take the optimizer's state over from the checkpoint of `init_from` too, and count the learning
        rate's steps on from there, as if it were one run.
    z_loss: weight of (log Z)², which keeps logits from drifting (fact sheet of the reference, §7.6).
    loss_weights: of the modalities' losses in the sum that is minimised, and what these are divided by.
    train_encoders_from: step that image and audio encoders are frozen until; null: as the backbone says, for good.
    watch_attention: updates from one look at the largest attention logits to the next; null: none.
    gradient_clip: most that the global norm of the gradient may be.
    loader: how batches are made ready ahead of the step.
    forgetting: tasks that the run's parents knew, and by how much they may get worse; null: nobody asks.
    online: rates that follow the losses, see `omnimill.mixtures.online`.
    on_change: what to do when a run goes on and its mixture, the version of its data, a selection or `online` has
        changed: refuse, or continue with it from the next step on, which the run's ledger then says.
    leave_out: steps, from the first up to before the second of two numbers, that nothing is learnt from, such as those
        of a spike of the loss: their examples are read and their losses measured, and then comes the next step. Those
        that are still to come may change when a run goes on.
    elastic: how few workers go on when machines are lost; null: the run waits for all of them.
    threads: of PyTorch, per worker. max_failures: times that Ray starts lost workers again before it gives up; machines
        that are taken away with notice are not counted.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    mixture: str
    seed: int = 0
    init_from: str | None = None
    init_optimizer: bool = False
    steps: PositiveInt
    streams: PositiveInt
    online: OnlineConfig | None = None
    on_change: Literal["refuse", "continue"] = "refuse"
    leave_out: tuple[tuple[NonNegativeInt, PositiveInt], ...] = ()
    workers: PositiveInt = 1
    elastic: ElasticSettings | None = None
    threads: PositiveInt = 1
    use_gpu: bool = False
    backbone: BackboneSettings = BackboneSettings()
    packing: PackingSettings = PackingSettings()
    render: RenderSettings = RenderSettings()
    loader: LoaderSettings = LoaderSettings()
    optimizer: OptimizerConfig = AdafactorConfig()
    gradient_clip: PositiveFloat = 1.0
    z_loss: float = Field(default=1e-4, ge=0)
    loss_weights: LossWeights = LossWeights()
    train_encoders_from: NonNegativeInt | None = None
    precision: PrecisionSettings = PrecisionSettings()
    parallel: ParallelSettings = ParallelSettings()
    watch_attention: PositiveInt | None = 100
    evaluation: EvaluationSettings = EvaluationSettings()
    forgetting: ForgettingSettings | None = None
    checkpoints: CheckpointSettings = CheckpointSettings()
    log_every: PositiveInt = 1
    max_failures: NonNegativeInt = 2

    def leaves_out(self, step: int) -> bool:
        """Whether nothing is learnt from a step."""
        return any(first <= step < past for first, past in self.leave_out)

    def micro_batches(self, world: int) -> int:
        """Parts that each of `world` workers computes its sequences in, so that none holds more than the run was set up
        for, but for one where the streams cannot be shared equally.
        """
        held = self.streams // self.workers // self.parallel.micro_batches
        return -(-(self.streams // world) // held)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.streams % self.workers:
            raise ValueError(f"streams ({self.streams}) must be a multiple of workers ({self.workers})")
        if self.streams // self.workers % (parts := self.parallel.micro_batches):
            raise ValueError(
                f"a worker's streams ({self.streams // self.workers}) must be a multiple of parallel.micro_batches "
                f"({parts})"
            )
        if empty := [list(steps) for steps in self.leave_out if steps[0] >= steps[1]]:
            raise ValueError(f"leave_out: found {empty[0]}, which holds no step; allowed: a first step and a later one")
        if self.checkpoints.keep_best and self.evaluation.every is None:
            raise ValueError("checkpoints.keep_best needs evaluations to choose by: evaluation.every is not set")
        if self.elastic and self.elastic.min_workers > self.workers:
            raise ValueError(f"elastic.min_workers ({self.elastic.min_workers}) is more than workers ({self.workers})")
        return self


def _merged(plain: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    nested = {
        key: _merged(plain[key], value)
        for key, value in overrides.items()
        if isinstance(value, Mapping) and isinstance(plain.get(key), Mapping)
    }
    return {**plain, **overrides, **nested}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Every key whose value differs, as ``key: was …, is …``; nested keys are joined by dots."""
    old, new = ({key: repr(value) for key, value in flat(one)} for one in (before, now))
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return [f"{key}: was {old.get(key, 'absent')}, is {new.get(key, 'absent')}" for key in keys]
