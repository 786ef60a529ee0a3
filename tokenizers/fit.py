"""What every worker does to train a code network: take up the newest checkpoint, learn, publish checkpoints.

Plain PyTorch: alone, or inside an initialised ``torch.distributed`` group. `omnimill.tokenizers.launch` starts it, on
Ray Train or in the command's own process. Every step's randomness is keyed, so a checkpoint holds no generator, and
a run that goes on from one ends with the weights of an undisturbed run.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from omnimill.config import Config, digest_json
from omnimill.infra import storage
from omnimill.rng import digest64
from omnimill.tokenizers.config import FREE_TO_CHANGE, AudioSettings, FitConfig, ImageSettings, TokenizerConfig
from omnimill.tokenizers.corpus import Corpus, MediaItems, Split
from omnimill.tokenizers.feed import Feed
from omnimill.tokenizers.losses import NetworkLoss, discriminator_loss, patch_discriminator
from omnimill.tokenizers.metrics import perplexity
from omnimill.tokenizers.networks import CodeNetwork
from omnimill.tokenizers.perceptual import weights_digests
from omnimill.tokenizers.views import stacked, views_of
from omnimill.tokenizers.weights import initial_network
from omnimill.tokens import AudioLayout, ImageLayout

# Raised when the same settings and examples give other weights.
FIT_VERSION = 1
# Items whose vectors the codebook is placed by.
START_ITEMS = 256
# Share of the steps that the learning rate grows in: 20,000 of 1,000,000, as the reference's.
_WARMUP_SHARE = 0.02
CHECKPOINT = "checkpoint.pt"


class FitTask(Config):
    """One network's training, as its workers get it; see :func:`fit_task`.

    manifest: digest of the examples' version. selections: digests of what leaves some of them out.
    split: which of the others are not learnt from. folder: where the training keeps its checkpoint.
    """

    config: TokenizerConfig
    part: Literal["image", "audio"]
    root: str
    manifest: str
    selections: tuple[str, ...]
    split: Split
    folder: str

    @property
    def medium(self) -> ImageSettings | AudioSettings:
        return self.config.image if self.part == "image" else self.config.audio

    @property
    def layout(self) -> ImageLayout | AudioLayout:
        return self.config.layout.image if self.part == "image" else self.config.layout.audio

    @property
    def settings(self) -> FitConfig:
        return self.medium.training


def fit_task(
    config: TokenizerConfig,
    part: Literal["image", "audio"],
    corpus: Corpus,
    split: Split,
    published: Mapping[str, str],
) -> FitTask:
    """The training of a set's part.

    Args:
        config: of the set.
        part: of it.
        corpus: to learn from.
        split: what is not learnt from.
        published: see :func:`omnimill.tokenizers.weights.published_digests`.

    Raises:
        ConfigError: files of perceptual weights do not exist.
    """
    root = storage.filesystem(corpus.dataset.root)[1] if storage.is_local(corpus.dataset.root) else corpus.dataset.root
    selections = tuple(sorted(corpus.selections.values()))
    task = FitTask(
        config=config,
        part=part,
        root=root,
        manifest=corpus.digest,
        selections=selections,
        split=split,
        folder="",
    )
    settings = task.settings
    free = set(FREE_TO_CHANGE)
    if settings.schedule == "constant" and settings.warmup_steps is not None:
        free.add("steps")  # such a training can be gone on with
    perceptual = settings.losses.perceptual
    decisive = {
        "version": FIT_VERSION,
        **task.model_dump(mode="json", include={"part", "manifest", "selections", "split"}),
        "seed": config.seed,
        "layout": task.layout.model_dump(mode="json"),
        "network": task.medium.network.model_dump(mode="json"),
        "weights": published.get(f"{part}.weights"),
        "training": settings.model_dump(mode="json", exclude=free),
        "perceptual": None if perceptual is None else weights_digests(perceptual.weights),
    }
    name = f"{part}-{digest_json(decisive)[:16]}"
    return task.model_copy(update={"folder": storage.join(root, "tokenizers", config.name, "training", name)})


@dataclass(frozen=True)
class Worker:
    """One of the processes that train together.

    rank: its number; world: how many there are. wrap: makes a module average its gradients over them.
    told: what worker 0 has to say after every `log_every` steps.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    wrap: Callable[[nn.Module], nn.Module] | None = None
    told: Callable[[dict[str, float]], None] | None = None


def train_network(task: FitTask, worker: Worker) -> None:
    """Train from the newest checkpoint, or from the beginning, until all steps are done; publish checkpoints.

    Raises:
        OmnimillError: there is nothing to learn from.
        ConfigError: files of weights are missing or not what they should be.
    """
    settings = task.settings
    views = views_of(task.config, task.part)
    corpus = Corpus(task.root, task.config.dataset, task.selections, task.manifest)
    feed = Feed(MediaItems(corpus, views.column), views, task.split, _seed(task, "data"), settings.loaders)
    with _repeatable(worker.device, settings.threads):
        state = _agree(read_checkpoint(task) if worker.rank == 0 else None)
        torch.manual_seed(_seed(task, "start"))
        network = initial_network(task.medium, task.layout) if state is None else views.build()
        learner = _Learner(settings, network, views.channels, worker.device)
        if state is not None:
            learner.load(state)
        elif task.medium.weights is None and worker.rank == 0:
            start = stacked([feed.shown(-1, place) for place in range(START_ITEMS)])
            learner.network.start(views.inputs(start.to(worker.device)))
        if worker.wrap is not None:
            learner.wrap(worker.wrap)
        done = state["step"] if state is not None else 0
        if worker.rank == 0 and state is None and not settings.steps:
            write_checkpoint(task, learner.state(0))
        tally = _Tally(learner.network.quantiser.codebook)
        places = range(worker.rank, settings.batch, worker.world)
        for step, parts in enumerate(feed.batches(done, settings.steps, places), done):
            torch.manual_seed(_seed(task, "step", step))
            tally.add(*learner.update(views.inputs(parts.to(worker.device)), step))
            done = step + 1
            if done % settings.log_every == 0 or done == settings.steps:
                line = {"step": float(done), **tally.line(), "learning_rate": learning_rate(settings, step)}
                if worker.told is not None and worker.rank == 0:
                    worker.told(line)
            if worker.rank == 0 and (done % settings.checkpoint_every == 0 or done == settings.steps):
                write_checkpoint(task, learner.state(done))


class _Learner:
    """A network, what judges it, and their optimisers."""

    def __init__(self, settings: FitConfig, network: CodeNetwork, channels: int, device: torch.device) -> None:
        self._settings = settings
        self._loss = NetworkLoss(settings.losses, device)
        self.network = network.to(device).train()
        self._wrapped: nn.Module = self.network
        self._optimiser = self._adam(self.network, settings.learning_rate)
        adversarial = settings.losses.adversarial
        self._judge: nn.Module | None = None
        if adversarial.weight and settings.steps > adversarial.from_step:
            self._judge = patch_discriminator(adversarial, channels).to(device).train()
            self._wrapped_judge: nn.Module = self._judge
            self._judge_optimiser = self._adam(self._judge, adversarial.learning_rate)

    def _adam(self, module: nn.Module, rate: float) -> torch.optim.AdamW:
        settings = self._settings
        return torch.optim.AdamW(module.parameters(), rate, settings.betas, weight_decay=settings.weight_decay)

    def wrap(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        """Average gradients over workers from here on."""
        self._wrapped = wrap(self.network)
        if self._judge is not None:
            self._wrapped_judge = wrap(self._judge)

    def update(self, inputs: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """One update; codes of the batch and the losses' parts. What is not finite changes no weight."""
        settings = self._settings
        factor = schedule(settings, step)
        judge = self._judge if step >= settings.losses.adversarial.from_step else None
        half = torch.autocast(inputs.device.type, torch.bfloat16, enabled=settings.bf16)
        with half:
            outputs, codes, commitment = self._wrapped(inputs)
            losses = self._loss(self.network, inputs, outputs, commitment, judge)
        parts = dict(losses.parts)
        parts["skipped"] = self._descend(self._optimiser, losses.total, factor * settings.learning_rate)
        if judge is not None:
            with half:
                verdict = discriminator_loss(self._wrapped_judge, inputs, outputs)
            self._descend(self._judge_optimiser, verdict, factor * settings.losses.adversarial.learning_rate)
            parts["discriminator"] = verdict.detach()
        return codes, parts

    def _descend(self, optimiser: torch.optim.Optimizer, loss: Tensor, rate: float) -> Tensor:
        """Update unless the gradient is not finite; 1 if it was left out, else 0."""
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self._settings.gradient_clip)
        finite = bool(torch.isfinite(norm))
        if finite:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
        return torch.tensor(0.0 if finite else 1.0, device=norm.device)

    def state(self, step: int) -> dict[str, Any]:
        """Everything that the next step depends on, after `step` of them."""
        state = {"step": step, "network": _tensors(self.network), "optimiser": self._optimiser.state_dict()}
        if self._judge is not None:
            state["judge"] = _tensors(self._judge)
            state["judge_optimiser"] = self._judge_optimiser.state_dict()
        return state

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a stored state; a discriminator that it does not know stays as it is."""
        _fill(self.network, state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        if self._judge is not None and "judge" in state:
            _fill(self._judge, state["judge"])
            self._judge_optimiser.load_state_dict(state["judge_optimiser"])


class _Tally:
    """Means of the losses' parts and use of the codebook since the last line, over all workers."""

    def __init__(self, codebook: Tensor) -> None:
        self._counts = torch.zeros(len(codebook), dtype=torch.float64, device=codebook.device)
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def _begin_anew(self) -> None:
        self._counts.zero_()
        self._sums.clear()
        self._steps = 0

    def add(self, codes: Tensor, parts: Mapping[str, Tensor]) -> None:
        self._counts += torch.bincount(codes.flatten(), minlength=len(self._counts))
        for name, part in parts.items():
            self._sums[name] = part.double() + self._sums.get(name, 0.0)
        self._steps += 1

    def line(self) -> dict[str, float]:
        """The account, which begins anew."""
        names = sorted(self._sums)
        everything = torch.cat([torch.stack([self._sums[name] for name in names]), self._counts])
        workers = 1
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(everything)
            workers = dist.get_world_size()
        values = everything.cpu().numpy()
        counts = np.rint(values[len(names) :]).astype(np.int64)
        means = values[: len(names)] / (self._steps * workers)
        self._begin_anew()
        return {
            **{name: float(mean) for name, mean in zip(names, means, strict=True)},
            "perplexity": perplexity(counts),
            "codes_used": float((counts > 0).sum()),
        }


def schedule(settings: FitConfig, step: int) -> float:
    """Share of the highest learning rate at the update with index `step`: linear growth, then the schedule."""
    warmup = settings.warmup_steps
    if warmup is None:
        warmup = round(_WARMUP_SHARE * settings.steps)
    grown = min(1.0, (step + 1) / max(warmup, 1))
    if settings.schedule == "constant":
        return grown
    return grown * (0.5 + 0.5 * math.cos(math.pi * step / max(settings.steps, 1)))


def learning_rate(settings: FitConfig, step: int) -> float:
    return settings.learning_rate * schedule(settings, step)


def read_checkpoint(task: FitTask) -> dict[str, Any] | None:
    """The newest state of a training; None when it has none."""
    try:
        with storage.open_read(storage.join(task.folder, CHECKPOINT)) as stream:
            state: dict[str, Any] = torch.load(io.BytesIO(stream.read()), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    return state


def write_checkpoint(task: FitTask, state: Mapping[str, Any]) -> None:
    """Publish a state in the place of the one before it, whole.

    Should a worker of a killed run still write an older state, that costs steps and changes no weight.
    """
    url = storage.join(task.folder, CHECKPOINT)
    temporary = storage.scratch_path(url)
    torch.save(dict(state), temporary)
    storage.publish_file(temporary, url)


def trained_network(task: FitTask, state: Mapping[str, Any] | None) -> CodeNetwork | None:
    """The network of a training's newest state, on the CPU; None unless all steps are done."""
    if state is None or state["step"] < task.settings.steps:
        return None
    with torch.random.fork_rng([]):  # making it draws numbers that nothing needs
        network = views_of(task.config, task.part).build()
    _fill(network, state["network"])
    return network.eval()


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, also those that are not stored with a finished network."""
    return {name: tensor.detach() for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


@torch.no_grad()
def _fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in _tensors(module).items():
        tensor.copy_(tensors[name])


def _agree(state: dict[str, Any] | None) -> dict[str, Any] | None:
    """Worker 0's state, for all workers."""
    chosen = [state]
    if dist.is_available() and dist.is_initialized():
        dist.broadcast_object_list(chosen)
    return chosen[0]


def _seed(task: FitTask, *keys: str | int) -> int:
    return digest64("fit", task.part, task.config.seed, *keys) % 2**63


@contextmanager
def _repeatable(device: torch.device, threads: int) -> Iterator[None]:
    """A fixed number of threads, because sums in another order give other weights; torch is left as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(before)
