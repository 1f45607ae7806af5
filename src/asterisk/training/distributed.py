"""One process or several, started by torch's own launcher, that make one step together."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch import distributed as dist

from asterisk.common.errors import UsageError


@dataclass(frozen=True, slots=True)
class Processes:
    """This process's ``rank`` among ``size``, and the ``device`` it computes on."""

    size: int = 1
    rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, indices: list[int], *, paired: bool) -> list[int]:
        """Return this process's part of a batch, maybe empty; pairs stay together."""
        half = len(indices) // 2 if paired else 0
        return [*indices[:half][self.rank :: self.size], *indices[half:][self.rank :: self.size]]

    def scales(self, counts: Tensor) -> Tensor:
        """Return factors that turn the shares' means, weighted by ``counts`` [n], into one mean."""
        if self.size == 1:
            return torch.ones_like(counts)
        total = counts.clone()
        dist.all_reduce(total)
        return counts * self.size / total.clamp_min(1e-30)

    def gather(self, rows: Tensor) -> Tensor:
        """Return the ``rows`` [n, d] of every process, with a gradient for this one's."""
        if self.size == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self)  # type: ignore[no-untyped-call]
        return gathered

    def start(self, rows: Tensor) -> int:
        """Return the index of this process's ``rows`` in the result of `gather`."""
        return 0 if self.size == 1 else sum(self._counts(rows)[: self.rank])

    def average(self, dense: Iterable[Tensor], sparse: Iterable[Tensor]) -> None:
        """Replace the gradients of parameters by their mean over processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in dense if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        means = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))
        for parameter in sparse:
            if parameter.grad is None:
                continue
            rows = parameter.grad.coalesce()
            indices = torch.cat(self.stack(rows.indices()[0]))
            values = torch.cat(self.stack(rows.values())) / self.size
            parameter.grad = torch.sparse_coo_tensor(
                indices[None], values, rows.shape, check_invariants=False
            ).coalesce()

    def agree(self, find: Callable[[], float]) -> float:
        """Return the first process's result; the others wait for it."""
        result = torch.zeros((), dtype=torch.float64, device=self.device)
        if self.first:
            result.fill_(find())
        if self.size > 1:
            dist.broadcast(result, 0)
        return result.item()

    def wait(self) -> None:
        """Return when every process has called this."""
        if self.size > 1:
            dist.all_reduce(torch.zeros((), device=self.device))

    def broadcast(self, model: torch.nn.Module) -> None:
        """Give every process the first one's parameters."""
        if self.size > 1:
            for parameter in model.parameters():
                dist.broadcast(parameter.data, 0)

    def stack(self, rows: Tensor) -> list[Tensor]:
        """Return each process's ``rows`` [n, ...]; n may differ."""
        counts = self._counts(rows)
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return [part[:count] for part, count in zip(parts, counts, strict=True)]

    def _counts(self, rows: Tensor) -> list[int]:
        count = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.zeros_like(count) for _ in range(self.size)]
        dist.all_gather(counts, count)
        return [int(count) for count in counts]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows: Tensor, processes: Processes) -> Tensor:
        parts = processes.stack(rows.detach())
        context.counts, context.rank = [len(part) for part in parts], processes.rank
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # Every process computes the same loss of all rows, so each keeps its own rows' gradient;
        # times the number of processes, because parameters' gradients are averaged afterwards.
        own = torch.split(gradients[0], context.counts)[context.rank]
        return own * len(context.counts), None


@contextmanager
def processes(device: Literal["auto", "cpu", "cuda"]) -> Iterator[Processes]:
    """Join the processes that torchrun started, if any; UsageError without the GPU asked for."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch sees no GPU here")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    gpu = device != "cpu" and torch.cuda.is_available()
    own = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(own)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes(device=own)
        return
    # First imported with a group open, as an optimiser does, it keeps that group: Gloo's threads
    # then outlive the interpreter, and the last to let go of a tensor aborts the process.
    importlib.import_module("torch._dynamo")
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        yield Processes(size, dist.get_rank(), own)
    finally:
        dist.destroy_process_group()
