"""A work dir as a pretraining leaves it: a config whose hook names the data, and checkpoints of a small encoder."""

import numpy as np
import torch
from mmpretrain.registry import MODELS as MMPRETRAIN
from PIL import Image

ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
VIT = dict(type='mmpretrain.VisionTransformer', arch=ARCH, img_size=32, patch_size=16, out_type='raw')
PROBE = dict(blocks=(1,), norm=(False,), lrs=(0.1, 1.0), iters=2, batch_size=4)


def write_run(tmp_path):
    """A work dir with the config of a run whose hook names the data, a labelled set, and a way to add checkpoints."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for name in ('ant', 'bee'):
            for index in range(3):
                file = tmp_path / 'labelled' / split / name / f'{index}.png'
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file)
    folder = tmp_path / 'run'
    folder.mkdir()
    hook = dict(type='QualityHook', data=str(tmp_path / 'labelled'), interval=5, probe=PROBE, ks=(1,), workers=0)
    (folder / 'emae.py').write_text(f'model = dict(type="MAE", backbone={VIT!r})\ncustom_hooks = [{hook!r}]\n')
    (folder / 'notes.py').write_text('raise SystemError("not a config")\n')
    return folder


def save(folder, epoch, name=None, seed=0, **meta):
    torch.manual_seed(seed + epoch)
    backbone = MMPRETRAIN.build(dict(VIT))
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    path = folder / (name or f'epoch_{epoch}.pth')
    torch.save(dict(state_dict=state, meta=dict(iter=epoch * 10, epoch=epoch, **meta)), path)
    return path
