"""What the catalogue says of one file, and of the files of one publisher."""

from __future__ import annotations

import dataclasses
import pathlib
import re

from pertjax.data import conventions, matrices

# 'custom' says nothing of a file; None stands for it here.
_PRESETS = tuple(name for name in conventions.PRESETS if name != 'custom')
_ARCHIVES = ('.zip', '.tar', '.tar.gz', '.tgz')
_SUFFIXES = ('.h5ad', '.h5ad.gz', *_ARCHIVES)
_SCPERTURB = 'scPerturb: Peidli et al. 2024, doi:10.1038/s41592-023-02144-y'
_GEARS = 'GEARS: Roohani et al. 2024, doi:10.1038/s41587-023-01905-6'
_PERTURBENCH = 'PerturBench: Wu et al. 2025, arXiv:2408.10609'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """One file that can be downloaded, and how to read it.

  Attributes:
    name: unique; also the folder in the cache.
    title: what was measured, in a line.
    reference: paper with its doi, and who made this version of the file.
    licence: of the file, as its host states it.
    filename: name of the downloaded file.
    url: address, or None where only a person can get the file.
    manual: where a person gets it; needed where `url` is None.
    member: end of the path of the h5ad inside an archive; matches one member.
    preset: one of conventions.PRESETS, or None where the fields below say
      everything.
    key: column of obs that names the perturbation.
    control: its value for control cells.
    separator: joins the perturbations of a label; '' is the preset's own, None
      where a label is always one perturbation.
    covariates: columns of obs that make up a context.
    gene_names: column of var with gene symbols; None where the index has them.
    dose: column of obs with the dose, or None.
    scale: of X, 'counts' or 'log1p'; None where nobody documents it.
    size: bytes of the download, roughly, or None.
    sha256: of the download, or None while it is not known.
    md5: as published by hosts that have no sha256; used where that is None.
    notes: known faults of the file, and what about this entry is unverified.
  """

  name: str
  title: str
  reference: str
  licence: str
  filename: str
  preset: str | None
  key: str
  control: str
  url: str | None = None
  manual: str = ''
  member: str | None = None
  separator: str | None = ''
  covariates: tuple[str, ...] = ()
  gene_names: str | None = None
  dose: str | None = None
  scale: str | None = 'counts'
  size: int | None = None
  sha256: str | None = None
  md5: str | None = None
  notes: tuple[str, ...] = ()

  def __post_init__(self):
    def refuse(field, allowed):
      value = getattr(self, field)
      raise ValueError(
        f'dataset {self.name!r}: {field} is {value!r}; allowed: {allowed}'
      )

    if not re.fullmatch(r'[a-z0-9][a-z0-9_]*', self.name):
      refuse('name', 'lower-case letters, digits and _')
    if pathlib.PurePath(self.filename).name != self.filename:
      refuse('filename', 'a name without folders')
    if not self.filename.endswith(_SUFFIXES):
      refuse('filename', f'names that end in {", ".join(_SUFFIXES)}')
    if self.filename.endswith(_ARCHIVES) != (self.member is not None):
      refuse('member', 'a path for archives, None for other files')
    if self.preset not in (*_PRESETS, None):
      refuse('preset', (*_PRESETS, None))
    if self.preset is None and self.separator == '':
      refuse('separator', 'a separator or None, as there is no preset')
    if self.scale not in (*matrices.SCALES, None):
      refuse('scale', (*matrices.SCALES, None))
    if self.url is None and not self.manual:
      refuse('manual', 'where to get the file, as there is no url')
    for field, digits in (('sha256', 64), ('md5', 32)):
      value = getattr(self, field)
      if value is not None and not re.fullmatch(f'[0-9a-f]{{{digits}}}', value):
        refuse(field, f'{digits} lower-case hexadecimal digits, or None')

  @property
  def local_name(self) -> str:
    """Name of the h5ad in the cache, unpacked where it was packed."""
    name = pathlib.PurePosixPath(self.member or self.filename).name
    return name.removesuffix('.gz')


def gears(name: str, file_id: int, title: str, paper: str, **more) -> Entry:
  """A dataset as GEARS distributes it: doi:10.7910/DVN/Q2ZV3E."""
  notes = more.pop('notes', ()) + (
    'X is cut to about 5,000 variable genes',
    'A+ctrl and ctrl+A are one condition',
    'Dataverse at times answers programs with a challenge for browsers',
  )
  return Entry(
    name=name,
    title=title,
    reference=f'{paper}; {_GEARS}',
    licence='CC0 1.0',
    url=f'https://dataverse.harvard.edu/api/access/datafile/{file_id}',
    filename=f'{name}.zip',
    member='perturb_processed.h5ad',
    preset='gears',
    key='condition',
    control='ctrl',
    covariates=('cell_type',),
    gene_names='gene_name',
    scale='log1p',
    notes=notes,
    **more,
  )


def scperturb(
  name: str, filename: str, title: str, paper: str, **more
) -> Entry:
  """A dataset of scPerturb's RNA collection on Zenodo, version 1.4 or 1.3."""
  record = more.pop('record', 13350497)
  return Entry(
    **{
      'name': name,
      'title': title,
      'reference': f'{paper}; {_SCPERTURB}',
      'licence': 'CC BY 4.0',
      'url': f'https://zenodo.org/records/{record}/files/{filename}?download=1',
      'filename': filename,
      'preset': 'scperturb',
      'key': 'perturbation',
      'control': 'control',
      'covariates': ('cell_line',),
      'scale': 'counts',
      **more,
    }
  )


def perturbench(
  name: str, filename: str, title: str, paper: str, **more
) -> Entry:
  """A dataset as PerturBench curated it, on Hugging Face."""
  host = 'https://huggingface.co/datasets/altoslabs/perturbench/resolve/main/'
  notes = more.pop('notes', ()) + (
    'the card says CC BY 4.0, its machine-readable part CC BY-NC 4.0',
    'the address follows the main branch, which may change',
  )
  return Entry(
    **{
      'name': name,
      'title': title,
      'reference': f'{paper}; {_PERTURBENCH}',
      'licence': 'CC BY 4.0',
      'url': host + filename,
      'filename': filename,
      'preset': 'perturbench',
      'key': 'condition',
      'control': 'control',
      'covariates': ('cell_type',),
      'scale': 'log1p',
      'notes': notes,
      **more,
    }
  )
