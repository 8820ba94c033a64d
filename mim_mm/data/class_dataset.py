"""Labelled images in class folders, numbered by the training folder's class names, or in a list with labels."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mmengine.fileio import get_file_backend
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.custom import find_folders, get_samples

from mim_mm.data.unlabelled import NoImages
from mim_mm.folders import SUFFIXES, DataError, in_hidden, is_hidden, same_numbering, subfolders, walk
from mim_mm.registry import DATASETS


@DATASETS.register_module()
class ClassFolders(CustomDataset):
    """mmpretrain's ``CustomDataset``, in which a class has the same number in every part of the data.

    ``CustomDataset`` numbers each part by its own folders: a class that the validation folder lacks shifts the labels
    of all after it. Here ``classes_from`` names the folder (or the classes) that number them; a class may be missing,
    one that is unknown there stops. Without gaps the numbers are those of ``CustomDataset``, ImageNet's included.
    Hidden folders and files (``.ipynb_checkpoints``, ``._x.jpg``, ``__MACOSX``) are neither classes nor images.

    Args:
        classes_from: the training folder, absolute or relative to ``data_root``, or
            class names in label order. None: the folders of this part, right for the training set itself.
        extensions: endings of images, by default all that ``mim_mm`` reads.
        kwargs: Of ``CustomDataset``. A list (``ann_file``) has a path and a label a line; the label is a number, or a
            class name where ``metainfo.classes`` or ``classes_from`` has it. Numbers are taken as they are.

    Raises:
        DataError: no class folder or image, a class that ``classes_from`` lacks, a label outside of the classes.
    """

    def __init__(
        self, classes_from: str | Sequence[str] | None = None, extensions: Sequence[str] = SUFFIXES, **kwargs
    ) -> None:
        self.classes_from = classes_from
        self.labels_needed = 0  # one more than the largest label of a list
        super().__init__(extensions=extensions, **kwargs)

    def is_valid_file(self, filename: str) -> bool:
        """Whether it is an image: by its ending, and not hidden. ``filename`` is relative to its class folder."""
        return super().is_valid_file(filename) and not in_hidden(filename)

    def load_data_list(self) -> list[dict]:
        """``dict(img_path, gt_label)`` an image, class by class, or in the order of the list."""
        return self._listed() if self.ann_file and self.with_label else super().load_data_list()

    def _find_samples(self) -> list:
        if not self.with_label:
            return super()._find_samples()
        try:
            own = [name for name in find_folders(self.img_prefix)[0] if not is_hidden(name)]
        except OSError as error:
            raise NoImages(f"there is no folder '{self.img_prefix}': expected FOLDER/<class>/* ({error})") from error
        numbered, by = self._names(own)
        samples, empty = get_samples(self.img_prefix, {name: i for i, name in enumerate(own)}, self.is_valid_file)
        if not samples:
            raise NoImages(f"no image in class folders of '{self.img_prefix}'; endings: {', '.join(self.extensions)}")
        present = [name for name in own if name not in empty]
        same_numbering(present, numbered, f"'{self.img_prefix}'", by)
        self._refuse_untrained(present)
        if empty:
            print_log(f"'{self.img_prefix}' has no image of {', '.join(sorted(empty)[:5])}", 'current', 30)
        self.folder_to_idx = {name: numbered.index(name) for name in present}
        if self.CLASSES is None:
            self._metainfo['classes'] = tuple(numbered)
        return [(path, self.folder_to_idx[own[place]]) for path, place in samples]

    def _names(self, own: list[str]) -> tuple[list[str], str]:
        """Folder names in label order, and what has them."""
        given = list(self.CLASSES or ())
        if isinstance(self.classes_from, str):
            folder = os.path.join(self.data_root or '', self.classes_from)
            if not os.path.isdir(folder):
                raise DataError(
                    f"classes_from: there is no folder '{folder}' to number the classes of '{self.img_prefix}' by. Set "
                    'classes_from of the data set to the training folder or a list of class names (None: its own '
                    'folders, which is right only where no class is missing)'
                )
            names, by = subfolders(folder), f"the folders of '{folder}'"
        elif self.classes_from is not None:
            names, by = list(self.classes_from), f'the {len(self.classes_from)} training classes'
        elif given and set(own) <= set(given):
            return given, 'metainfo.classes'
        else:
            names, by = own, 'its own folders'
        if given and len(given) != len(names):
            raise DataError(f'metainfo.classes has {len(given)} names, {by} are {len(names)}: they must be as many')
        return names, by

    def _refuse_untrained(self, present: list[str]) -> None:
        """A class folder that training has and that is empty there is one that train lacks."""
        if not isinstance(self.classes_from, str):
            return
        folder = os.path.join(self.data_root or '', self.classes_from)
        if os.path.realpath(folder) == os.path.realpath(self.img_prefix):
            return
        for name in present:
            if not any(self.is_valid_file(file) for _, files in walk(os.path.join(folder, name)) for file in files):
                raise DataError(
                    f"'{self.img_prefix}' has images of class '{name}', of which train has none: '{folder}/{name}' is "
                    'empty. Add images there, or remove the class'
                )

    def _listed(self) -> list[dict]:
        backend = get_file_backend(self.img_prefix, enable_singleton=True)
        text = get_file_backend(self.ann_file, enable_singleton=True).get(self.ann_file).decode('utf-8-sig')
        classes = list(self.CLASSES or ())
        try:
            names = classes or ([] if self.classes_from is None else self._names([])[0])
        except DataError:  # a training set that is a list as well has no class folders
            names = []
        found = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            path, _, label = line.strip().rpartition(' ') if ' ' in line.strip() else line.strip().rpartition('\t')
            label = str(names.index(label)) if label in names and not label.isdigit() else label
            where = f"{self.ann_file}, line {number}: '{line.strip()[-80:]}'"
            if not path or not label.isdigit():
                raise DataError(f'{where} must be a path, a blank and a label from 0, or a class name that is known')
            if classes and int(label) >= len(classes):
                raise DataError(f'{where}: the label must be below {len(classes)}, the number of classes')
            if not in_hidden(path.strip()):
                found.append(dict(img_path=backend.join_path(self.img_prefix, path.strip()), gt_label=int(label)))
        if not found:
            raise DataError(f'{self.ann_file} lists no image')
        self.labels_needed = 1 + max(row['gt_label'] for row in found)
        return found
