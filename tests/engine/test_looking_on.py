"""Hooks that only look on tell of what they cannot look at, and the training goes on."""

import logging
import types

import pytest
import torch
from mmengine.logging import MessageHub

from mim_mm.engine.hooks.pretrain_hooks import AgreementWatchHook
from mim_mm.evaluation.quality.collapse_hook import CollapseHook


def runner(name: str, features: torch.Tensor) -> types.SimpleNamespace:
    model = torch.nn.Module()
    model.seen_features = features
    return types.SimpleNamespace(
        iter=9, max_iters=100, model=model, message_hub=MessageHub(name), logger=logging.getLogger(name)
    )


def test_features_that_are_not_finite():
    """A singular value decomposition of NaN raises; such a step is skipped elsewhere, and the next look is as ever."""
    hook, place = CollapseHook(interval=1), runner('nan-features', torch.full((8, 4), float('nan')))
    place.train_loop = types.SimpleNamespace(dataloader=range(5))
    with pytest.warns(UserWarning, match='CollapseHook.after_train_iter failed .*training goes on'):
        hook.after_train_iter(place, 0, outputs={})
    place.model.seen_features = torch.eye(4).repeat(2, 1)
    hook.after_train_iter(place, 0, outputs={})
    assert place.message_hub.get_scalar('train/feature_rank').current() > 1


@pytest.mark.parametrize('spread', [-1.0, float('nan'), float('inf')])
def test_numbers_that_no_loss_can_have(spread):
    hook, place = AgreementWatchHook(interval=1), runner('odd-numbers', torch.eye(2))
    place.train_loop = types.SimpleNamespace(dataloader=range(5))
    outputs = dict(mse=torch.tensor(1.0), mse_patch_mean=torch.tensor(spread), consistency=torch.tensor(0.1))
    if spread < 0:  # its square root is complex
        with pytest.warns(UserWarning, match='AgreementWatchHook.after_train_iter failed'):
            hook.after_train_iter(place, 0, outputs=outputs)
    else:
        hook.after_train_iter(place, 0, outputs=outputs)
    hook.after_train(place)
