"""The loss: sums and denominators apart, whatever the spread over workers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from omnimill.training.backbone.model import TokenLosses
from omnimill.training.backbone.token_loss import token_loss
from omnimill.training.engine.loss import modality_sums, task_sums, total_loss
from omnimill.training.loading.batch import DecoderModality, PackedBatch

TEXT, IMAGE = DecoderModality.TEXT, DecoderModality.IMAGE


def batch_of(modality: list[list[int]], weight: list[list[float]], task: list[list[int]]) -> PackedBatch:
    """A batch of which only what the loss reads is real."""
    kind = torch.tensor(modality)
    nothing = torch.zeros_like(kind)
    return PackedBatch(
        text_ids=nothing,
        text_slot=nothing,
        image=None,
        image_history=None,
        audio=None,
        audio_history=None,
        encoder_segment=nothing,
        encoder_modality=nothing,
        encoder_position=nothing,
        decoder_ids=nothing,
        decoder_targets=nothing,
        decoder_loss=torch.tensor(weight),
        decoder_segment=(torch.tensor(task) >= 0).long(),
        decoder_modality=kind,
        decoder_position=nothing,
        decoder_hidden=nothing,
        decoder_task=torch.tensor(task),
    )


def losses_of(nll: list[list[float]], log_z: list[list[float]]) -> TokenLosses:
    return TokenLosses(torch.tensor(nll, requires_grad=True), torch.tensor(log_z, requires_grad=True))


BATCH = batch_of(
    [[TEXT, TEXT, IMAGE, TEXT], [IMAGE, IMAGE, TEXT, TEXT]],
    [[1.0, 0.5, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]],
    [[2, 2, 0, -1], [0, 0, -1, -1]],
)
LOSSES = losses_of([[3.0, 4.0, 5.0, 0.0], [7.0, 9.0, 0.0, 0.0]], [[10.0, 20.0, 30.0, 0.0], [10.0, 50.0, 0.0, 0.0]])


def near(found: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found.detach(), torch.tensor(expected))


def test_sums_by_hand() -> None:
    sums = modality_sums(LOSSES, BATCH, z_loss=0.01)
    near(sums.nll, [3.0 + 0.5 * 4.0, 5.0 + 7.0, 0.0])
    near(sums.z, [0.01 * (100.0 + 0.5 * 400.0), 0.01 * (900.0 + 100.0), 0.0])
    near(sums.weight, [1.5, 2.0, 0.0])
    # Each modality counts once, however many tokens it has; one that is absent counts nothing.
    expected = 5.0 / 1.5 + 3.0 / 1.5 + 12.0 / 2.0 + 10.0 / 2.0
    assert abs(total_loss(sums, sums.weight).item() - expected) < 1e-5


def test_z_loss_defaults_to_the_published_weight() -> None:
    near(modality_sums(LOSSES, BATCH).z, [1e-4 * 300.0, 1e-4 * 1000.0, 0.0])


def test_sums_of_workers_add_up() -> None:
    """Two workers, each with one sequence, divided by the weights of both: the loss and gradient of the whole."""
    whole = losses_of(LOSSES.nll.tolist(), LOSSES.log_z.tolist())
    sums = modality_sums(whole, BATCH)
    total_loss(sums, sums.weight).backward()  # type: ignore[no-untyped-call]

    parts = []
    for row in range(2):
        alone = losses_of([LOSSES.nll[row].tolist()], [LOSSES.log_z[row].tolist()])
        batch = batch_of(
            BATCH.decoder_modality[row : row + 1].tolist(),
            BATCH.decoder_loss[row : row + 1].tolist(),
            BATCH.decoder_task[row : row + 1].tolist(),
        )
        part = total_loss(modality_sums(alone, batch), sums.weight)
        part.backward()  # type: ignore[no-untyped-call]
        parts.append(part)
        for own, together in zip(alone, whole, strict=True):
            assert own.grad is not None
            assert together.grad is not None
            torch.testing.assert_close(own.grad[0], together.grad[row])
    torch.testing.assert_close(parts[0] + parts[1], total_loss(sums, sums.weight))


def test_a_batch_without_targets_has_no_loss_and_no_nan() -> None:
    batch = batch_of([[TEXT, TEXT]], [[0.0, 0.0]], [[-1, -1]])
    losses = losses_of([[0.0, 0.0]], [[0.0, 0.0]])
    sums = modality_sums(losses, batch)
    loss = total_loss(sums, sums.weight)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert losses.nll.grad is not None
    assert not losses.nll.grad.any()


def test_task_sums() -> None:
    sums = task_sums(LOSSES, BATCH, 4)
    near(sums.nll, [12.0, 0.0, 5.0, 0.0])
    near(sums.weight, [2.0, 0.0, 1.5, 0.0])
    assert not sums.nll.requires_grad


def test_loss_and_log_z_have_the_gradient_of_their_definition() -> None:
    logits = (3 * torch.randn(7, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).requires_grad_()
    targets = torch.arange(7)
    nll, log_z = token_loss(logits, targets)
    assert torch.allclose(nll, F.cross_entropy(logits, targets, reduction="none"))
    assert torch.allclose(log_z, logits.exp().sum(-1).log())
    assert torch.autograd.gradcheck(lambda values: token_loss(values, targets), (logits,))
