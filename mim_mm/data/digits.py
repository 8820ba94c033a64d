"""Demo data that needs no download: scikit-learn's 1,797 handwritten digits, as photographs of small worlds.

Three sets are made from the same 8 x 8 glyphs, and the same fixed split of the *glyphs* (1,437 for training, 360 held
out, stratified by digit) runs through all of them, so nothing a model is tested on was ever seen in pretraining::

    <root>/digits/{train,val}/{0..9}/*.png               single digits, one folder a class     (linear, fine-tune)
    <root>/coco/{train,val}2017/*.png                    scenes of several digits              (Mask R-CNN)
    <root>/coco/annotations/instances_{train,val}2017.json
    <root>/unlabelled/*.png                              training digits again, no labels      (pretraining)
    <root>/identity.json                                 the recipe and a hash of everything above

Every picture has its own ``numpy.random.RandomState`` (whose stream numpy has frozen), seeded by (seed, set, index):
the data do not depend on the order in which they are made, and adding scenes leaves the earlier ones as they were.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from mim_mm import files

__all__ = ['DemoRecipe', 'demo_root', 'digit_split', 'make_demo_data', 'render_scene', 'render_single', 'tree_sha256']

CLASSES = tuple(str(digit) for digit in range(10))
HELD_OUT = 360
_SETS = {'split': 0, 'single-train': 1, 'single-val': 2, 'scene-train': 3, 'scene-val': 4, 'unlabelled': 5}


@dataclass(frozen=True)
class DemoRecipe:
    """Every number that shapes the data; two equal recipes give equal bytes. Lengths are pixels, greys are 0..1."""

    version: int = 1
    seed: int = 0
    single_size: int = 32
    single_side: tuple = (24, 32)
    scene_size: int = 128
    train_scenes: int = 2400
    val_scenes: int = 80
    digits_per_scene: tuple = (2, 6)
    digit_side: tuple = (20, 48)
    box_gap: int = 2
    renderings: int = 3
    ground: tuple = (0.25, 0.50)
    ink: tuple = (0.75, 1.00)
    coarse_noise: float = 0.05
    fine_noise: float = 0.01
    mask_above: float = 0.4


def demo_root() -> str:
    """Where the demo data live: the environment's ``DEMO_ROOT``, else ``data/demo``."""
    return os.environ.get('DEMO_ROOT') or 'data/demo'


def digit_split(seed: int = 0, held_out: int = HELD_OUT) -> dict:
    """``{'train': (glyphs (n,8,8) in 0..1, labels (n,), indices (n,)), 'val': ...}``, stratified by digit.

    Each digit gives up its share of ``held_out``; shares are rounded by largest remainder so that they add up exactly.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    glyphs, labels = (data.images / 16.0).astype(np.float32), data.target
    counts = np.bincount(labels, minlength=10)
    share = counts * held_out / counts.sum()
    take = np.floor(share).astype(int)
    for digit in np.argsort(take - share, kind='stable')[: held_out - take.sum()]:
        take[digit] += 1
    rng = np.random.RandomState([seed, _SETS['split']])
    val = []
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        val.extend(rng.permutation(members)[: take[digit]])
    val = np.sort(np.asarray(val))
    train = np.setdiff1d(np.arange(len(labels)), val)
    return {name: (glyphs[ids], labels[ids], ids) for name, ids in (('train', train), ('val', val))}


def _between(rng: np.random.RandomState, bounds: tuple) -> float:
    return float(rng.uniform(*bounds))


def _ground(rng: np.random.RandomState, size: int, recipe: DemoRecipe) -> np.ndarray:
    """A flat grey with slow waves and a fine grain, so that no patch is exactly constant."""
    cells = max(2, size // 16)
    coarse = rng.standard_normal((cells, cells)).astype(np.float32)
    coarse = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    fine = rng.standard_normal((size, size)).astype(np.float32)
    return _between(rng, recipe.ground) + recipe.coarse_noise * coarse + recipe.fine_noise * fine


def _paint(canvas: np.ndarray, glyph: np.ndarray, place: tuple, ink: float, recipe: DemoRecipe) -> np.ndarray:
    """Blend one upscaled glyph into ``canvas`` (in place); returns its full-canvas mask, True where there is ink."""
    x, y, side = place
    value = cv2.resize(glyph, (side, side), interpolation=cv2.INTER_CUBIC)
    alpha = np.clip((value - 0.15) / 0.45, 0, 1)
    window = canvas[y : y + side, x : x + side]
    window += alpha * (ink - window)
    mask = np.zeros(canvas.shape, bool)
    mask[y : y + side, x : x + side] = value > recipe.mask_above
    return mask


def _to_bytes(canvas: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(canvas * 255), 0, 255).astype(np.uint8)


def render_single(glyph: np.ndarray, rng: np.random.RandomState, recipe: DemoRecipe) -> np.ndarray:
    """One digit, somewhere near the middle of a ``single_size`` square; uint8 (H, W)."""
    canvas = _ground(rng, recipe.single_size, recipe)
    side = int(rng.randint(recipe.single_side[0], recipe.single_side[1] + 1))
    x, y = rng.randint(0, recipe.single_size - side + 1, 2)
    _paint(canvas, glyph, (x, y, side), _between(rng, recipe.ink), recipe)
    return _to_bytes(canvas)


def mask_box(mask: np.ndarray) -> list[int]:
    """COCO box ``[x, y, w, h]`` of the True pixels, in whole pixels."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)]


def _apart(a: tuple, b: tuple, gap: int) -> bool:
    """Whether two squares (x, y, side) keep ``gap`` pixels between them, sideways or up and down."""
    return any(a[i] + a[2] + gap <= b[i] or b[i] + b[2] + gap <= a[i] for i in (0, 1))


def render_scene(glyphs: np.ndarray, labels: np.ndarray, rng: np.random.RandomState, recipe: DemoRecipe):
    """A scene and its instances: uint8 (H, W), ``[(label, mask (H, W) bool, index of the glyph), ...]``.

    Squares that digits are drawn in never touch (``box_gap`` pixels between them), so boxes and masks are disjoint. A
    digit that finds no place in 50 tries is left out; the first two are drawn smaller until they fit.
    """
    size = recipe.scene_size
    canvas = _ground(rng, size, recipe)
    low, high = recipe.digits_per_scene
    wanted = int(rng.randint(low, high + 1))
    taken, instances = [], []
    for place in range(wanted):
        which = int(rng.randint(len(glyphs)))
        side = int(rng.randint(recipe.digit_side[0], recipe.digit_side[1] + 1))
        ink = _between(rng, recipe.ink)
        for attempt in range(50 if place >= low else 10_000):
            if attempt and attempt % 50 == 0:
                side = max(recipe.digit_side[0], side - 2)
            x, y = (int(v) for v in rng.randint(0, size - side + 1, 2))
            if all(_apart((x, y, side), other, recipe.box_gap) for other in taken):
                taken.append((x, y, side))
                instances.append((int(labels[which]), _paint(canvas, glyphs[which], (x, y, side), ink, recipe), which))
                break
    if len(instances) < low:
        raise ValueError(
            f'only {len(instances)} of at least {low} digits of {recipe.digit_side} px fit a scene of {size} px; '
            'make scene_size larger or digit_side smaller'
        )
    return _to_bytes(canvas), instances


def _write_png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f'could not write {path}; is the disk full or the folder read-only?')


def _write_singles(root: Path, split: dict, recipe: DemoRecipe) -> None:
    for name, (glyphs, labels, ids) in split.items():
        for glyph, label, index in zip(glyphs, labels, ids):
            rng = np.random.RandomState([recipe.seed, _SETS[f'single-{name}'], int(index)])
            _write_png(root / 'digits' / name / str(label) / f'{index:04d}.png', render_single(glyph, rng, recipe))


def _annotation(mask: np.ndarray, label: int, image_id: int, number: int, glyph: int) -> dict:
    from pycocotools import mask as mask_utils

    rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(
        id=number,
        image_id=image_id,
        category_id=label + 1,  # COCO numbers categories from 1
        bbox=mask_box(mask),
        area=int(mask.sum()),
        iscrowd=0,
        segmentation=dict(size=list(rle['size']), counts=rle['counts'].decode('ascii')),
        glyph=glyph,  # row in scikit-learn's digits: lets anyone check that the split holds
    )


def _write_scenes(root: Path, name: str, split: dict, count: int, recipe: DemoRecipe) -> None:
    glyphs, labels, ids = split[name]
    images, annotations = [], []
    for index in range(count):
        rng = np.random.RandomState([recipe.seed, _SETS[f'scene-{name}'], index])
        picture, instances = render_scene(glyphs, labels, rng, recipe)
        file_name, image_id = f'{index + 1:012d}.png', index + 1
        _write_png(root / 'coco' / f'{name}2017' / file_name, picture)
        images.append(dict(id=image_id, file_name=file_name, width=recipe.scene_size, height=recipe.scene_size))
        for label, mask, which in instances:
            annotations.append(_annotation(mask, label, image_id, len(annotations) + 1, int(ids[which])))
    content = dict(
        info=dict(description='digits demo scenes made by mim_mm', version=str(recipe.version)),
        categories=[dict(id=i + 1, name=c, supercategory='digit') for i, c in enumerate(CLASSES)],
        images=images,
        annotations=annotations,
    )
    path = root / 'coco' / 'annotations' / f'instances_{name}2017.json'
    files.write_text(path, json.dumps(content), sync=False)


def _write_unlabelled(root: Path, split: tuple, recipe: DemoRecipe) -> None:
    """Each training glyph ``renderings`` times, with another ground, size and place each time.

    Not crops of the scenes: those are mostly bare ground, on which the parts of EMAE soon agree without reconstructing
    anything (docs/demo.md has the figures).
    """
    for glyph, index in zip(split[0], split[2]):
        for rendering in range(recipe.renderings):
            rng = np.random.RandomState([recipe.seed, _SETS['unlabelled'], int(index), rendering])
            _write_png(root / 'unlabelled' / f'{index:04d}_{rendering}.png', render_single(glyph, rng, recipe))


def tree_sha256(root: str | Path, skip: tuple = ('identity.json',)) -> str:
    """Hash of all file names and contents below ``root``, in sorted order."""
    digest, root = hashlib.sha256(), Path(root)
    for path in sorted(p for p in root.rglob('*') if p.is_file() and p.name not in skip):
        digest.update(path.relative_to(root).as_posix().encode() + b'\0')
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _existing_identity(root: Path) -> dict | None:
    """The identity of data already at ``root``, None when there is nothing; refuses a folder that is not ours."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    try:
        return files.read_json(root / 'identity.json')
    except (OSError, ValueError) as error:
        raise FileExistsError(
            f'{root} holds files but no readable identity.json ({error}), so it was not made by this tool and is left '
            'alone; move it away or give another place with DEMO_ROOT or --root'
        ) from error


def make_demo_data(root: str | Path | None = None, recipe: DemoRecipe | None = None) -> tuple[dict, bool]:
    """Make the demo data at ``root`` unless they are there; returns (identity, whether anything was written).

    The set is built in a sibling folder and renamed into place, so ``root`` is either absent or whole, even after a
    kill. Data of another recipe made by this tool are replaced; a folder this tool did not make raises FileExistsError.
    """
    root, recipe = Path(root or demo_root()), recipe or DemoRecipe()
    wanted = json.loads(json.dumps(asdict(recipe)))
    found = _existing_identity(root)
    if found is not None and found.get('recipe') == wanted:
        return found, False
    split = digit_split(recipe.seed)
    root.parent.mkdir(parents=True, exist_ok=True)
    building = root.parent / f'.{root.name}.building-{os.getpid()}'
    shutil.rmtree(building, ignore_errors=True)
    try:
        _write_singles(building, split, recipe)
        _write_unlabelled(building, split['train'], recipe)
        _write_scenes(building, 'train', split, recipe.train_scenes, recipe)
        _write_scenes(building, 'val', split, recipe.val_scenes, recipe)
        identity = dict(
            name='digits-demo',
            recipe=wanted,
            sha256=tree_sha256(building),
            counts=dict(
                digits_train=len(split['train'][1]),
                digits_val=len(split['val'][1]),
                scenes_train=recipe.train_scenes,
                scenes_val=recipe.val_scenes,
                unlabelled=len(split['train'][1]) * recipe.renderings,
            ),
        )
        files.write_json(building / 'identity.json', identity, indent=2)
        if root.exists():
            old = root.parent / f'.{root.name}.old-{os.getpid()}'
            os.rename(root, old)
            shutil.rmtree(old)
        os.rename(building, root)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return identity, True
