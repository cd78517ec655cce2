"""A dataset of the tests' own: its entry, and what is left of fetching it."""

import hashlib
import json

from pertjax.data import catalog


def make_entry(**changes):
  return catalog.Entry(
    **{
      'name': 'toy',
      'title': 'a toy',
      'reference': 'nobody',
      'licence': 'CC0',
      'filename': 'a.h5ad',
      'preset': 'perturbench',
      'key': 'condition',
      'control': 'control',
      **changes,
    }
  )


def fetch(entry, tmp_path, **changes):
  arguments = {'progress': False, 'timeout': 5, 'retries': 0, 'backoff': 0.01}
  return catalog.fetch(entry, cache_dir=tmp_path, **{**arguments, **changes})


def read_record(tmp_path):
  return json.loads((tmp_path / 'toy' / 'checksum.json').read_text())


def sha256(content):
  return hashlib.sha256(content).hexdigest()


def left_in(tmp_path):
  """What is in the folder of the toy, but for the lock."""
  found = {path.name for path in (tmp_path / 'toy').iterdir()}
  return sorted(found - {'.lock'})
