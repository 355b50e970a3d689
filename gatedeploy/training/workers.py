"""Several processes that train one network, each on its part of every batch.

    torchrun --nproc-per-node 2 -m gatedeploy train scenes
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29400 -m gatedeploy train scenes

A step is that of one process with the whole batch: losses are means over the valid labels of all parts, and each
gradient that somebody asks for is put together before anybody looks at it. So gates, every way of balancing and the
budget go on as in one process, on equal numbers everywhere. Statistics of batch norms alone are those of parts: each
process normalises by its own, and what the network keeps is their mean.

`torch.nn.parallel.DistributedDataParallel` would put together what one backward pass leaves in all parameters, and
knows nothing of the gradients of single tasks, of layers or of looks ahead that balancing asks for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from gatedeploy.errors import InputError
from gatedeploy.training.balance import Backward

Item = TypeVar("Item")


@dataclass(frozen=True)
class Workers:
    """The processes that train together, seen from one of them.

    Args:
        count: how many there are.
        rank: which this one is, from 0; the first one measures, writes and speaks.
    """

    count: int = 1
    rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that measures, writes and speaks."""
        return self.rank == 0

    def part(self, batch: Sequence[int]) -> list[int]:
        """The pictures of a batch that this process takes."""
        return list(batch[self.rank :: self.count])

    def check_divides(self, batch_size: int) -> None:
        """Raise `InputError` unless each process gets as many pictures of a batch."""
        if batch_size % self.count:
            raise InputError(
                f"train.batch_size: {batch_size} pictures cannot be divided evenly among {self.count} processes; take "
                f"a multiple of {self.count}"
            )

    def over_all(self, losses: Sequence[Tensor], counts: Sequence[Tensor]) -> list[Tensor]:
        """The losses of the whole batch, from those of the parts.

        The gradient of what is returned is that of this part's share, times the number of processes: the mean of
        gradients over processes, see `averaging`, is then that of the whole batch.

        Args:
            losses: scalars, each a mean over the valid labels of this part.
            counts: by loss, how many valid labels these are.
        """
        counted = torch.stack([count.double() for count in counts])
        summed = counted * torch.stack([loss.detach().double() for loss in losses])
        whole, total = self._sum(torch.stack([counted, summed]))
        values = total / whole.clamp_min(1)
        shares = self.count * counted / whole.clamp_min(1)
        own = [loss * share.to(loss) for loss, share in zip(losses, shares, strict=True)]
        # In this order it is the value to the last bit: what learns from losses must not drift apart.
        return [value.to(each) + (each - each.detach()) for each, value in zip(own, values, strict=True)]

    def averaging(self, backward: Backward, parameters: Sequence[Tensor]) -> Backward:
        """A `backward` whose gradients are the mean over all processes.

        Args:
            backward: Fabric's.
            parameters: all that may have a gradient.
        """
        if self.count == 1:
            return backward

        def run(loss: Tensor, **keywords: Any) -> None:
            before = [parameter.grad for parameter in parameters]
            for parameter in parameters:
                parameter.grad = None
            backward(loss, **keywords)
            self._average([parameter.grad for parameter in parameters if parameter.grad is not None])
            for parameter, known in zip(parameters, before, strict=True):
                if known is not None:
                    parameter.grad = known if parameter.grad is None else known + parameter.grad

        return run

    @torch.no_grad()
    def average_statistics(self, network: nn.Module) -> None:
        """Let all processes keep the mean of what batch norms have seen."""
        if self.count > 1:
            self._average([buffer for buffer in network.buffers() if buffer.is_floating_point()])

    def agree(self, holds: bool, device: torch.device) -> bool:
        """Whether it holds in every process."""
        if self.count == 1:
            return holds
        flag = torch.tensor(int(holds), device=device)
        distributed.all_reduce(flag, distributed.ReduceOp.MIN)
        return bool(flag)

    def from_first(self, value: Item | None) -> Item:
        """What the first process has."""
        told = [value]
        if self.count > 1:
            distributed.broadcast_object_list(told)
        assert told[0] is not None
        return told[0]

    def wait(self) -> None:
        """Until all have come as far."""
        if self.count > 1:
            distributed.barrier()

    def _average(self, tensors: Sequence[Tensor]) -> None:
        """The mean over processes, in place; one message for all tensors of a type."""
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):  # in the same order everywhere
            same = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = self._sum(torch.cat([tensor.reshape(-1) for tensor in same])) / self.count
            means = torch.split(flat, [tensor.numel() for tensor in same])
            for tensor, mean in zip(same, means, strict=True):
                tensor.copy_(mean.view_as(tensor))

    def _sum(self, tensor: Tensor) -> Tensor:
        distributed.all_reduce(tensor)
        return tensor


def workers() -> Workers:
    """Those that this process belongs to; itself alone unless it has joined others."""
    if distributed.is_available() and distributed.is_initialized():
        return Workers(distributed.get_world_size(), distributed.get_rank())
    return Workers()


@contextmanager
def joined() -> Iterator[Workers]:
    """Join the processes that `torchrun` has started with this one, if it has; leave them at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield workers()
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(local_rank())
    distributed.init_process_group("cuda:nccl,cpu:gloo" if gpu else "gloo")
    try:
        yield workers()
    finally:
        distributed.destroy_process_group()


def local_rank() -> int:
    """Which GPU of its machine is this process's."""
    return int(os.environ.get("LOCAL_RANK", "0"))
