"""ConvNeXt and ResNet under masks: against sparse convolutions written out place by place, and against themselves."""

import copy

import built_recipes
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from masker_table import table
from pretrainings import run_two_steps
from processes import spawn
from tiny import DECODER, total_loss
from tiny_run import SHRINK

from mim_mm.checkpoint.load import load_encoder
from mim_mm.encoders import encoder_of
from mim_mm.encoders.masked_conv import masked
from mim_mm.engine.start import guard
from mim_mm.evaluation.frozen.features import encode
from mim_mm.masking import MaskPlan
from mim_mm.registry import MODELS

CONVNEXT = dict(
    type='mmpretrain.ConvNeXt',
    arch=dict(depths=[1, 1, 2, 1], channels=[8, 12, 16, 32]),
    gap_before_final_norm=False,
    layer_scale_init_value=0.5,
    drop_path_rate=0.0,
)
V2 = dict(CONVNEXT, use_grn=True, layer_scale_init_value=0.0, linear_pw_conv=False)
RESNET = dict(type='mmpretrain.ResNet', depth=18, stem_channels=8, base_channels=4)
BOTTLENECK = dict(type='mmpretrain.ResNet', depth=50, stem_channels=8, base_channels=4, expansion=2, deep_stem=True)
KINDS = {'convnext': CONVNEXT, 'convnextv2': V2, 'resnet': RESNET, 'bottleneck': BOTTLENECK}
SIDE = 128  # 4 x 4 squares of 32 px


def backbone_of(kind, std=0.3):
    torch.manual_seed(0)
    backbone = MODELS.build(copy.deepcopy(KINDS[kind]))
    backbone.img_size = SIDE
    for name, parameter in backbone.named_parameters():
        torch.nn.init.normal_(parameter, std=std)
        if parameter.ndim == 1 and 'bias' not in name:
            parameter.data += 1
    return backbone.double()  # random ResNets without normalisation of their start have large values


def images(batch=3, seed=0, dtype=torch.float64):
    return torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def shown_of(batch=3, seed=0, share=0.4):
    shown = torch.rand(batch, 1, 4, 4, generator=torch.Generator().manual_seed(seed)) < share
    shown[:, :, 0, 0] = True
    return shown


def sparse_conv(x, active, out_active, layer):
    """One place of the result after the other: the sum over those active places that its kernel reaches."""
    kernel, stride, pad = layer.kernel_size[0], layer.stride[0], layer.padding[0]
    per_group = x.shape[1] // layer.groups
    out = torch.zeros(len(x), layer.out_channels, *out_active.shape[-2:], dtype=x.dtype)
    for b, _, row, column in out_active.nonzero().tolist():
        value = torch.zeros(layer.out_channels, dtype=x.dtype) if layer.bias is None else layer.bias.clone()
        for i in range(kernel):
            for j in range(kernel):
                r, c = row * stride + i - pad, column * stride + j - pad
                if 0 <= r < x.shape[2] and 0 <= c < x.shape[3] and active[b, 0, r, c]:
                    seen = x[b, :, r, c].view(layer.groups, per_group)
                    weight = layer.weight[:, :, i, j].view(layer.groups, -1, per_group)
                    value = value + (weight @ seen[..., None]).flatten()
        out[b, :, row, column] = value
    return out


@pytest.mark.parametrize('options', [
    dict(kernel_size=7, padding=3, groups=6), dict(kernel_size=3, stride=2, padding=1), dict(kernel_size=2, stride=2),
    dict(kernel_size=1),
])  # fmt: skip
def test_a_masked_convolution_is_a_sparse_one(options):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(6, 12, **options).double()
    stride = options.get('stride', 1)
    shown = torch.rand(2, 1, 2, 2) < 0.5
    shown[:, :, 1, 0] = True
    active = shown.repeat_interleave(4, 2).repeat_interleave(4, 3)
    out_active = shown.repeat_interleave(4 // stride, 2).repeat_interleave(4 // stride, 3)
    x = torch.randn(2, 6, 8, 8, dtype=torch.float64) * active
    with masked(torch.nn.Sequential(layer), shown), torch.no_grad():
        found = layer(x)
        wanted = sparse_conv(x, active, out_active, layer)
    torch.testing.assert_close(found, wanted)
    assert not found[~out_active.expand_as(found)].any()
    assert not layer._forward_hooks, 'the hooks are gone'


@pytest.mark.parametrize('training', [True, False])
def test_batch_norm_over_visible_places(training):
    """The same numbers as torch's on a list of the visible places alone, running statistics too."""
    torch.manual_seed(0)
    ours, theirs = torch.nn.BatchNorm2d(5), torch.nn.BatchNorm1d(5)
    for module in (ours, theirs):
        torch.nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(1))
        torch.nn.init.normal_(module.bias, generator=torch.Generator().manual_seed(2))
        module.train(training)
    shown = shown_of()
    active = shown.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for step in range(2):
        x = torch.randn(3, 5, 8, 8, generator=torch.Generator().manual_seed(step)) * 2 + 1
        x.requires_grad_(True)
        with masked(torch.nn.Sequential(ours), shown):
            found = ours(x)
        places = x.permute(0, 2, 3, 1)[active[:, 0]]
        wanted = theirs(places)
        torch.testing.assert_close(found.permute(0, 2, 3, 1)[active[:, 0]], wanted)
        assert not found[~active.expand_as(found)].any()
        weight = torch.randn(wanted.shape)
        mine = torch.autograd.grad((found.permute(0, 2, 3, 1)[active[:, 0]] * weight).sum(), x, retain_graph=True)[0]
        torch.testing.assert_close(mine, torch.autograd.grad((wanted * weight).sum(), x)[0], atol=1e-5, rtol=1e-4)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name])
    assert 'forward' not in vars(ours)


@pytest.mark.parametrize('kind', KINDS)
def test_nothing_hidden_is_mmpretrains_own_pass(kind):
    backbone = backbone_of(kind)
    encoder = encoder_of(backbone)
    x = images()
    backbone.eval()
    order = torch.arange(16).expand(3, 1, 16)
    with torch.no_grad():
        wanted = backbone(x)[-1].flatten(2).transpose(1, 2)
        torch.testing.assert_close(encoder.encode_whole(x)[1], wanted)
        torch.testing.assert_close(encoder.encode(encoder.embed(x), order), wanted)
    assert encoder.grid.num_patches == 16 and encoder.grid.patch_size == 32 and encoder.width == wanted.shape[-1]


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('training', [True, False])
def test_hidden_pixels_reach_nothing(kind, training):
    """Neither values nor gradients, in BatchNorm's statistics neither; and hidden places stay zero up to the end."""
    backbone = backbone_of(kind)
    encoder = encoder_of(backbone)
    backbone.train(training)
    order = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(i)) for i in range(6)])
    visible = order.view(3, 2, 16)[..., :5]
    x = images().requires_grad_(True)
    before = copy.deepcopy(backbone.state_dict())
    first = encoder.encode(encoder.embed(x), visible)
    (gradient,) = torch.autograd.grad(first.square().sum(), x)
    backbone.load_state_dict(before)
    shown = torch.zeros(3, 16, dtype=torch.bool).scatter(1, visible.flatten(1), True)
    pixels = shown.view(3, 1, 4, 4).repeat_interleave(32, 2).repeat_interleave(32, 3)
    assert not gradient[~pixels.expand_as(gradient)].any() and gradient[pixels.expand_as(gradient)].any()
    other = torch.where(pixels, x, images(seed=9) * 100)
    after = encoder.encode(encoder.embed(other), visible)
    assert torch.equal(after, first)
    with masked(backbone, shown.view(3, 1, 4, 4)) as mask:
        end = encoder.last_map(x * mask((SIDE, SIDE), x.dtype))
    assert not end.flatten(2)[(~shown)[:, None].expand(-1, end.shape[1], -1)].any()


@pytest.mark.parametrize('kind', ['convnext', 'convnextv2', 'resnet'])
def test_the_whole_network_is_a_sparse_one(kind):
    """Every convolution by the loop above on a net of one square visible: computed on that square alone, cut out."""
    backbone = backbone_of(kind)
    encoder = encoder_of(backbone)
    backbone.eval()
    x = images(1)
    visible = torch.tensor([[[5]]])  # row 1, column 1
    with torch.no_grad():
        found = encoder.encode(encoder.embed(x), visible)[0, 0]
        alone = x[..., 32:64, 32:64]
        wanted = encoder.last_map(alone)[0, :, 0, 0]
    # alone, borders of the square are borders of the image, which are zeros too
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize('kind', KINDS)
def test_any_lengths_packed(kind):
    """Parts of different lengths, in one batch: each equals its own pass."""
    model = pretraining('MAE', kind)
    model.backbone.eval()
    encoder, x = model.encoder, images()
    order = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(i)) for i in range(6)])
    order = order.view(3, 2, 16)
    plan = MaskPlan.from_lengths(order, [[3, 7], [9, 0], [3, 12]])
    seen = []
    inner = encoder.encode_packed
    model.encoder.encode_packed = lambda *args: seen.append(inner(*args)) or seen[-1]
    with torch.no_grad():
        tokens = encoder.embed(x)
        model.predict_packed(tokens, plan)
        rows = [(b, k, n) for b, lengths in enumerate(plan.lengths.tolist()) for k, n in enumerate(lengths) if n]
        rows.sort(key=lambda row: row[2])
        wanted = [encoder.encode(tokens[b : b + 1], order[b : b + 1, k : k + 1, :n])[0] for b, k, n in rows]
    torch.testing.assert_close(seen[0], torch.cat(wanted))


def pretraining(method, kind, masker=None, **options):
    masker = masker or (dict(type='ParallelMasking', num_parts=4) if method == 'EMAE' else dict(type='RandomMasking'))
    decoder = dict(DECODER)
    torch.manual_seed(0)
    cfg = dict(type=method, backbone=KINDS[kind], masker=masker, decoder=decoder, img_size=SIDE, **options)
    model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    return model.double()


@pytest.mark.parametrize('kind', ['convnext', 'resnet'])
@pytest.mark.parametrize('method, name', [
    ('MAE', 'sbam'), ('MAE', 'sbam-amr'), ('MAE', 'block'), ('EMAE', 'parallel'), ('EMAE', 'salience-balanced'),
    ('EMAE', 'independent'), ('MAE', 'attmask-high'),
])  # fmt: skip
def test_methods_train_under_maskers(method, name, kind):
    model = pretraining(method, kind, table()[name])
    model.mask_generator = torch.Generator().manual_seed(0)
    if name.startswith('attmask'):
        with pytest.raises(ValueError, match='shows no class-token attention'):
            model.loss(images())
        return
    total_loss(model.loss(images())).backward()
    for label, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), label


@pytest.mark.parametrize('kind', KINDS)
def test_pretrained_ones_go_whole_into_transfer(tmp_path, kind):
    """Into mmpretrain's own backbone as a classifier has it; features are those of the pretrained encoder."""
    model = pretraining('EMAE', kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(2):
        optimizer.zero_grad()
        total_loss(model.loss(images(seed=step))).backward()
        optimizer.step()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    cfg = copy.deepcopy(KINDS[kind])
    cfg.pop('gap_before_final_norm', None)
    target = MODELS.build(cfg).double()
    report = load_encoder(target, tmp_path / 'a.pth')
    assert report.fraction == 1 and not report.random and not report.by_design
    for name, value in target.state_dict().items():
        assert name.endswith('num_batches_tracked') or torch.equal(value, model.backbone.state_dict()[name]), name
    model.eval()
    with torch.no_grad():
        wanted = encode(target, images())['mean'].double()
        if 'ConvNeXt' in cfg['type']:
            x = images()
            for downsample, stage in zip(model.backbone.downsample_layers, model.backbone.stages):
                x = stage(downsample(x))
            found = model.encoder.norm(x.mean(dim=(2, 3), keepdim=True)).flatten(1)
        else:
            found = model.encoder.encode_whole(images())[1].mean(dim=1)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)  # pooled features are fp32


CHANGES = {  # recipe -> a small net in its place, and how many squares are hidden of how many
    'emae_convnextt_300e': (CONVNEXT, 12, 16),
    'sbam_mae_resnet50_400e': (dict(RESNET, norm_cfg=dict(type='BN')), 10, 16),
}


@pytest.mark.parametrize('name', CHANGES)
def test_recipes(name, image_folder, tmp_path):
    cfg = built_recipes.load(f'convnets/{name}.py')
    guard.check_config(cfg)
    side = cfg.train_dataloader.dataset.pipeline[1].scale
    assert side == cfg.model.img_size and side % 32 == 0
    batch = 8 * cfg.train_dataloader.batch_size * cfg.optim_wrapper.get('accumulative_counts', 1)
    assert batch == cfg.auto_scale_lr.base_batch_size == 4096
    with built_recipes.meta():
        full = MODELS.build(cfg.model)
    millions = {'convnext': 27.8, 'mae_resn': 23.5}[name[5:13]]  # without the classifier
    assert sum(p.numel() for p in full.backbone.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
    small, hidden, squares = CHANGES[name]
    options = {k: v for k, v in SHRINK.items() if 'backbone' not in k and not k.endswith('pipeline.1.scale')}
    cfg.merge_from_dict({**options, 'model.img_size': SIDE, 'optim_wrapper.accumulative_counts': 1})
    cfg.train_dataloader.dataset.pipeline[1].scale = SIDE
    cfg.model.backbone = dict(small)
    model, changed = run_two_steps(cfg, image_folder, tmp_path / 'run', f'{name}-{tmp_path.name}')
    assert {n for n, p in model.named_parameters() if p.requires_grad} == changed | {
        n for n, p in model.named_parameters() if p.requires_grad and p.grad is not None and not p.grad.any()
    }
    plan = model.plan(images(2, dtype=torch.float32), torch.Generator().manual_seed(0))
    assert plan.mask.shape[-1] == squares and (plan.mask.sum(dim=-1) == hidden).all()


def _rank(rank, folder):
    store = dist.FileStore(f'{folder}/store', 2)
    dist.init_process_group('gloo', store=store, rank=rank, world_size=2)
    norm, x, shown = torch.load(f'{folder}/given.pth', weights_only=False)
    part = slice(0, 1) if rank == 0 else slice(1, 4)  # of different sizes
    x = x[part].clone().requires_grad_(True)
    with masked(torch.nn.Sequential(norm), shown[part]):
        y = norm(x)
    (y.square() * torch.arange(8.0)).sum().backward()
    grads = torch.stack([norm.weight.grad, norm.bias.grad])
    dist.all_reduce(grads)
    torch.save((y.detach(), x.grad, grads, norm.state_dict()), f'{folder}/{rank}.pth')
    dist.destroy_process_group()


def test_two_ranks_are_one_with_the_whole_batch(tmp_path):
    norm = torch.nn.SyncBatchNorm(5)
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    shown = shown_of(4)
    x = torch.randn(4, 5, 8, 8, generator=torch.Generator().manual_seed(0)) + 1
    torch.save((norm, x, shown), tmp_path / 'given.pth')
    spawn(_rank, str(tmp_path))
    x = x.requires_grad_(True)
    with masked(torch.nn.Sequential(norm), shown):
        y = norm(x)
    (y.square() * torch.arange(8.0)).sum().backward()
    found = [torch.load(tmp_path / f'{rank}.pth', weights_only=False) for rank in (0, 1)]
    torch.testing.assert_close(torch.cat([f[0] for f in found]), y.detach())
    torch.testing.assert_close(torch.cat([f[1] for f in found]), x.grad, atol=1e-5, rtol=1e-4)
    for part in found:
        torch.testing.assert_close(part[2], torch.stack([norm.weight.grad, norm.bias.grad]), atol=1e-4, rtol=1e-4)
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(part[3][name], value)


def test_what_would_not_train_is_refused():
    with pytest.raises(ValueError, match='norms of others would never train'):
        MODELS.build(dict(type='MAE', backbone=dict(CONVNEXT, out_indices=[0, 3]), masker=dict(type='RandomMasking'),
                          decoder=DECODER))  # fmt: skip
    with pytest.raises(ValueError, match='pretraining trains it all'):
        MODELS.build(dict(type='MAE', backbone=dict(RESNET, norm_eval=True), masker=dict(type='RandomMasking'),
                          decoder=DECODER))  # fmt: skip
    with pytest.raises(ValueError, match='VisionTransformer has its own'):
        vit = dict(type='mmpretrain.VisionTransformer', img_size=32, patch_size=8)
        MODELS.build(dict(type='MAE', backbone=vit, masker=dict(type='RandomMasking'), decoder=DECODER, img_size=32))
    model = pretraining('MAE', 'resnet')
    with pytest.raises(ValueError, match='not a whole number of 32-px patches'):
        model.loss(F.pad(images(), (0, 8)))
