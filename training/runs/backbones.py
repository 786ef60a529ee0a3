"""The backbone that a run's configuration means, and what follows from it for rendering and packing."""

from __future__ import annotations

from omnimill.errors import ConfigError
from omnimill.tokenizers.vocabulary import Vocabulary
from omnimill.tokens import TokenLayout
from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.backbone.kinds import SequenceConfig
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.rendering.settings import RenderSettings
from omnimill.training.runs.config import TrainConfig


def resolve_backbone(config: TrainConfig, layout: TokenLayout) -> BackboneConfig | SequenceConfig:
    """The backbone of a run over the streams of `layout`.

    Raises:
        ConfigError: a setting does not fit, or it is inherited and there is nothing to inherit it from.
        OmnimillError: the checkpoint that it is inherited from does not exist.
    """
    if config.backbone.kind != "inherited":
        found: BackboneConfig | SequenceConfig = config.backbone.resolve(layout)
    else:
        found = _inherited(config, layout)
    if config.train_encoders_from is not None and not isinstance(found, BackboneConfig):
        raise ConfigError("train_encoders_from: a decoder-only backbone has no image and audio encoders; leave it out")
    return found


def _inherited(config: TrainConfig, layout: TokenLayout) -> BackboneConfig | SequenceConfig:
    # A checkpoint's record holds a run's resolved configuration, this module's included.
    from omnimill.training.checkpoints import checkpoint  # noqa: PLC0415

    if config.init_from is None:
        raise ConfigError(
            "backbone.kind: inherited takes the backbone of the checkpoint of init_from, which is not set"
        )
    if config.backbone.overrides:
        raise ConfigError("backbone.overrides: an inherited backbone is taken as it is; leave them out")
    record = checkpoint.read_record(checkpoint.find(config.init_from))
    ours, theirs = (Vocabulary.of(one).text.rows for one in (layout, record.layout))
    if (layout.tokenizers, layout.digests) != (record.layout.tokenizers, record.layout.digests):
        raise ConfigError(
            f"init_from: {config.init_from} was trained with tokenizers {record.layout.tokenizers!r} ({theirs} rows of "
            f"text), the mixture's data were tokenized with {layout.tokenizers!r} ({ours})"
        )
    return record.backbone


def render_for(render: RenderSettings, backbone: BackboneConfig | SequenceConfig) -> RenderSettings:
    """The settings in the form that the backbone reads, with as many tokens for an earlier picture or clip as it makes.

    Raises:
        ConfigError: they ask for something else.
    """
    if not isinstance(backbone, BackboneConfig):
        return _agreed(render, {"form": "sequence"}, "a decoder-only backbone reads")
    made: dict[str, str | int] = {
        "form": "pairs",
        "image_latents": backbone.image_resampler.latents,
        "audio_latents": backbone.audio_resampler.latents,
    }
    return _agreed(render, made, "the backbone's resampler makes")


def _agreed(render: RenderSettings, made: dict[str, str | int], why: str) -> RenderSettings:
    for name in render.model_fields_set & made.keys():
        if getattr(render, name) != made[name]:
            raise ConfigError(
                f"render.{name}: found {getattr(render, name)}, allowed: {made[name]}, which is what {why}; leave it "
                "out to follow the backbone"
            )
    return render.model_copy(update=made)


def packing_for(packing: PackingSettings, backbone: BackboneConfig | SequenceConfig) -> PackingSettings:
    """The settings, with no more room for an encoder than a batch must have where there is none."""
    if isinstance(backbone, BackboneConfig) or "encoder" in packing.budgets.model_fields_set:
        return packing
    return packing.model_copy(update={"budgets": packing.budgets.model_copy(update={"encoder": 1})})
