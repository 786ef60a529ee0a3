"""Merges that keep the parents' shape: means of weights, as they are and in the frequency domain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omnimill.training.merging.plan import MERGES, Made, Make, MergePlan, Mismatch, Parent, check_same_shapes
from omnimill.training.merging.settings import FourierMerge, UniformMerge


@MERGES.register("uniform")
def uniform(parents: Sequence[Parent], settings: UniformMerge) -> MergePlan:
    """Every weight is the weighted mean of the parents' weights of that name."""
    weights = settings.weights or (1 / len(parents),) * len(parents)
    if len(weights) != len(parents):
        raise Mismatch([f"method.weights: {len(parents)} parents, {len(weights)} weights"])
    rule = " + ".join(f"{weight:g} {parent.letter}" for weight, parent in zip(weights, parents, strict=True))

    def mean(tensors: Sequence[Tensor]) -> Tensor:
        total = torch.zeros_like(tensors[0], dtype=torch.float64)
        for weight, tensor in zip(weights, tensors, strict=True):
            # Not even where it is not finite does a parent of no weight leave a trace.
            total += weight * tensor.double() if weight else 0.0
        return total.to(tensors[0].dtype)

    return _of_same_names(parents, rule, mean)


@MERGES.register("fourier")
def fourier(parents: Sequence[Parent], settings: FourierMerge) -> MergePlan:
    """Every weight is what the mean of the parents' Fourier coefficients stands for."""
    assert settings.name == "fourier"
    return _of_same_names(parents, "harmonic mean of magnitudes, mean of phases", _spectral_mean)


def _spectral_mean(tensors: Sequence[Tensor]) -> Tensor:
    """The mean in the frequency domain along the last dimension.

    The mean of the phases is the direction of the sum of unit vectors, so that it does not depend on where angles
    begin. Where a magnitude is 0, so is the harmonic mean; where directions cancel out there is none, which is taken
    for 0, too.
    """
    spectra = torch.stack([torch.fft.rfft(tensor.double(), dim=-1) for tensor in tensors])
    magnitudes = spectra.abs()
    present = (magnitudes > 0).all(0)
    harmonic = len(tensors) / torch.where(magnitudes > 0, magnitudes, 1.0).reciprocal().sum(0)
    direction = torch.polar(torch.ones_like(magnitudes), spectra.angle()).sum(0)
    length = direction.abs()
    unit = torch.where(length > 1e-12, direction / length.clamp(min=1e-12), 0)
    mean = torch.where(present, harmonic * unit, 0)
    found: Tensor = torch.fft.irfft(mean, n=tensors[0].shape[-1], dim=-1)
    return found.to(tensors[0].dtype)


def _of_same_names(parents: Sequence[Parent], rule: str, make: Make) -> MergePlan:
    shapes = check_same_shapes(parents)
    numbers = range(len(parents))
    return MergePlan(
        parents[0].backbone,
        tuple(Made(name, shape, tuple((i, name) for i in numbers), rule, make) for name, shape in shapes.items()),
    )
