"""What is packed can be unpacked, and fits."""

import base64

import numpy as np
import pytest

from pertjax.report import pack, read


def unpack(packed):
  data = base64.b64decode(packed['data'])
  return np.frombuffer(data, packed['dtype']).reshape(packed['shape'])


def make_profiles(pairs=3, genes=500, models=2, seed=0):
  rng = np.random.default_rng(seed)
  return read.Profiles(
    pairs=tuple(f'c{i}|all' for i in range(pairs)),
    models=tuple(f'm{i}' for i in range(models)),
    genes=tuple(f'g{i}' for i in range(genes)),
    observed=rng.normal(2, 1, (pairs, genes)).astype(np.float32),
    control=rng.normal(2, 1, (pairs, genes)).astype(np.float32),
    predicted=rng.normal(2, 1, (models, pairs, genes)).astype(np.float32),
  )


def test_arrays_come_back():
  for dtype in (np.float32, np.int16, np.uint16):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    np.testing.assert_array_equal(unpack(pack.pack(array.T)), array.T)


def test_plain_numbers_are_exact():
  values = np.array([[0.1, np.nan], [3.0, np.inf]])
  assert pack.plain(values) == [0.1, None, 3, None]


def test_profiles_keep_the_most_changed_genes():
  profiles = make_profiles()
  packed, note = pack.pack_profiles(profiles, 1e6)
  assert note is None
  index, scale = unpack(packed['index']), unpack(packed['scale'])
  observed = unpack(packed['observed']) * scale[:, None]
  predicted = unpack(packed['predicted']) * scale[:, None]
  assert index.shape == (3, pack.MOST_GENES)
  truth = profiles.observed - profiles.control
  guess = profiles.predicted - profiles.control
  for p in range(3):
    genes = np.array([packed['genes'][i] for i in index[p]])
    assert len(set(genes)) == len(genes)
    columns = np.array([int(g[1:]) for g in genes])
    top = np.argsort(-np.abs(truth[p]), kind='stable')[:120]
    np.testing.assert_array_equal(columns[:120], top)
    # The gene that a model changes most is there even if it is unchanged.
    assert np.abs(guess[:, p]).max(0).argmax() in columns
    atol = float(scale[p])
    np.testing.assert_allclose(observed[p], truth[p, columns], atol=atol)
    np.testing.assert_allclose(predicted[:, p], guess[:, p, columns], atol=atol)


def test_profiles_with_few_genes_show_all():
  packed, _ = pack.pack_profiles(make_profiles(genes=30), 1e6)
  assert packed['index']['shape'] == [3, 30]
  assert packed['total_genes'] == 30


def test_undefined_predictions_stay_undefined():
  profiles = make_profiles(genes=30)
  profiles.predicted[0, 1] = np.nan
  packed, _ = pack.pack_profiles(profiles, 1e6)
  predicted = unpack(packed['predicted'])
  assert (predicted[0, 1] == -32768).all()
  assert (predicted[1, 1] != -32768).all()


def test_profiles_shrink_with_the_room():
  profiles = make_profiles(pairs=60)
  sizes = []
  for room in (2e6, 60_000, 20_000, 5_000):
    packed, note = pack.pack_profiles(profiles, room)
    arrays = ('index', 'observed', 'predicted')
    size = sum(len(packed[key]['data']) for key in arrays)
    assert size <= room * 1.05
    sizes.append((len(packed['pairs']), packed['index']['shape'][1]))
    assert (note is None) == (len(packed['pairs']) == 60)
  assert sizes[0] == (60, 240)
  assert sizes[1][0] == 60
  assert 24 <= sizes[1][1] < 240
  assert sizes[3][0] < 60
  assert pack.pack_profiles(profiles, 0) == (
    None,
    'Predictions are drawn for 0 of 60 conditions, to keep this page small; '
    'all are in eval/profiles.npz.',
  )


@pytest.mark.parametrize('count', [10, 5000])
def test_thinned_curves_keep_their_spikes(count):
  values = np.sin(np.arange(count) / 50)
  values[count // 3] = 40
  values[count // 2] = -40
  curves = {'train_loss': {2: (np.arange(count, dtype=float), values)}}
  packed = pack.pack_curves(curves)
  assert packed['thinned'] == (count > 300)
  (curve,) = packed['series']['train_loss']
  assert curve['member'] == 2
  assert len(curve['steps']) <= 302
  assert {40, -40} <= set(curve['values'])
  assert curve['steps'][0] == 0
  assert curve['steps'][-1] == count - 1
  assert curve['steps'] == sorted(curve['steps'])
