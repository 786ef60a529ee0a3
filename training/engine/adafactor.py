"""Adafactor with momentum and parameter scale, on whole and on sharded parameters alike.

Shazeer & Stern, arXiv 1804.04235, algorithms 4 and 5. ``torch.optim.Adafactor`` has no momentum, factors small
matrices too and puts its own 1/sqrt(k) on the rate.

A parameter that is a ``DTensor`` sharded along its first axis is updated shard by shard. What is taken over the whole
of it (means over its rows, root mean squares) is added up over the workers, of all parameters at once: two sums an
update. The arithmetic on shards goes past ``DTensor``'s operators, which would cost more than it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, zeros


class Adafactor(torch.optim.Optimizer):
    """State of a parameter, float32: ``momentum`` (its shape), and either ``rows`` and ``columns`` (of every row and
    column of a matrix, the running mean of squared gradients) or ``second`` (its shape).

    State of a sharded parameter's shape, or of its rows, is sharded as it is. The number of updates done is kept in
    the parameter group.

    Args:
        groups: of float32 parameters, as PyTorch's optimizers take them.
        lr, …: see `omnimill.training.engine.optim.AdafactorConfig`.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        decay_exponent: float,
        update_clip: float,
        parameter_scale: bool,
        epsilons: tuple[float, float],
        min_factored_dim: int,
    ) -> None:
        super().__init__(groups, {"lr": lr, "updates": 0})
        self._momentum, self._decay_exponent = momentum, decay_exponent
        self._update_clip, self._parameter_scale = update_clip, parameter_scale
        self._square_epsilon, self._least_scale = epsilons
        for group in self.param_groups:
            for parameter in group["params"]:
                factored = parameter.ndim == 2 and min(parameter.shape) >= min_factored_dim
                self.state[parameter] = _first_state(parameter, factored, momentum > 0)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient; the gradients are used up."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            parts = [
                _Part(parameter, self.state[parameter]) for parameter in group["params"] if parameter.grad is not None
            ]
            if parts:
                group["updates"] += 1
                self._update(parts, group["lr"], 1.0 - group["updates"] ** -self._decay_exponent)
        return loss

    def _update(self, parts: list[_Part], rate: float, decay: float) -> None:
        self._divide_by_roots(parts, 1.0 - decay)
        updates, values = [part.gradient for part in parts], [part.value for part in parts]
        squares = torch.stack([_norms(updates), _norms(values)], 1).square()
        squares = torch.stack(_over_workers(parts, list(squares.unbind())))
        sizes = torch.tensor([part.size for part in parts], dtype=torch.float32, device=squares.device)
        update_rms, value_rms = (squares / sizes[:, None]).sqrt().unbind(1)
        scale = rate / (update_rms / self._update_clip).clamp(min=1.0)
        if self._parameter_scale:
            scale = scale * value_rms.clamp(min=self._least_scale)
        torch._foreach_mul_(updates, list(scale.unbind()))
        if self._momentum:
            momenta = [part.state["momentum"] for part in parts]
            torch._foreach_lerp_(momenta, updates, 1.0 - self._momentum)
            updates = momenta
        torch._foreach_sub_(values, updates)

    def _divide_by_roots(self, parts: list[_Part], new: float) -> None:
        """Take the gradients into the second moments, with weight `new`, and divide them by the moments' roots."""
        matrices, sums = [part for part in parts if "rows" in part.state], []
        for part in matrices:
            squares = part.gradient.square()
            part.state["rows"].lerp_(squares.mean(1).add_(self._square_epsilon), new)
            sums.append(squares.sum(0))
        for part, column_sums in zip(matrices, _over_workers(matrices, sums), strict=True):
            rows, columns = part.state["rows"], part.state["columns"]
            columns.lerp_((column_sums / part.rows).add_(self._square_epsilon), new)
            # The mean over all rows is the mean over all columns, which every worker has.
            part.gradient.mul_((rows / columns.mean()).rsqrt_()[:, None]).mul_(columns.rsqrt())
        for part in parts:
            if "second" in part.state:
                second = part.state["second"].lerp_(part.gradient.square().add_(self._square_epsilon), new)
                part.gradient.mul_(second.rsqrt())


class _Part:
    """What this worker holds of a parameter, of its gradient and of its state: plain tensors, those in use.

    size, rows: values and rows of the whole parameter. group: of the workers that share it out; None when this one has
    the whole.
    """

    def __init__(self, parameter: Tensor, state: dict[str, Tensor]) -> None:
        assert parameter.grad is not None
        self.value, self.gradient = _local(parameter), _local(parameter.grad)
        self.state = {name: _local(value) for name, value in state.items()}
        self.size, self.rows = parameter.numel(), parameter.shape[0] if parameter.ndim else 1
        self.group = _sharing(parameter)


def _local(value: Tensor) -> Tensor:
    return value.to_local() if isinstance(value, DTensor) else value


def _sharing(parameter: Tensor) -> dist.ProcessGroup | None:
    if not isinstance(parameter, DTensor):
        return None
    axes = [axis for axis, placement in enumerate(parameter.placements) if placement.is_shard()]
    assert all(parameter.placements[axis].is_shard(0) for axis in axes), "only the first axis can be sharded"
    return parameter.device_mesh.get_group(axes[0]) if axes else None


def _first_state(parameter: Tensor, factored: bool, momentum: bool) -> dict[str, Tensor]:
    state = {"momentum": torch.zeros_like(parameter)} if momentum else {}
    if not factored:
        return {**state, "second": torch.zeros_like(parameter)}
    rows, columns = parameter.shape
    if not isinstance(parameter, DTensor):
        return {**state, "rows": parameter.new_zeros(rows), "columns": parameter.new_zeros(columns)}
    mesh, whole = parameter.device_mesh, [Replicate() for _ in parameter.placements]
    return {
        **state,
        "rows": zeros(rows, device_mesh=mesh, placements=parameter.placements),
        "columns": zeros(columns, device_mesh=mesh, placements=whole),
    }


def _over_workers(parts: list[_Part], values: list[Tensor]) -> list[Tensor]:
    """A vector for every part, added up over the workers that share the parameter out; in one sum for all."""
    shared = [i for i, part in enumerate(parts) if part.group is not None]
    if not shared:
        return values
    flat = torch.cat([values[i] for i in shared])
    dist.all_reduce(flat, group=parts[shared[0]].group)
    sums = dict(zip(shared, torch.split(flat, [len(values[i]) for i in shared]), strict=True))
    return [sums.get(i, value) for i, value in enumerate(values)]


def _norms(values: list[Tensor]) -> Tensor:
    """The l2 norm of every tensor."""
    return torch.stack(list(torch._foreach_norm(values)))
