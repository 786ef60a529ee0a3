"""Losses of code networks: by hand where that is possible; weights of others are checked before they are used."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from omnimill.errors import ConfigError
from omnimill.tokenizers.losses import (
    AdversarialConfig,
    adaptive_weight,
    discriminator_loss,
    hinge_loss,
    judged,
    patch_discriminator,
)
from omnimill.tokenizers.perceptual import CONVOLUTIONS, PerceptualLoss, read_weights


def vgg(width: int = 3) -> dict[str, Tensor]:
    """Convolutions of VGG16's arrangement that pass every channel on as it is."""
    kernel = torch.zeros(width, width, 3, 3)
    kernel[range(width), range(width), 1, 1] = 1.0
    numbers = [number for block in CONVOLUTIONS for number in block]
    tensors = {f"features.{number}.weight": kernel.clone() for number in numbers}
    tensors |= {f"features.{number}.bias": torch.zeros(width) for number in numbers}
    return tensors


def heads(weights: list[float]) -> dict[str, Tensor]:
    return {f"lin{i}.model.1.weight": torch.tensor(weights)[None, :, None, None] for i in range(5)}


def saved(path: Path, tensors: dict[str, Tensor]) -> str:
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return str(path)


def flat(*colour: float) -> Tensor:
    return torch.tensor(colour)[None, :, None, None].expand(1, 3, 32, 32)


def test_perceptual_distance_of_flat_pictures_by_hand(tmp_path: Path) -> None:
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    one, other = torch.tensor([0.9, 0.1, 0.4]), torch.tensor([0.2, 0.8, 0.3])
    # The features of every resolution are the colour itself, brought to ImageNet's statistics.
    features = [(colour - shift) / scale for colour in (one, other)]
    directions = [vector / vector.norm() for vector in features]
    squares = (directions[0] - directions[1]).square()

    plain = PerceptualLoss(read_weights([saved(tmp_path / "vgg.safetensors", vgg())]))
    assert plain(flat(*one), flat(*other)).item() == pytest.approx(5 * squares.mean().item(), rel=1e-5)
    files = [str(tmp_path / "vgg.safetensors"), saved(tmp_path / "lin.safetensors", heads([0.5, 2.0, 0.0]))]
    weighed = PerceptualLoss(read_weights(files))
    expected = 5 * (squares * torch.tensor([0.5, 2.0, 0.0])).sum().item()
    assert weighed(flat(*one), flat(*other)).item() == pytest.approx(expected, rel=1e-5)
    assert weighed(flat(*one), flat(*one)).item() == 0.0


def test_perceptual_gradients_are_finite_also_where_nothing_is_seen(tmp_path: Path) -> None:
    tensors = {name: torch.randn(tensor.shape) * 0.5 for name, tensor in vgg().items()}
    torch.save({"state_dict": tensors}, tmp_path / "vgg.pth")
    loss = PerceptualLoss(read_weights([str(tmp_path / "vgg.pth")]))
    outputs = torch.full((2, 1, 32, 32), -5.0, requires_grad=True)  # a spectrogram: one channel
    loss(torch.randn(2, 1, 32, 32), outputs).backward()
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()
    assert outputs.grad.abs().sum() > 0


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    def refused(tensors: dict[str, Tensor]) -> str:
        with pytest.raises(ConfigError) as caught:
            read_weights([saved(tmp_path / "w.safetensors", tensors)])
        assert "vgg16-397923af.pth" in str(caught.value)
        return str(caught.value)

    assert "no tensor features.28.weight" in refused({k: v for k, v in vgg().items() if k != "features.28.weight"})
    assert "of the linear layers only ['lin0.model.1.weight']" in refused(
        vgg() | {"lin0.model.1.weight": torch.ones(1, 3, 1, 1)}
    )
    assert "lin0.model.1.weight has 2 numbers for 3 channels" in refused(vgg() | heads([1.0, 1.0]))
    assert "features.5.weight has the shape [3, 3, 1, 1]" in refused(
        vgg() | {"features.5.weight": torch.ones(3, 3, 1, 1)}
    )
    with pytest.raises(ConfigError, match="does not exist"):
        read_weights([str(tmp_path / "none.safetensors")])
    (tmp_path / "code.pth").write_bytes(pickle.dumps(Path, protocol=2))
    with pytest.raises(ConfigError, match=r"code\.pth"):
        read_weights([str(tmp_path / "code.pth")])


def test_the_adaptive_weight_evens_the_pull_at_the_last_layer() -> None:
    layer = torch.ones(2, requires_grad=True)
    likeness, adversarial = (3.0 * layer[0] + 4.0 * layer[1]), 0.5 * layer[1]
    assert adaptive_weight(likeness, adversarial, layer).item() == pytest.approx(5.0 / (0.5 + 1e-4))
    # One that does not pull at all gets a weight that is bounded.
    assert adaptive_weight(likeness, 0.0 * layer[0], layer).item() == 1e4


def test_hinge_loss_by_hand() -> None:
    real, made = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.5])
    assert hinge_loss(real, made).item() == pytest.approx(((0 + 0.5) / 2 + (0 + 1.5) / 2) / 2)


def test_a_discriminator_learns_and_is_left_alone_by_what_it_judges() -> None:
    torch.manual_seed(0)
    network = patch_discriminator(AdversarialConfig(channels=8, layers=2), channels=3)
    real, made = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32, requires_grad=True)
    verdict = judged(network, made)
    verdict.mean().backward()
    assert made.grad is not None
    assert all(parameter.grad is None for parameter in network.parameters())
    # A picture is judged the same in any company.
    torch.testing.assert_close(judged(network, made[:1]), verdict[:1], atol=1e-5, rtol=1e-4)

    made.grad = None
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
    before = discriminator_loss(network, real, made * 0.5).item()
    for _ in range(20):
        optimiser.zero_grad()
        discriminator_loss(network, real, made * 0.5).backward()
        optimiser.step()
    assert discriminator_loss(network, real, made * 0.5).item() < 0.5 * before
    assert made.grad is None
