"""The load report: what became of each parameter of an encoder and of each tensor of the file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from mim_mm import files
from mim_mm.checkpoint.leftovers import gathered


@dataclass
class LoadReport:
    """What became of each parameter of a backbone; counts are numbers of values, not of tensors."""

    checkpoint: str
    prefix: str
    min_loaded: float
    sizes: dict[str, int] = field(default_factory=dict)  # parameter -> number of values
    loaded: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)  # parameter -> "(1, 197, 768) -> (1, 4096, 768)"
    moved: dict[str, str] = field(default_factory=dict)  # parameter -> where it was taken from, unchanged
    by_design: dict[str, str] = field(default_factory=dict)  # parameter -> reason
    random: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)  # keys of the file
    kinds: dict[str, str] = field(default_factory=dict)  # unused key -> what it is
    entry: str = ''  # where the weights lay in the file
    notes: list[str] = field(default_factory=list)  # which of several models was taken, and why
    what: str = 'backbone'  # whose parameters these are: 'backbone', 'model'

    @classmethod
    def from_dict(cls, stored: Mapping) -> LoadReport:
        """The report that :meth:`as_dict` was made from; what an older one lacks stays empty."""
        return cls(**{f.name: stored[f.name] for f in fields(cls) if f.name in stored})

    def values(self, names) -> int:
        return sum(self.sizes[n] for n in names)

    @property
    def fraction(self) -> float:
        """(loaded + resized + moved) / (all parameters - those left at their start by design), counted in values."""
        expected = self.values(self.sizes) - self.values(self.by_design)
        filled = sum(self.values(names) for names in (self.loaded, self.resized, self.moved))
        return filled / expected if expected else 0.0

    def as_dict(self) -> dict:
        """Plain types for JSON, with the counts and the fraction beside the lists."""
        kinds = ('loaded', 'resized', 'moved', 'by_design', 'random')
        counts = {name: self.values(getattr(self, name)) for name in kinds}
        counts['total'] = self.values(self.sizes)
        return {'schema': 1, 'fraction': self.fraction, 'values': counts, **asdict(self)}

    def table(self) -> str:
        """The report as text: counts and per cent of the backbone, then every name that was not simply loaded."""
        total = max(self.values(self.sizes), 1)
        entry, whole = f'entry {self.entry!r}, ' if self.entry else '', self.what == 'backbone'
        lines = [
            f'{"Encoder" if whole else "Model"} from {self.checkpoint} ({entry}prefix {self.prefix!r})',
            *self.notes,
            f'{"":<24}{"tensors":>8}{"values":>14}{f"of {self.what}":>13}',
        ]
        rows = (
            ('loaded', 'loaded'),
            ('resized', 'resized'),
            ('moved', 'taken from another place'),
            ('by_design', 'left at start by design'),
            ('random', 'left random'),
        )
        for attribute, label in rows:
            names = getattr(self, attribute)
            if attribute == 'moved' and not names:
                continue
            values = self.values(names)
            lines.append(f'{label:<24}{len(names):>8}{values:>14,}{100 * values / total:>12.2f}%')
        lines.append(
            f'{100 * self.fraction:.2f} % of {"what a pretraining checkpoint can hold" if whole else "it"} was loaded '
            f'(minimum {100 * self.min_loaded:g} %).'
        )
        lines += [f'  resized   {name}  {change}' for name, change in self.resized.items()]
        lines += [f'  moved     {name}  ({source})' for name, source in self.moved.items()]
        lines += [f'  by design {name}  ({reason})' for name, reason in self.by_design.items()]
        lines += [f'  random    {name}' for name in gathered(self.random)]
        for kind in dict.fromkeys(self.kinds.values()):
            names = [name for name in self.unused if self.kinds.get(name) == kind]
            lines += [f'  unused    {name}  ({kind})' for name in gathered(names)]
        return '\n'.join(lines)

    def save(self, directory: str | os.PathLike) -> None:
        """Write ``load_report.json`` and ``load_report.txt``; each appears whole or not at all."""
        folder = Path(directory)
        files.write_json(folder / 'load_report.json', self.as_dict())
        files.write_text(folder / 'load_report.txt', f'{self.table()}\n')
