"""Training a codebook network on a sample held in memory, and measuring it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from omnimill.progress import progress
from omnimill.rng import digest64
from omnimill.tokenizers.config import FitConfig
from omnimill.tokenizers.networks import Autoencoder
from omnimill.tokenizers.vq import CodeArray

# Weight of the commitment loss (van den Oord et al. 2017, section 3.2).
COMMITMENT = 0.25
WARM_UP_STEPS = 20
# Patches of so many samples set the start.
START_SAMPLES = 256


def fit(
    build: Callable[[], Autoencoder],
    samples: Tensor,
    as_input: Callable[[Tensor], Tensor],
    config: FitConfig,
    seed: int,
    label: str,
) -> Autoencoder:
    """Train a network to reconstruct its input.

    Seeded, on a fixed number of threads: the same samples and settings give the same weights on the same machine.

    Args:
        build: makes the network; called under the seed.
        samples: [N, …] in the form they are held in memory.
        as_input: some of them as the network's input, float32 [n, channels, height, width].
        config: steps, batch and so on.
        seed: together with `label`, of every draw.
        label: what is trained, for the progress line.
    """
    with _repeatable(digest64(label, seed), config.threads):
        network = build().to(config.device)
        first = samples[torch.randperm(len(samples))[:START_SAMPLES]]
        network.start(as_input(first.to(config.device)))
        optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
        network.train()
        with progress(f"tokenizer train {label}", config.steps, unit="steps") as advance:
            for step in range(config.steps):
                for group in optimiser.param_groups:
                    group["lr"] = config.learning_rate * _schedule(step, config.steps)
                drawn = samples[torch.randint(len(samples), (config.batch,))]
                batch = as_input(drawn.to(config.device))
                outputs, _, commitment = network(batch)
                error = F.mse_loss(outputs, batch)
                optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(error + COMMITMENT * commitment)
                optimiser.step()
                advance(1, error=f"{error.item():.4f}")
    return network.cpu().eval()


def codebook_use(name: str, codes: CodeArray, size: int) -> dict[str, float]:
    """How many codes occur, and the perplexity of their distribution (equal when those are equally frequent)."""
    counts = np.bincount(codes.reshape(-1), minlength=size)
    shares = counts[counts > 0] / counts.sum()
    perplexity = float(np.exp(-(shares * np.log(shares)).sum()))
    return {f"{name}_codes_used": float(len(shares)), f"{name}_perplexity": round(perplexity, 2)}


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine to zero."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * (0.5 + 0.5 * math.cos(math.pi * step / max(steps, 1)))


@contextmanager
def _repeatable(seed: int, threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed % 2**63)
            yield
    finally:
        torch.set_num_threads(before)
