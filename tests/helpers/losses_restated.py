"""The losses once more, by their definitions: in loops, sharing no code with what they check."""

import itertools


def naive_consistency(pred, mask, normalizer='overlap'):
    """The definition image by image, pair by pair and patch by patch, with stop-gradients as autograd has them."""
    batch, parts, patches, _ = pred.shape
    terms, triples = [], 0
    for b in range(batch):
        for i, j in itertools.combinations(range(parts), 2):
            triples += patches * bool(mask[b, i].any() and mask[b, j].any())
            for n in range(patches):
                if mask[b, i, n] and mask[b, j, n]:
                    x, y = pred[b, i, n], pred[b, j, n]
                    terms.append(((x.detach() - y).abs() + (x - y.detach()).abs()).mean())
    count = len(terms) if normalizer == 'overlap' else triples
    return sum(terms) / count if terms else pred.sum() * 0
