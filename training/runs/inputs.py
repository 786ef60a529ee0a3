"""Everything that decides what a run learns, resolved from its configuration: what workers and checkpoints hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from omnimill.config import Config
from omnimill.infra import storage
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.course import open_course
from omnimill.mixtures.ledger import Change, Entry
from omnimill.mixtures.loading import load_mixture
from omnimill.mixtures.online import check_online
from omnimill.mixtures.rows import scan
from omnimill.mixtures.versions import Versions, current_versions, open_versions
from omnimill.tokenizers.store import load_text
from omnimill.tokens import TokenLayout
from omnimill.training.backbone.kinds import AnyBackboneConfig
from omnimill.training.evaluation.forgetting_settings import check_forgetting
from omnimill.training.evaluation.settings import check_evaluation
from omnimill.training.loading.loader import Loader
from omnimill.training.planning.planner import VirtualStreams
from omnimill.training.planning.task_tokens import shares_of_draws
from omnimill.training.rendering.forms import make_recipes
from omnimill.training.rendering.settings import RenderSettings
from omnimill.training.runs.backbones import packing_for, render_for, resolve_backbone
from omnimill.training.runs.config import FREE_TO_CHANGE, TrainConfig, differences

# Beginnings of keys of what may change in mid-run when the configuration says `on_change: continue`.
_THROUGH_THE_LEDGER = ("mixture.", "versions.", "config.online")


class TrainInputs(Config):
    """mixture: with rates of examples. versions: of the tokens that are trained on; layout: what their numbers mean;
    backbone: the model, in full. updates_before: that the optimizer had done when the run began, see
    `TrainConfig.init_optimizer`; known once it has begun.

    The configuration's render settings are resolved too: they count latents as the backbone makes them.
    """

    config: TrainConfig
    mixture: Mixture
    versions: Versions
    layout: TokenLayout
    backbone: AnyBackboneConfig
    updates_before: int = 0

    @property
    def render(self) -> RenderSettings:
        return self.config.render

    def decisive(self) -> dict[str, Any]:
        """What decides what is learnt, as JSON: not the run's name, nor what may change between two launches of it."""
        # The mixture counts by what it says, wherever its file lies and in whatever order; what a run started from by
        # what was learnt from it.
        excluded: Any = {"config": {*FREE_TO_CHANGE, "name", "mixture", "init_from"}, "updates_before": True}
        found = self.model_dump(mode="json", include=set(TrainInputs.model_fields), exclude=excluded)
        if not self.config.leave_out:
            # Checkpoints from before there was this setting keep their digests.
            del found["config"]["leave_out"]
        for tasks in ("tasks", "held_out"):
            found["mixture"][tasks] = {task["name"]: task for task in found["mixture"][tasks]}
        return found

    def changes(self, now: TrainInputs) -> list[str]:
        """What is different in `now` of that, one line for each key."""
        return differences(self.decisive(), now.decisive())

    def change(self, step: int) -> Change:
        """What of that the ledger records, to hold from `step` on."""
        return Change(step=step, mixture=self.mixture, versions=self.versions, online=self.config.online)


def through_the_ledger(change: str) -> bool:
    """Whether one of the lines of :meth:`TrainInputs.changes` is of a kind that a run can go on through."""
    return change.startswith(_THROUGH_THE_LEDGER)


def resolve(config: TrainConfig, root: str) -> TrainInputs:
    """Read what the configuration names: the mixture, and the current versions of its token datasets under `root`.

    Raises:
        ConfigError: a setting does not fit the mixture, the dataset or another setting.
        OmnimillError: the dataset does not exist.
    """
    mixture = load_mixture(config.mixture)
    if config.online is not None:
        check_online(config.online, mixture)
    check_evaluation(config.evaluation, mixture)
    if config.forgetting is not None:
        check_forgetting(config.forgetting, config.evaluation, mixture)
    versions = current_versions(root, mixture)
    data = open_versions(root, versions)
    layout = data.layout
    backbone = resolve_backbone(config, layout)
    render, packing = render_for(config.render, backbone), packing_for(config.packing, backbone)
    if mixture.rate_unit == "tokens":
        recipes = make_recipes(mixture, layout, load_text(root, layout), render, packing.budgets)
        mixture = shares_of_draws(mixture, scan(data, mixture.tasks), recipes)
    start = config.init_from
    if start and storage.is_local(start):
        # Workers run in folders of their own.
        start = storage.filesystem(start)[1]
    return TrainInputs(
        config=config.model_copy(update={"render": render, "packing": packing, "init_from": start}),
        mixture=mixture,
        versions=versions,
        layout=layout,
        backbone=backbone,
    )


def open_loader(
    inputs: TrainInputs,
    root: str,
    entries: Sequence[Entry],
    *,
    rank: int = 0,
    world: int = 1,
    state: Mapping[str, Any] | None = None,
    device: torch.device | None = None,
) -> Loader:
    """The loader of one worker's streams, from the beginning or from a checkpoint's `plan`.

    Args:
        entries: of the run's ledger.
        device: where batches are brought.
    """
    config = inputs.config
    return Loader(
        open_course(root, entries, config.streams),
        load_text(root, inputs.layout),
        packing=config.packing,
        render=inputs.render,
        rank=rank,
        world=world,
        state=state,
        settings=config.loader,
        threads=config.threads,
        device=device,
    )


def open_streams(inputs: TrainInputs, root: str, entries: Sequence[Entry]) -> VirtualStreams:
    """What the loaders of a run plan with, without the media."""
    course = open_course(root, entries, inputs.config.streams)
    return VirtualStreams(course, load_text(root, inputs.layout), packing=inputs.config.packing, render=inputs.render)
