"""Named public datasets, and how to get their files.

Adding a dataset is adding an entry to data/catalog_table.py. Its file is kept
as `<cache>/<dataset>/<file>`, downloaded once, resumed and checked.
"""

from __future__ import annotations

import os
import pathlib

import pandas as pd
import pooch

from pertjax import names as name_lib
from pertjax.data import catalog_files, catalog_table, download
from pertjax.data.catalog_entry import Entry
from pertjax.data.catalog_files import CACHE_VARIABLE, DownloadError

__all__ = [
  'CACHE_VARIABLE',
  'DownloadError',
  'Entry',
  'cache_folder',
  'describe',
  'fetch',
  'get',
  'local_path',
  'names',
]


def names() -> tuple[str, ...]:
  """Returns the names of all datasets, sorted."""
  return tuple(sorted(catalog_table.TABLE))


def get(name: str) -> Entry:
  """Returns the entry of a dataset.

  Raises:
    ValueError: no dataset has this name; the message names the closest.
  """
  if name not in catalog_table.TABLE:
    raise ValueError(name_lib.unknown('dataset', name, names()))
  return catalog_table.TABLE[name]


def describe() -> pd.DataFrame:
  """Returns a table of all datasets, one row each, for people to read."""
  return pd.DataFrame(
    [
      {
        'name': entry.name,
        'title': entry.title,
        'MB': None if entry.size is None else round(entry.size / 1e6),
        'scale': entry.scale,
        'preset': entry.preset,
        'download': 'by hand' if entry.url is None else 'automatic',
        'licence': entry.licence,
        'reference': entry.reference,
        'notes': '; '.join(entry.notes),
      }
      for entry in map(get, names())
    ]
  ).astype({'MB': 'Int64'})


def cache_folder(cache_dir: str | os.PathLike | None = None) -> pathlib.Path:
  """Returns the cache: the argument, $PERTJAX_CACHE, or the system's place."""
  chosen = cache_dir or os.environ.get(CACHE_VARIABLE)
  return pathlib.Path(chosen or pooch.os_cache('pertjax')).expanduser()


def local_path(
  name: str | Entry, *, cache_dir: str | os.PathLike | None = None
) -> pathlib.Path:
  """Returns where the h5ad of a dataset is, or will be."""
  entry = name if isinstance(name, Entry) else get(name)
  return cache_folder(cache_dir) / entry.name / entry.local_name


def fetch(
  name: str | Entry,
  *,
  cache_dir: str | os.PathLike | None = None,
  progress: bool = True,
  timeout: float = 60.0,
  retries: int = 5,
  backoff: float = 1.0,
) -> pathlib.Path:
  """Returns the path of a dataset's h5ad, downloading it where it is not here.

  A later call reads nothing but the size and the time of change of the file;
  where these differ from the record, the file is hashed again. An interrupted
  download continues where it stopped. Two processes may ask at once: the
  second waits for the first.

  Args:
    name: of a dataset, or an entry of your own.
    cache_dir: see cache_folder.
    progress: whether to write what happens to stderr.
    timeout: seconds without a byte after which a connection counts as dead.
    retries: tries after the first that bring nothing new.
    backoff: seconds before the first of these; doubled for each further one.

  Raises:
    ValueError: unknown name; a checksum differs; an archive is damaged.
    FileNotFoundError: only a person can get this file; says where, and where
      to put it.
    DownloadError: no connection, an error of the server, a page in place of
      data, a stall. What has arrived is kept and continued by the next call.
    OSError: the disk is too full.
  """
  entry = name if isinstance(name, Entry) else get(name)
  job = catalog_files.Job(
    entry=entry,
    target=local_path(entry, cache_dir=cache_dir),
    say=download.say if progress else download.be_silent,
    progress=progress,
    timeout=timeout,
    retries=retries,
    backoff=backoff,
  )
  # Before anything is written: a shared cache may be read-only.
  if not catalog_files.is_recorded(job):
    job.target.parent.mkdir(parents=True, exist_ok=True)
    with catalog_files.locked(job):
      # Another process may have been faster.
      if not catalog_files.is_recorded(job):
        _obtain(job)
  return job.target


def _obtain(job: catalog_files.Job) -> None:
  """Makes a checked, recorded file of what is here or on the server."""
  by_hand = job.target.with_name(job.entry.filename)
  if job.target.exists():
    catalog_files.check_again(job)
  elif by_hand.exists():  # Packed: otherwise it would be the target.
    job.say(f'{job.entry.name}: found {by_hand}, put there by hand')
    catalog_files.check_head(job.entry.filename, by_hand)
    catalog_files.install(job, by_hand)
  elif job.entry.url is None:
    raise FileNotFoundError(
      f'dataset {job.entry.name!r} cannot be downloaded by a program. '
      + catalog_files.by_hand(job)
    )
  else:
    download.complete(job)
    catalog_files.install(job, job.part)
    job.drop_part()
