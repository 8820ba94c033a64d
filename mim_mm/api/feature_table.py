"""Features of all images of a folder as one table in a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mim_mm import files
from mim_mm.api.encoder import LoadedEncoder
from mim_mm.data.unlabelled import list_images
from mim_mm.data.workers import shield_workers
from mim_mm.evaluation.frozen.features import encode

__all__ = ['extract_folder', 'writer_of']


class _Crops(Dataset):
    """uint8 (3, crop, crop) of each image of a list."""

    def __init__(self, encoder: LoadedEncoder, paths: list[str]):
        self.pixels, self.paths = encoder.pixels, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels(self.paths[index])


def extract_folder(
    encoder: LoadedEncoder,
    folder: str | os.PathLike,
    *,
    pooling: str | None = None,
    batch_size: int = 32,
    workers: int = 0,
    amp: str | None = None,
) -> tuple[list[str], np.ndarray]:
    """Names relative to the folder, in sorted order, and float32 (images, D).

    Args:
        pooling: 'cls', 'mean' (of the patches) or 'cls_mean'; None: the class token where there is one.

    Raises:
        NoImages: no folder, or no image in it. ValueError: a pooling that the encoder has not.
        UnreadableImage: naming the file. FloatingPointError: a feature is not finite.
    """
    paths = list_images(folder)
    loader = DataLoader(_Crops(encoder, paths), batch_size, num_workers=workers)
    shield_workers(loader)
    found = []
    for batch in loader:
        pooled = encode(encoder.backbone, encoder.preprocess.normalize(batch.to(encoder.device)), amp)
        names = (pooling or ('cls' if 'cls' in pooled else 'mean')).split('_')
        if any(name not in pooled for name in names):
            raise ValueError(f'pooling {pooling!r} needs a class token, which this encoder has not: use mean')
        features = torch.cat([pooled[name] for name in names], dim=1).cpu()
        if not features.isfinite().all():
            raise FloatingPointError(f'features are not finite (amp={amp}): use no amp')
        found.append(features)
    return [os.path.relpath(path, folder) for path in paths], torch.cat(found).numpy()


def writer_of(path: Path) -> Callable[[list[str], np.ndarray], None]:
    """What writes a table to ``path``; known before anything is computed.

    Raises:
        ValueError: another ending, or no such folder. ImportError: .parquet without pyarrow.
    """
    if not path.absolute().parent.is_dir():
        raise ValueError(f'the folder of {path} is not there: make it first')
    if path.suffix == '.npy':
        return lambda names, features: _write_npy(path, names, features)
    if path.suffix == '.parquet':
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise ImportError(f'{path.name} needs pyarrow: pip install pyarrow, or write .npy') from None
        return lambda names, features: _write_parquet(path, names, features)
    raise ValueError(f'{path.name} must end in .npy or .parquet')


def _write_npy(path: Path, names: list[str], features: np.ndarray) -> None:
    with files.replacing(path) as temporary, open(temporary, 'wb') as stream:
        np.save(stream, features)
    files.write_text(path.with_suffix('.txt'), ''.join(f'{name}\n' for name in names), errors='surrogateescape')


def _write_parquet(path: Path, names: list[str], features: np.ndarray) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:  # writer_of has looked
        raise ImportError('writing .parquet needs pyarrow') from error
    width = features.shape[1]
    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(features.ravel()), width)
    names = [name.encode(errors='replace').decode() for name in names]
    with files.replacing(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table({'name': names, 'feature': column}), temporary)
