"""The command line: `python -m pertjax.main --config=... --workdir=...`."""

from __future__ import annotations

import os
import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

_MODES = ('train', 'evaluate', 'predict')

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'File with get_config(); arguments for it follow a colon, for example '
  'configs/norman.py:model=vae,smoke.',
  lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Directory of the run; starting again in it resumes.'
)
_MODE = flags.DEFINE_enum('mode', 'train', _MODES, 'What to do with the run.')
_DEBUG = flags.DEFINE_bool(
  'debug', False, 'One seed, few steps, no compilation, NaN checks.'
)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(
      f'unexpected arguments {argv[1:]}; every option is a flag'
    )
  # Imported late, so that --help and a mistyped flag answer at once.
  from pertjax import runs

  config = _CONFIG.value
  workdir = pathlib.Path(_WORKDIR.value).expanduser()
  try:
    runs.start(config, workdir, mode=_MODE.value, debug=_DEBUG.value)
  except (ValueError, OSError, FloatingPointError) as error:
    if _DEBUG.value:
      raise
    # What a user can mend is said in a sentence, not in a stack trace.
    print(f'pertjax: error: {error}', file=sys.stderr)  # noqa: T201
    sys.exit(1)


if __name__ == '__main__':
  # Before jax is imported: its own chatter is not a user's business.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  logging.set_verbosity(logging.WARNING)
  flags.mark_flags_as_required(['config', 'workdir'])
  app.run(main)
