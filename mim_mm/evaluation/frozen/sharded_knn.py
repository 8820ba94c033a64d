"""k-NN over several processes: each holds its part of the bank and of the queries, and no part is ever gathered.

Chunk by chunk, the queries of one process are sent to all; each finds the nearest in its own part of the bank, and only
those k candidates a query, with their classes, come together. What travels and is held beside the parts is one chunk
of queries and ``processes x query_chunk x k`` candidates.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from datetime import timedelta

import torch
from mmengine import dist
from torch import Tensor

from mim_mm.evaluation.frozen.knn import KS, TEMPERATURE, check_ks, count_hits, nearest

__all__ = ['join_processes', 'my_share', 'sharded_knn_accuracy', 'total']


def join_processes(args: argparse.Namespace) -> None:
    """Join the process group that torchrun prepared if ``args.launcher`` is 'pytorch'; sets ``args.device``.

    Raises:
        ValueError: torchrun prepared nothing, or there are more processes than GPUs on this machine.
    """
    if args.launcher != 'pytorch':
        return
    if 'RANK' not in os.environ:
        raise ValueError('--launcher pytorch without torchrun: use tools/dist_knn.sh CONFIG CHECKPOINT GPUS')
    local = int(os.environ['LOCAL_RANK'])
    if args.device.startswith('cuda'):
        count = torch.cuda.device_count()
        if local >= count:
            raise ValueError(f'process {local} of this machine has no GPU of its own, there are {count}: lower GPUS')
        args.device = f'cuda:{local}'
        torch.cuda.set_device(local)
    # The slowest process may be hours behind the one that found its features stored.
    backend = 'nccl' if args.device.startswith('cuda') else 'gloo'
    torch.distributed.init_process_group(backend, timeout=timedelta(days=1))


def my_share() -> tuple[int, int]:
    """(rank, processes), (0, 1) without a process group."""
    return dist.get_rank(), dist.get_world_size()


def total(count: int) -> int:
    """Sum of ``count`` over the processes."""
    value = torch.tensor(count)
    dist.all_reduce(value)
    return int(value)


def _sizes(count: int) -> list[int]:
    return [int(n) for n in dist.all_gather(torch.tensor(count))]


def _candidates(chunk: Tensor, bank: Tensor, labels: Tensor, k: int, **options) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest of all banks to ``chunk`` (Q, D): similarities (Q, k), falling, and their classes (Q, k)."""
    values, classes = torch.full((len(chunk), k), -float('inf')), torch.zeros(len(chunk), k, dtype=torch.long)
    here = min(k, len(bank))
    if here:
        values[:, :here], places = nearest(chunk, bank, here, **options)
        classes[:, :here] = labels[places]
    values, order = torch.cat(dist.all_gather(values), 1).topk(k, dim=1)
    return values, torch.cat(dist.all_gather(classes), 1).gather(1, order)


def sharded_knn_accuracy(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    num_classes: int,
    ks: Sequence[int] = KS,
    temperature: float = TEMPERATURE,
    query_chunk: int = 1024,
    **options,
) -> dict[int, dict[str, float]]:
    """:func:`mim_mm.evaluation.frozen.knn.knn_accuracy` of parts that lie in different processes; all call it at once.

    Args:
        bank, bank_labels: (n, D), (n,) of this process, any n; together they are the bank. The same for queries.
        options: bank_chunk, device of :func:`mim_mm.evaluation.frozen.knn.nearest`.

    Returns:
        The accuracy of all queries among the whole bank, the same in every process: what one process would find, up
        to the choice among equally similar images at the edge of the k.

    Raises:
        ValueError: as ``knn_accuracy``, for the sizes of all parts together.
    """
    size, sizes = total(len(bank)), _sizes(len(queries))
    check_ks(ks, size, sum(sizes))
    bank_labels, query_labels = bank_labels.cpu(), query_labels.cpu()
    hits, rank = torch.zeros(len(ks), 2, dtype=torch.long), dist.get_rank()
    for owner, count in enumerate(sizes):
        for start in range(0, count, query_chunk):
            rows = slice(start, min(start + query_chunk, count))
            mine = owner == rank
            chunk = queries[rows].float().cpu().contiguous() if mine else torch.empty(rows.stop - start, bank.shape[1])
            dist.broadcast(chunk, owner)
            found = _candidates(chunk, bank, bank_labels, max(ks), query_chunk=query_chunk, **options)
            if mine:
                hits += count_hits(*found, query_labels[rows], num_classes, ks, temperature)
    dist.all_reduce(hits)
    return {k: dict(top1=100 * int(a) / sum(sizes), top5=100 * int(b) / sum(sizes)) for k, (a, b) in zip(ks, hits)}
