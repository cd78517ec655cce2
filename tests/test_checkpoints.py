"""States on disk: the same bits back, or a line that says why not."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pertjax import checkpoints, types


def _state(seed=0):
  """A state of every type of array that there is, as a fleet has it."""
  random = np.random.default_rng(seed)
  params = {
    'w': jnp.asarray(random.normal(size=(2, 3, 40)), jnp.float32),
    'half': jnp.asarray(random.normal(size=(2, 5)), jnp.bfloat16),
    # A model without covariates has weights without entries.
    'none': jnp.zeros((2, 0, 4)),
  }
  params['w'] = (
    params['w'].at[0, 0, :3].set(jnp.array([jnp.nan, jnp.inf, -0.0]))
  )
  numbers = {
    name: jnp.asarray(random.normal(size=2), jnp.float32)
    for name in ('lr_scale', 'plateau_best', 'best_score')
  }
  counts = {
    name: jnp.asarray(random.integers(0, 9, 2), jnp.int32)
    for name in (
      'step', 'plateau_bad', 'best_step', 'bad_evals', 'failed_step'
    )
  }  # fmt: skip
  return types.TrainState(
    params=params,
    best_params=jax.tree.map(lambda x: x + 1, params),
    opt_state={'model': [(counts['step'], {}, [params['w']])]},
    key=jax.random.split(jax.random.key(seed), 2),
    hyper={'optimizer.learning_rate': numbers['lr_scale']},
    active=jnp.array([True, False]),
    **numbers,
    **counts,
  )


def _bits(tree):
  def of(x):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      return str(x.dtype), x.shape, np.asarray(jax.random.key_data(x)).tobytes()
    return str(x.dtype), x.shape, np.asarray(x).tobytes()

  leaves, structure = jax.tree.flatten(tree)
  return [of(x) for x in leaves], structure


def _abstract(state=None):
  state = _state() if state is None else state
  return jax.eval_shape(lambda: state)


def _save(folder, *numbers, keep=9):
  for number in numbers:
    meta = {'chunk': number, 'metrics_bytes': 10 * number}
    checkpoints.save(folder, number, _state(number), meta, keep)


def test_every_bit_comes_back(tmp_path):
  folder = tmp_path / 'run' / 'ckpt'
  _save(folder, 3)
  state, meta = checkpoints.restore(folder, 3, _abstract())
  assert meta == {'chunk': 3, 'metrics_bytes': 30}
  assert _bits(state) == _bits(_state(3))
  # The key works: the next draw is the one that would have come.
  np.testing.assert_array_equal(
    jax.random.normal(state.key[1]), jax.random.normal(_state(3).key[1])
  )


def test_the_newest_few_are_kept(tmp_path):
  _save(tmp_path, 5, 10, 15, 20, keep=2)
  assert checkpoints.steps(tmp_path) == [15, 20]
  assert sorted(p.name for p in tmp_path.iterdir()) == ['15', '20']
  # By number, not by name.
  _save(tmp_path, 100, keep=2)
  assert checkpoints.steps(tmp_path) == [20, 100]


def test_nothing_there(tmp_path):
  said = []
  assert checkpoints.steps(tmp_path / 'ckpt') == []
  found = checkpoints.restore_latest(
    tmp_path / 'ckpt', _abstract(), said.append
  )
  assert found is None
  assert said == []
  _save(tmp_path, 1, 2)
  with pytest.raises(ValueError, match=r'no checkpoint 7 in .*\[1, 2\]'):
    checkpoints.restore(tmp_path, 7, _abstract())


@pytest.mark.parametrize(
  'name', ['9.tmp', '9.tmp/state.orbax-checkpoint-tmp-123']
)
def test_a_half_written_folder_is_skipped_and_said(tmp_path, name):
  _save(tmp_path, 1)
  (tmp_path / name).mkdir(parents=True)
  (tmp_path / name / 'data').write_text('half')
  said = []
  _, meta = checkpoints.restore_latest(tmp_path, _abstract(), said.append)
  assert meta['chunk'] == 1
  assert said == ['skipping the half-written checkpoint 9.tmp']
  assert [p.name for p in tmp_path.iterdir()] == ['1']


def _files(folder):
  return sorted(p for p in folder.rglob('*') if p.is_file())


def _truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(bytes(content))


@pytest.mark.parametrize(
  'damage', [_truncate, _flip, lambda path: path.unlink()]
)
def test_damage_to_any_file_falls_back_to_the_older(tmp_path, damage):
  _save(tmp_path, 1, 2)
  whole = tmp_path / 'whole'
  shutil.copytree(tmp_path / '2', whole)
  for path in _files(whole):
    shutil.rmtree(tmp_path / '2')
    shutil.copytree(whole, tmp_path / '2')
    damage(tmp_path / '2' / path.relative_to(whole))
    said = []
    state, meta = checkpoints.restore_latest(tmp_path, _abstract(), said.append)
    if path.name == 'manifest.json' and damage is _flip:
      # A letter of it may differ without harm, but never unseen.
      assert meta['chunk'] == 1 or _bits(state) == _bits(_state(2))
      continue
    assert meta['chunk'] == 1, path
    assert _bits(state) == _bits(_state(1))
    (line,) = said
    assert line.startswith('skipping checkpoint 2, which is damaged: ')
    assert path.relative_to(whole).as_posix() in line


def test_all_damaged_is_none_with_a_line_each(tmp_path):
  _save(tmp_path, 1, 2, 3)
  for number in (1, 2, 3):
    _truncate(tmp_path / str(number) / 'manifest.json')
  said = []
  found = checkpoints.restore_latest(tmp_path, _abstract(), said.append)
  assert found is None
  assert [line.split(',')[0] for line in said] == [
    f'skipping checkpoint {number}' for number in (3, 2, 1)
  ]


def test_a_new_checkpoint_outlives_the_damaged_ones_that_it_went_past(tmp_path):
  """Otherwise keeping the newest would remove the only good one."""
  _save(tmp_path, 1, 8, 9)
  for number in (8, 9):
    _truncate(_files(tmp_path / str(number) / 'state')[0])
  _save(tmp_path, 2, keep=2)
  assert checkpoints.steps(tmp_path) == [1, 2]
  said = []
  _, meta = checkpoints.restore_latest(tmp_path, _abstract(), said.append)
  assert meta['chunk'] == 2
  assert said == []


def test_saving_a_number_again_replaces_it(tmp_path):
  _save(tmp_path, 1, 2)
  checkpoints.save(tmp_path, 2, _state(7), {'chunk': 2}, 2)
  state, meta = checkpoints.restore(tmp_path, 2, _abstract())
  assert meta == {'chunk': 2}
  assert _bits(state) == _bits(_state(7))


def _changed(**fields):
  state = _state()
  params = {**state.params, **fields}
  return dataclasses.replace(
    state, params={k: v for k, v in params.items() if v is not None}
  )


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'w': jnp.zeros((2, 3, 41))}, r"w'\] is float32\[2, 3, 40\], expected"),
    ({'w': jnp.zeros((3, 3, 40))}, r'expected float32\[3, 3, 40\]'),
    ({'w': jnp.zeros((2, 3, 40), jnp.float16)}, 'expected float16'),
    ({'none': jnp.zeros((2, 1, 4))}, r'is float32\[2, 0, 4\], expected'),
    ({'more': jnp.zeros(2)}, r"more'\] is absent, expected float32\[2\]"),
    ({'half': None}, r'is bfloat16\[2, 5\], expected none of that name'),
  ],
)
def test_another_programs_state_is_refused(tmp_path, change, message):
  """By shape, type or name; it is not damage, so nothing is skipped."""
  _save(tmp_path, 1)
  abstract = _abstract(_changed(**change))
  for read in (
    lambda: checkpoints.restore(tmp_path, 1, abstract),
    lambda: checkpoints.restore_latest(tmp_path, abstract, lambda line: None),
  ):
    with pytest.raises(ValueError, match=message) as error:
      read()
    assert 'of another program' in str(error.value)


def test_another_number_of_members_is_refused(tmp_path):
  _save(tmp_path, 1)
  other = dataclasses.replace(
    _state(), key=jax.random.split(jax.random.key(0), 3)
  )
  with pytest.raises(ValueError, match=r'key is key<fry>\[2\], expected'):
    checkpoints.restore(tmp_path, 1, _abstract(other))


@pytest.mark.parametrize('where', ['arrays', 'manifest', 'rename'])
def test_a_full_disk_leaves_the_older_checkpoints(tmp_path, monkeypatch, where):
  _save(tmp_path, 1, 2)
  before = {p: p.read_bytes() for p in _files(tmp_path)}

  def full(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  target, name = {
    'arrays': (checkpoints.ocp.StandardCheckpointHandler, 'async_save'),
    'manifest': (checkpoints.files, 'write_text'),
    'rename': (type(tmp_path), 'replace'),
  }[where]
  with monkeypatch.context() as patch:
    patch.setattr(target, name, full)
    with pytest.raises(
      OSError, match='checkpoint .*/3: .*No space left.*start again to resume'
    ):
      _save(tmp_path, 3, keep=1)
  assert {p: p.read_bytes() for p in _files(tmp_path)} == before
  said = []
  _, meta = checkpoints.restore_latest(tmp_path, _abstract(), said.append)
  assert meta['chunk'] == 2
  assert said == []


def test_the_manifest_names_every_array_and_file(tmp_path):
  _save(tmp_path, 1)
  manifest = json.loads((tmp_path / '1' / 'manifest.json').read_text())
  assert manifest['arrays'][".params['w']"] == 'float32[2, 3, 40]'
  assert len(manifest['arrays']) == len(jax.tree.leaves(_state()))
  named = {*manifest['files'], 'manifest.json'}
  assert named == {
    p.relative_to(tmp_path / '1').as_posix() for p in _files(tmp_path / '1')
  }


def test_num_parameters():
  tree = {'a': jnp.zeros((2, 3)), 'b': [jnp.zeros(()), jnp.zeros((0, 4))]}
  assert checkpoints.num_parameters(tree) == 7
