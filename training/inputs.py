"""Everything that decides what a run learns, resolved from its configuration: what workers and checkpoints hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omnimill.config import Config
from omnimill.errors import ConfigError
from omnimill.infra.dataset import Dataset
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.loading import load_mixture
from omnimill.tokenizers.store import load_text
from omnimill.tokens import TokenLayout
from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.config import FREE_TO_CHANGE, TrainConfig, differences
from omnimill.training.loader import Loader
from omnimill.training.planner import VirtualStreams
from omnimill.training.render_settings import RenderSettings


class TokenDatasetRef(Config):
    """A version of a token dataset."""

    name: str
    manifest: str


class TrainInputs(Config):
    """dataset: the tokens that are trained on; layout: what their numbers mean; backbone: the model, in full.

    The configuration's render settings are resolved too: they count latents as the backbone makes them.
    """

    config: TrainConfig
    mixture: Mixture
    dataset: TokenDatasetRef
    layout: TokenLayout
    backbone: BackboneConfig

    @property
    def render(self) -> RenderSettings:
        return self.config.render

    def decisive(self) -> dict[str, Any]:
        """What decides what is learnt, as JSON: not the run's name, nor what may change between two launches of it."""
        # The mixture counts by what it says, wherever its file lies.
        excluded = {"config": {*FREE_TO_CHANGE, "name", "mixture"}}
        return self.model_dump(mode="json", include=set(TrainInputs.model_fields), exclude=excluded)

    def changes(self, now: TrainInputs) -> list[str]:
        """What is different in `now` of that, one line for each key."""
        return differences(self.decisive(), now.decisive())


def resolve(config: TrainConfig, root: str) -> TrainInputs:
    """Read what the configuration names: the mixture, and the current version of its token dataset under `root`.

    Raises:
        ConfigError: a setting does not fit the mixture, the dataset or another setting.
        OmnimillError: the dataset does not exist.
    """
    mixture = load_mixture(config.mixture)
    digest, manifest = Dataset(root, mixture.datasets[0]).manifest()
    if manifest.kind != "tokens":
        raise ConfigError(
            f"{config.mixture}: dataset {mixture.datasets[0]!r} under {root} holds {manifest.kind}; training needs "
            "tokens (omnimill tokenize makes them)"
        )
    layout = TokenLayout.model_validate(manifest.attributes["layout"])
    backbone = config.backbone.resolve(layout)
    return TrainInputs(
        config=config.model_copy(update={"render": _with_latents(config.render, backbone)}),
        mixture=mixture,
        dataset=TokenDatasetRef(name=mixture.datasets[0], manifest=digest),
        layout=layout,
        backbone=backbone,
    )


def _with_latents(render: RenderSettings, backbone: BackboneConfig) -> RenderSettings:
    """The settings, with as many tokens for an earlier picture or clip as the backbone makes of it."""
    made = {
        "image_latents": backbone.image_resampler.latents,
        "audio_latents": backbone.audio_resampler.latents,
    }
    for name in render.model_fields_set & made.keys():
        if getattr(render, name) != made[name]:
            raise ConfigError(
                f"render.{name}: found {getattr(render, name)}, allowed: {made[name]}, which is what the backbone's "
                "resampler makes; leave it out to follow the backbone"
            )
    return render.model_copy(update=made)


def open_loader(
    inputs: TrainInputs, root: str, *, rank: int = 0, world: int = 1, state: Mapping[str, Any] | None = None
) -> Loader:
    """The loader of one worker's streams, from the beginning or from a checkpoint's `plan`."""
    threads = inputs.config.threads
    return Loader(root, **_settings(inputs, root), rank=rank, world=world, state=state, threads=threads)


def open_streams(inputs: TrainInputs, root: str) -> VirtualStreams:
    """What the loaders of a run plan with, without the media."""
    return VirtualStreams(root, **_settings(inputs, root))


def _settings(inputs: TrainInputs, root: str) -> dict[str, Any]:
    _, manifest = Dataset(root, inputs.dataset.name).manifest(inputs.dataset.manifest)
    return {
        "mixture": inputs.mixture,
        "manifest": manifest,
        "layout": inputs.layout,
        "text": load_text(root, inputs.layout),
        "packing": inputs.config.packing,
        "render": inputs.render,
        "streams": inputs.config.streams,
    }
