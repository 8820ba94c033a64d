"""Backbones by formula: plain ViT (and BEiT's), HiViT, Swin. Settings are those of their mmpretrain classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mim_mm.cost.work import FIRST, FROZEN, TRAINED, Part, block_params, block_saved, blocks, linear

# width, depth, heads, MLP width: mmpretrain's zoos, which tests/cost compares with this table.
VIT = {
    ('s', 'small'): (768, 8, 8, 2304),
    ('b', 'base', 'deit-b', 'deit-base'): (768, 12, 12, 3072),
    ('l', 'large'): (1024, 24, 16, 4096),
    ('h', 'huge'): (1280, 32, 16, 5120),
    ('eva-g', 'eva-giant'): (1408, 40, 16, 6144),
    ('deit-t', 'deit-tiny'): (192, 12, 3, 768),
    ('deit-s', 'deit-small', 'dinov2-s', 'dinov2-small'): (384, 12, 6, 1536),
}
# width, blocks of each stage, heads (of each stage in Swin, of the last in HiViT)
SWIN = {
    ('t', 'tiny'): (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    ('s', 'small'): (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    ('b', 'base'): (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    ('l', 'large'): (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
HIVIT = {
    ('t', 'tiny'): (384, (1, 1, 10), 6),
    ('s', 'small'): (384, (2, 2, 20), 6),
    ('b', 'base'): (512, (2, 2, 24), 8),
    ('l', 'large'): (768, (2, 2, 40), 12),
}


def bare(kind: Any) -> str:
    """Name of a registered class without its scope."""
    return str(kind).rsplit('.', 1)[-1]


def pair(value: Any) -> tuple[int, int]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value, value)


def look_up(zoo: Mapping, arch: Any, keys: tuple[str, ...], what: str) -> tuple:
    """Settings of an arch given by name or as a dict.

    Raises:
        ValueError: the name is not in the zoo; the message lists those that are.
    """
    if isinstance(arch, Mapping):
        return tuple(arch[key] for key in keys)
    for names, settings in zoo.items():
        if str(arch).lower() in names:
            return settings
    known = ', '.join(name for names in zoo for name in names)
    raise ValueError(f'arch {arch!r} of {what} is unknown; give a dict with {", ".join(keys)}, or one of {known}')


@dataclass(frozen=True)
class PlainViT:
    """A ViT's geometry on one image: D, L, heads, F, prefix tokens and patches (h, w)."""

    dims: int
    depth: int
    heads: int
    ffn: int
    patch: int
    prefix: int
    grid: tuple[int, int]
    channels: int = 3

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def name(self) -> str:
        return f'ViT {self.dims}x{self.depth}/{self.patch}'

    def embedding(self, backward: float = FIRST, width: int = 2) -> Part:
        """The patch projection, class token and positions."""
        part = linear('patch embedding', self.patches, self.channels * self.patch**2, self.dims, backward, width)
        positions = (self.patches + self.prefix) * self.dims + self.prefix * self.dims
        return Part(part.name, part.forward, backward, part.params + positions, part.saved)

    def encoder(self, lengths=None, backward: float = TRAINED, width: int = 2, name: str = 'encoder') -> Part:
        """All blocks on sequences of ``lengths`` tokens, by default the whole image."""
        lengths = [self.patches + self.prefix] if lengths is None else lengths
        return blocks(name, self.depth, self.dims, self.ffn, lengths, backward, width)


def plain_vit(backbone: Mapping, size: tuple[int, int], prefix: int | None = None) -> PlainViT:
    """Geometry of ``VisionTransformer``, ``BEiTPretrainViT``, ``CAEPretrainViT`` or ``WindowedViT``."""
    keys = ('embed_dims', 'num_layers', 'num_heads', 'feedforward_channels')
    dims, depth, heads, ffn = look_up(VIT, backbone.get('arch', 'base'), keys, bare(backbone['type']))
    patch = backbone.get('patch_size', 16)
    if prefix is None:
        prefix = int(backbone.get('with_cls_token', True))
    grid = (size[0] // patch, size[1] // patch)
    return PlainViT(dims, depth, heads, ffn, patch, prefix, grid, backbone.get('in_channels', 3))


@dataclass(frozen=True)
class HiViT:
    """HiViT's geometry: stages of MLPs inside each patch, then a plain ViT of D, ``main`` blocks."""

    dims: int
    depths: tuple[int, ...]
    patch: int
    inner: int
    grid: tuple[int, int]
    stem_ratio: float = 3.0
    ratio: float = 4.0
    prefix: int = 0

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def depth(self) -> int:
        return self.depths[-1]

    @property
    def name(self) -> str:
        return f'HiViT {self.dims}x{self.depths[-1]}/{self.patch}'

    def embedding(self, backward: float = TRAINED, width: int = 2) -> Part:
        """Projection of small squares, two MLP blocks for each of a stage's depth, and the merging of 2 x 2 squares."""
        dims = self.dims // 2 ** (len(self.depths) - 1)
        tokens, side = self.patches * self.inner**2, self.patch // self.inner
        first = linear('', tokens, 3 * side**2, dims, FIRST, width)
        flops, params, saved = first.forward, first.params + self.patches * self.dims, first.saved
        for depth in self.depths[:-1]:
            hidden = int(self.stem_ratio * dims)
            flops += 2 * depth * tokens * 4.0 * dims * hidden + tokens / 4 * 2.0 * (4 * dims) * (2 * dims)
            params += 2 * depth * (2 * dims * hidden + hidden + 3 * dims) + 8 * dims**2 + 8 * dims
            one = tokens * (4.0 * dims + width * (dims + 2 * hidden))
            saved += one * 2 * depth + tokens * dims * (4 + width)
            tokens, dims = tokens / 4, dims * 2
        if not backward:
            saved = self.patches * self.inner**2 * (self.dims / 4) * (4 + 7 * width)
        elif backward == TRAINED:
            backward = (FIRST * first.forward + TRAINED * (flops - first.forward)) / flops
        return Part('patch embedding', flops, backward, params, saved)

    def encoder(self, lengths=None, backward: float = TRAINED, width: int = 2, name: str = 'encoder') -> Part:
        lengths = [self.patches] if lengths is None else lengths
        return blocks(name, self.depth, self.dims, int(self.ratio * self.dims), lengths, backward, width)


def hivit(backbone: Mapping, size: tuple[int, int]) -> HiViT:
    keys = ('embed_dims', 'depths', 'num_heads')
    dims, depths, _ = look_up(HIVIT, backbone.get('arch', 'base'), keys, bare(backbone['type']))
    patch = backbone.get('patch_size', 16)
    ratios = (backbone.get('stem_mlp_ratio', 3.0), backbone.get('mlp_ratio', 4.0))
    grid = (size[0] // patch, size[1] // patch)
    return HiViT(dims, tuple(depths), patch, backbone.get('inner_patches', 4), grid, *ratios)


def swin(backbone: Mapping, size: tuple[int, int], backward: float = TRAINED, width: int = 2):
    """Swin's parts and maps: ``(parts, [(tokens, channels) of each stage], name)``.

    Windows of w x w tokens cost ``4 T w^2 D`` for the attention; maps are padded to whole windows, for qkv and
    projection too.
    """
    keys = ('embed_dims', 'depths', 'num_heads')
    dims, depths, heads = look_up(SWIN, backbone.get('arch', 'tiny'), keys, bare(backbone['type']))
    patch = backbone.get('patch_size', 4)
    first = linear('patch embedding', math.ceil(size[0] / patch) * math.ceil(size[1] / patch), 3 * patch**2, dims,
                   FIRST if backward else FROZEN, width)  # fmt: skip
    rows, columns = (math.ceil(side / patch) for side in size)
    parts, maps, name = [first], [], f'Swin {dims}x{"-".join(map(str, depths))}'
    stages = backbone.get('stage_cfgs') or {}
    for index, (depth, head) in enumerate(zip(depths, heads)):
        stage = stages[index] if isinstance(stages, (list, tuple)) else stages
        window = (stage.get('block_cfgs') or {}).get('window_size') or backbone.get('window_size', 7)
        tokens = rows * columns
        padded = math.ceil(rows / window) * math.ceil(columns / window) * window**2
        flops = depth * (8.0 * padded * dims**2 + 16.0 * tokens * dims**2 + 4.0 * padded * window**2 * dims)
        params = depth * (block_params(dims, 4 * dims) + (2 * window - 1) ** 2 * head)
        kept = block_saved(tokens, dims, 4 * dims, width, head * padded * window**2) * (depth if backward else 1)
        parts.append(Part(f'stage {index + 1}', flops, backward, params, kept))
        maps.append((tokens, dims))
        if index + 1 < len(depths):
            rows, columns = math.ceil(rows / 2), math.ceil(columns / 2)
            parts.append(linear(f'merging {index + 1}', rows * columns, 4 * dims, 2 * dims, backward, width))
            dims *= 2
    return parts, maps, name
