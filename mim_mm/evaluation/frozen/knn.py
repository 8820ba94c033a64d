"""Weighted k-nearest-neighbour classification on frozen features, as DINO does it (Caron et al. 2021, eval_knn.py).

Features are L2-normalised, the k nearest of the bank by cosine vote for their class with weight exp(cosine / 0.07). The
bank is walked shard by shard and the queries chunk by chunk, so the device holds ``query_chunk * bank_chunk``
similarities, one shard of the bank, and the queries with k candidates each; only the final neighbours leave it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mim_mm.evaluation.frozen.features import Features

__all__ = ['KS', 'evaluate', 'fitting_ks', 'guesses', 'knn_accuracy', 'nearest', 'vote']

KS = (10, 20, 100, 200)
TEMPERATURE = 0.07


def nearest(
    queries: Tensor,
    bank: Tensor,
    k: int,
    query_chunk: int = 1024,
    bank_chunk: int = 16384,
    device: str | torch.device = 'cpu',
) -> tuple[Tensor, Tensor]:
    """The k most similar rows of the bank for each query.

    Args:
        queries, bank: (Q, D) and (N, D) of any floating type and device; L2-normalised here, in float32.
        query_chunk, bank_chunk: how many rows of either meet at a time; they change memory and time only.

    Returns:
        Cosine similarities (Q, k), falling, and bank indices (Q, k), on the CPU. Among equally similar rows at the edge
        of the k the choice is torch.topk's.

    Raises:
        ValueError: k is not in 1..N, the widths differ, or a chunk is not positive.
    """
    if not 1 <= k <= len(bank):
        raise ValueError(f'k = {k} must be 1 to {len(bank)}, the size of the bank: leave it out or use more images')
    if queries.shape[1] != bank.shape[1]:
        raise ValueError(f'queries are {queries.shape[1]} wide, the bank {bank.shape[1]}: use one backbone and pooling')
    if query_chunk < 1 or bank_chunk < 1:
        raise ValueError(f'query_chunk {query_chunk} and bank_chunk {bank_chunk} must be at least 1')
    chunks = [F.normalize(part.to(device).float(), dim=1) for part in queries.split(query_chunk)]
    best = [None] * len(chunks)
    for start in range(0, len(bank), bank_chunk):
        shard = F.normalize(bank[start : start + bank_chunk].to(device).float(), dim=1)
        for i, chunk in enumerate(chunks):
            values, places = (chunk @ shard.T).topk(min(k, len(shard)), dim=1)
            places = places + start
            if start:
                values, places = torch.cat([best[i][0], values], 1), torch.cat([best[i][1], places], 1)
                values, order = values.topk(min(k, values.shape[1]), dim=1)
                places = places.gather(1, order)
            best[i] = values, places
    values, places = (torch.cat(parts).cpu() for parts in zip(*best))
    return values, places


def vote(similarity: Tensor, labels: Tensor, num_classes: int, temperature: float = TEMPERATURE) -> Tensor:
    """Sum of exp(similarity / temperature) over the neighbours of each class.

    Args:
        similarity: (Q, k) cosines. labels: (Q, k) classes of the neighbours, 0..num_classes-1.

    Returns:
        (Q, num_classes), 0 for a class without a neighbour.
    """
    votes = torch.zeros(len(labels), num_classes, dtype=torch.float64)
    return votes.scatter_add_(1, labels, (similarity.double() / temperature).exp())


def knn_accuracy(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    num_classes: int,
    ks: Sequence[int] = KS,
    temperature: float = TEMPERATURE,
    **chunks,
) -> dict[int, dict[str, float]]:
    """Top-1 and top-5 in per cent for each k, any number of queries from 1.

    Args:
        bank, queries: (N, D), (Q, D). bank_labels, query_labels: (N,), (Q,).
        chunks: query_chunk, bank_chunk, device of :func:`nearest`.

    Returns:
        ``{k: dict(top1=..., top5=...)}``. Top-5 counts classes that got a vote; DINO fills up with arbitrary ones when
        the k neighbours have fewer than five classes.

    Raises:
        ValueError: a k above the size of the bank (it is not cut in silence: see :func:`fitting_ks`), or no query.
    """
    check_ks(ks, len(bank), len(queries))
    similarity, places = nearest(queries, bank, max(ks), **chunks)
    hits = torch.zeros(len(ks), 2, dtype=torch.long)
    step = chunks.get('query_chunk', 1024)  # the votes of a chunk, not of all queries, are in memory
    for here in range(0, len(queries), step):
        rows = slice(here, here + step)
        classes = bank_labels.cpu()[places[rows]]
        hits += count_hits(similarity[rows], classes, query_labels[rows].cpu(), num_classes, ks, temperature)
    return {k: {n: 100 * int(h) / len(queries) for n, h in zip(('top1', 'top5'), row)} for k, row in zip(ks, hits)}


def check_ks(ks: Sequence[int], bank: int, queries: int) -> None:
    """ValueError for no query, no k, or a k outside 1..bank."""
    if not queries or not len(ks):
        raise ValueError(f'{queries} queries and ks = {list(ks)}: at least one of each is needed')
    if min(ks) < 1:
        raise ValueError(f'ks = {list(ks)} must be at least 1')
    if max(ks) > bank:
        raise ValueError(f'k = {max(ks)} must be 1 to {bank}, the size of the bank: leave it out or use more images')


def count_hits(
    similarity: Tensor, classes: Tensor, truth: Tensor, num_classes: int, ks: Sequence[int], temperature: float
) -> Tensor:
    """How many of Q queries are right.

    Args:
        similarity, classes: (Q, K) cosines, falling, and classes of the neighbours, K >= max(ks). truth: (Q,).

    Returns:
        int64 (len(ks), 2): top-1 and top-5 of each k.
    """
    hits = []
    for k in ks:
        right = guesses(similarity[:, :k], classes[:, :k], num_classes, temperature) == truth[:, None]
        hits.append([int(right[:, 0].sum()), int(right.sum())])
    return torch.tensor(hits)


def guesses(similarity: Tensor, classes: Tensor, num_classes: int, temperature: float = TEMPERATURE) -> Tensor:
    """The classes with the most votes, int64 (Q, min(5, num_classes)), the best first; -1 where no other got a vote.

    Args:
        similarity, classes: (Q, k) of the neighbours, as for :func:`vote`.
    """
    value, guess = vote(similarity, classes, num_classes, temperature).topk(min(5, num_classes), dim=1)
    return guess.where(value > 0, -1)


def fitting_ks(bank_size: int, ks: Sequence[int] = KS) -> list[int]:
    """Those of the published k that the bank can serve; the whole bank if it is smaller than all of them."""
    return [k for k in ks if k <= bank_size] or [bank_size]


def evaluate(
    train: Features,
    val: Features,
    ks: Sequence[int] | None = None,
    measure: Callable = knn_accuracy,
    total: Callable[[int], int] = int,
    **chunks,
) -> dict:
    """k-NN of val among train for each pooling the backbone has.

    Args:
        measure: :func:`knn_accuracy`, or that of ``sharded_knn`` where each process has a part of train and val;
            ``total`` then turns the size of a part into that of the whole.

    Returns:
        ``dict(bank, queries, classes, ks, left_out, temperature, accuracy={pooling: {k: dict(top1, top5)}})``.

    Raises:
        ValueError: a k of ``ks`` above the size of the bank. Without ``ks``, what does not fit is left out and named.
    """
    bank, queries = total(len(train.labels)), total(len(val.labels))
    chosen = fitting_ks(bank) if ks is None else list(ks)
    accuracy = {
        pooling: measure(
            train.get(pooling), train.labels, val.get(pooling), val.labels, len(train.classes), chosen, **chunks
        )
        for pooling in train.poolings
    }
    return dict(
        bank=bank,
        queries=queries,
        classes=len(train.classes),
        ks=chosen,
        left_out=[k for k in KS if k not in chosen] if ks is None else [],
        temperature=TEMPERATURE,
        accuracy=accuracy,
    )


def table(result: dict) -> str:
    """The accuracies of :func:`evaluate` as text, one line a pooling and k."""
    lines = [f'{result["queries"]} queries, bank of {result["bank"]}, {result["classes"]} classes']
    lines.append(f'{"pooling":<10}{"k":>6}{"top-1":>9}{"top-5":>9}')
    for pooling, by_k in result['accuracy'].items():
        lines += [f'{pooling:<10}{k:>6}{v["top1"]:>9.2f}{v["top5"]:>9.2f}' for k, v in by_k.items()]
    if result['left_out']:
        lines.append(f'left out, larger than the bank: k = {", ".join(map(str, result["left_out"]))}')
    return '\n'.join(lines)
