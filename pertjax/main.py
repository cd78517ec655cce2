"""The command line: `python -m pertjax.main --config=... --workdir=...`."""

from __future__ import annotations

import os
import pathlib
import re
import sys
from typing import NoReturn

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
  'debug',
  False,
  'Train one seed for two steps, not compiled, with an error at the first NaN; '
  'errors keep their stack trace.',
)


def main(argv: list[str]) -> None:
  """Does what the flags say; a mistake of the user ends in one sentence."""
  if len(argv) > 1:
    _fail(f'unexpected arguments {argv[1:]}; every option is a flag')
  # Imported late, so that --help and a mistyped flag answer at once.
  from pertjax import runs

  workdir = pathlib.Path(_WORKDIR.value).expanduser()
  try:
    runs.start(_CONFIG.value, workdir, mode=_MODE.value, debug=_DEBUG.value)
  except (ValueError, OSError, FloatingPointError) as error:
    if _DEBUG.value:
      raise
    # What a user can mend is said in a sentence, not in a stack trace.
    _fail(error)


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the command line; what is wrong with it ends in one sentence.

  Returns:
    The arguments that are no flags, the program's name first.
  """
  # In place: the config library reads sys.argv, not what it is given.
  argv[:] = _config_first(argv)
  source = _config_source(argv)
  try:
    if source and not pathlib.Path(source.partition(':')[0]).is_file():
      raise FileNotFoundError(source)
    return flags.FLAGS(argv)
  except (flags.Error, AttributeError, KeyError, ValueError, OSError) as error:
    if '--debug' in argv:
      raise
    _fail(_mistake(argv, source, error))


def _config_first(argv: list[str]) -> list[str]:
  """Moves --config to the front: overrides before it would be refused."""
  rest, front = list(argv[1:]), []
  for place, arg in enumerate(rest):
    if arg in ('--config', '-config'):
      front, rest[place : place + 2] = rest[place : place + 2], []
      break
    if arg.startswith(('--config=', '-config=')):
      front = [rest.pop(place)]
      break
  return [argv[0], *front, *rest]


def _config_source(argv: list[str]) -> str:
  """Returns what --config was set to, '' where it was not."""
  for arg, following in zip(argv, [*argv[1:], '']):
    name, equals, value = arg.partition('=')
    if name in ('--config', '-config'):
      return value if equals else following
  return ''


def _mistake(argv: list[str], source: str, error: Exception) -> str:
  """Says what is wrong with a command line, and what is allowed.

  The flags library speaks of attributes and Python's own parsers; the config
  knows its keys. An error inside a config file is not ours: it is raised again.
  """
  if not source:
    return str(error)
  from pertjax import config as config_lib

  try:
    config = config_lib.load(source)
  except (ValueError, OSError) as found:
    return f'--config={source}: {found}'
  for arg in argv:
    override = re.match(r'--?(?:no)?config\.([^=]+)', arg)
    if override:
      try:
        config_lib.check_key(config, override[1])
      except ValueError as found:
        return f'{arg}: {found}'
  wrong = re.match(r'flag (--config\.([\w.]+)=.*?): ', str(error))
  if wrong:
    return f'{wrong[1]}: {config_lib.describe_key(config, wrong[2])}'
  return str(error)


def _fail(reason: object) -> NoReturn:
  print(f'pertjax: error: {reason}', file=sys.stderr)  # noqa: T201
  sys.exit(1)


if __name__ == '__main__':
  # Before jax is imported: its own chatter is not a user's business.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  # What orbax logs as an error it raises as well; a page of it hides that.
  logging.set_verbosity(logging.FATAL)
  flags.mark_flags_as_required(['config', 'workdir'])
  app.run(main, flags_parser=parse_flags)
