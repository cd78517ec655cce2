"""The registry, what every metric of rows must hold to, and the table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy import testing

from pertjax import metrics
from pertjax.metrics import registry

# Metrics of other things (cells, test tables) have contracts where they are
# tested; these are the ones of aggregate rows.
ROW_INPUTS = {'predicted', 'observed', 'control'}
ROW_METRICS = [m for m in metrics.list_metrics() if set(m.needs) <= ROW_INPUTS]
each_metric = pytest.mark.parametrize(
  'entry', ROW_METRICS, ids=[m.name for m in ROW_METRICS]
)
CONDITIONS, GENES = 12, 40
GROUPS = np.repeat([0, 1, 2], [5, 4, 3])


def make_inputs(noise=0.5, seed=0):
  generator = np.random.default_rng(seed)
  control = 1 + generator.gamma(1, 1, (3, GENES))[GROUPS]
  observed = control + generator.normal(size=(CONDITIONS, GENES))
  error = generator.normal(size=observed.shape)
  rows = {
    'predicted': observed + noise * error,
    'observed': observed,
    'control': control,
  }
  return {name: x.astype(np.float32) for name, x in rows.items()}


def evaluate(entry, inputs, **options):
  options = {k: v for k, v in options.items() if k in entry.options}
  if 'groups' in entry.options:
    options['groups'] = GROUPS
  return entry.function(**{k: inputs[k] for k in entry.needs}, **options)


# ----------------------------------------------------------------------------
# Slow references: one condition at a time, float64, on the genes of its mask.


def slow_row(name, a, b, control):
  if name == 'pearson_delta':
    return np.corrcoef(a - control, b - control)[0, 1]
  if name == 'top_k_recall':
    top = [set(np.argsort(-np.abs(x))[:20]) for x in (a, b)]
    return len(top[0] & top[1]) / 20
  return {
    'mse': lambda: np.mean((a - b) ** 2),
    'rmse': lambda: np.sqrt(np.mean((a - b) ** 2)),
    'l2': lambda: np.linalg.norm(a - b),
    'mae': lambda: np.mean(np.abs(a - b)),
    'cosine': lambda: a @ b / np.linalg.norm(a) / np.linalg.norm(b),
    'pearson': lambda: np.corrcoef(a, b)[0, 1],
    'r2': lambda: 1 - np.sum((a - b) ** 2) / np.sum((b - b.mean()) ** 2),
  }[name]()


def slow(entry, inputs, mask):
  """The metric of every condition by loops."""
  wide = {k: x.astype(np.float64) for k, x in inputs.items()}
  name = entry.name.removesuffix('_rank')
  higher = metrics.get(name).direction == 'higher'

  def compare(i, j):
    kept = mask[j]
    rows = wide['predicted'][i], wide['observed'][j], wide['control'][j]
    return slow_row(name, *(x[kept] for x in rows))

  if name == entry.name:
    return [compare(j, j) for j in range(CONDITIONS)]
  values = []
  for j in range(CONDITIONS):
    rivals = [i for i in np.flatnonzero(GROUPS[j] == GROUPS) if i != j]
    own = compare(j, j)
    closer = [
      compare(i, j) > own if higher else compare(i, j) < own for i in rivals
    ]
    values.append(np.mean(closer))
  return values


# ----------------------------------------------------------------------------
# Contracts.


def test_there_are_row_metrics():
  names = {m.name for m in ROW_METRICS}
  assert set(metrics.TABLE_METRICS) <= names
  assert {'l2', 'pearson_delta'} <= names


@each_metric
def test_entry_is_complete(entry):
  assert entry.direction in registry.DIRECTIONS
  assert np.isfinite(entry.best)
  assert entry.version >= 1
  assert entry.reference
  assert 'mask' in entry.options
  assert registry.get(entry.name) is entry


@each_metric
def test_perfect_prediction_has_the_best_value(entry):
  inputs = make_inputs(noise=0)
  testing.assert_allclose(evaluate(entry, inputs), entry.best, atol=1e-6)


@each_metric
def test_direction(entry):
  near, far = (
    np.mean(evaluate(entry, make_inputs(noise))) for noise in (0.5, 5)
  )
  assert near > far if entry.direction == 'higher' else near < far


@each_metric
def test_gene_order_changes_nothing(entry):
  inputs = make_inputs()
  order = np.random.default_rng(1).permutation(GENES)
  permuted = {k: x[:, order] for k, x in inputs.items()}
  testing.assert_allclose(
    evaluate(entry, permuted), evaluate(entry, inputs), rtol=1e-5, atol=1e-6
  )


@each_metric
def test_agrees_with_a_slow_reference(entry):
  inputs = make_inputs(noise=2)
  mask = np.ones((CONDITIONS, GENES), bool)
  testing.assert_allclose(
    evaluate(entry, inputs), slow(entry, inputs, mask), rtol=1e-5, atol=1e-6
  )


@each_metric
@pytest.mark.parametrize('shared', [True, False])
def test_mask_is_respected(entry, shared):
  inputs = make_inputs(noise=2)
  generator = np.random.default_rng(2)
  mask = generator.permuted(
    np.tile(np.arange(GENES) < 28, (CONDITIONS, 1)), axis=1
  )
  if shared:
    mask[:] = mask[:1]
  expected = slow(entry, inputs, mask)
  # What does not count is not read.
  hidden = {k: np.where(mask, x, np.nan) for k, x in inputs.items()}
  given = mask[0] if shared else mask
  if not shared and entry.name.endswith('_rank'):
    hidden = inputs  # Other conditions need what this one's mask hides.
  found = evaluate(entry, hidden, mask=given)
  testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  plain = evaluate(entry, inputs)
  assert not np.allclose(found, plain)


@each_metric
def test_compiled_is_eager(entry):
  inputs = make_inputs(noise=2)
  mask = np.arange(GENES) % 3 > 0
  compiled = jax.jit(functools.partial(evaluate, entry))(inputs, mask=mask)
  eager = evaluate(entry, inputs, mask=mask)
  testing.assert_allclose(compiled, eager, rtol=1e-5, atol=1e-6)


@each_metric
def test_nan_prediction_is_nan_or_last(entry):
  inputs = make_inputs(noise=0.1)
  inputs['predicted'][2, 5] = np.nan
  found = np.asarray(evaluate(entry, inputs))
  rest = np.arange(CONDITIONS) != 2
  assert np.isfinite(found[rest]).all()
  if entry.name.endswith('_rank'):
    assert found[2] == 1
  else:
    assert np.isnan(found[2])


# ----------------------------------------------------------------------------
# The registry itself.


@pytest.fixture
def _restored(monkeypatch):
  """Lets a test register metrics that the next test does not see."""
  monkeypatch.setattr(registry, '_METRICS', dict(registry._METRICS))
  monkeypatch.setattr(registry, '_NAMES', dict(registry._NAMES))


@pytest.mark.usefixtures('_restored')
def test_a_metric_is_recorded():
  @registry.metric(
    name='largest_error',
    aliases=('max_error',),
    best=0.0,
    direction='lower',
    reference='here',
    version=3,
  )
  def largest_error(predicted, observed, *, mask=None):
    del mask
    return jnp.max(jnp.abs(predicted - observed), axis=-1)

  entry = metrics.get('max_error')
  assert entry.function is largest_error
  assert entry.name == 'largest_error'
  assert (entry.needs, entry.options) == (('predicted', 'observed'), ('mask',))
  assert (entry.version, entry.chance) == (3, None)
  assert entry in metrics.list_metrics()
  assert entry(jnp.ones(3), jnp.zeros(3)) == 1
  with pytest.raises(AttributeError):
    entry.best = 1.0


@pytest.mark.usefixtures('_restored')
@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'name': 'rmse'}, "'rmse' is taken by the metric 'rmse'"),
    ({'aliases': ('r2_score',)}, "'r2_score' is taken by the metric 'r2'"),
    ({'direction': 'up'}, "'higher', 'lower'"),
    ({'needs': ('predicted', 'cells')}, r"requires \('predicted', 'observed'"),
  ],
)
def test_what_cannot_be_recorded(changes, message):
  entry = {'name': 'new', 'best': 0.0, 'direction': 'lower', 'reference': 'x'}
  before = metrics.list_metrics()
  with pytest.raises(ValueError, match=message):
    registry.metric(**entry | changes)(lambda predicted, observed: 0)
  assert metrics.list_metrics() == before


def test_unknown_name_names_the_closest():
  with pytest.raises(ValueError, match=r"'rsme'; closest: .*rmse"):
    metrics.get('rsme')
  assert metrics.get('r2_score').name == 'r2'


def test_names_are_sorted_and_unique():
  names = [m.name for m in metrics.list_metrics()]
  assert names == sorted(set(names))


# ----------------------------------------------------------------------------
# The table.


def masks():
  top = np.argsort(np.random.default_rng(3).random((CONDITIONS, GENES)))
  return {
    'all': None,
    'top25': top < 25,
    'top5': top < 5,  # Few enough to be gathered.
    'half': np.arange(GENES) % 2 == 0,
  }


def test_table_is_its_metrics():
  inputs = make_inputs()
  names = ('mae', 'r2', 'top_k_recall', 'cosine_rank', 'mae_rank')
  found = metrics.table(
    **inputs, groups=GROUPS, gene_masks=masks(), metrics=names
  )
  assert len(found) == len(metrics.AGGREGATES) * len(masks()) * len(names)
  changes = {
    'average': lambda x: x,
    'delta': lambda x: x - inputs['control'],
    'logfc': lambda x: metrics.logfc(np.maximum(x, 0), inputs['control']),
  }
  for aggregate, change in changes.items():
    rows = {k: np.asarray(change(x)) for k, x in inputs.items()}
    for genes, mask in masks().items():
      for name in names:
        expected = evaluate(metrics.get(name), rows, mask=mask)
        testing.assert_allclose(
          found[aggregate, genes, name], expected, rtol=1e-4, atol=1e-5
        )


def test_table_of_models():
  inputs = make_inputs()
  models = np.stack([make_inputs(x)['predicted'] for x in (0, 0.5, 3)])
  call = functools.partial(
    metrics.table,
    **{k: inputs[k] for k in ('observed', 'control')},
    groups=GROUPS,
    metrics=('r2_score', 'pearson_delta', 'mae_rank'),
  )
  together, mapped = call(models), jax.vmap(call)(models)
  for i, model in enumerate(models):
    alone = call(model)
    assert alone.keys() == together.keys() == mapped.keys()
    for key, values in alone.items():
      assert values.shape == (CONDITIONS,)
      close = {'rtol': 1e-5, 'atol': 1e-5}
      testing.assert_allclose(together[key][i], values, **close)
      testing.assert_allclose(mapped[key][i], values, **close)
  # pearson_delta takes the control away itself; of a delta it is pearson.
  testing.assert_allclose(
    together['average', 'all', 'pearson_delta'],
    together['delta', 'all', 'pearson_delta'],
    rtol=1e-5,
    atol=1e-5,
  )


def test_table_options_arrive():
  inputs = make_inputs(noise=2)
  call = functools.partial(
    metrics.table, **inputs, groups=GROUPS, aggregates=('delta',)
  )
  names = ('r2', 'top_k_recall', 'rmse_rank', 'r2_rank')
  plain = call(metrics=names)
  other = call(metrics=names, rank_denominator='n', r2_swapped=True, top_k=3)
  for name in names:
    key = 'delta', 'all', name
    assert not np.allclose(plain[key], other[key]), name
  sizes = np.bincount(GROUPS)[GROUPS]
  key = 'delta', 'all', 'rmse_rank'
  testing.assert_allclose(
    other[key] * sizes, plain[key] * (sizes - 1), rtol=1e-5
  )


def test_table_of_negative_expression():
  inputs = make_inputs()
  inputs = {k: np.abs(x) for k, x in inputs.items()}
  inputs['predicted'][3, 0] = -0.5
  call = functools.partial(
    metrics.table, **inputs, groups=GROUPS, metrics=('mae', 'mae_rank')
  )
  key = 'logfc', 'all', 'mae'
  # Below zero counts as zero, unless asked otherwise.
  floored = inputs['predicted'].copy()
  floored[3, 0] = 0
  expected = call(predicted=floored)
  testing.assert_allclose(call()[key], expected[key], rtol=1e-6)
  found = call(logfc_floor=-np.inf)
  assert np.isnan(found[key]).nonzero()[0].tolist() == [3]
  assert found['logfc', 'all', 'mae_rank'][3] == 1
  found = call(logfc_floor=-np.inf, logfc_undefined=0.0)
  assert np.isfinite(found[key]).all()


def test_table_with_controls_of_the_prediction():
  inputs = make_inputs()
  own = inputs['control'] + 1
  shifted = inputs | {'predicted': inputs['predicted'] + 1}
  call = functools.partial(metrics.table, groups=GROUPS, metrics=('mae',))
  found = call(**shifted, predicted_control=own)
  plain = call(**inputs)
  key = 'delta', 'all', 'mae'
  testing.assert_allclose(found[key], plain[key], rtol=1e-4)
  key = 'average', 'all', 'mae'
  testing.assert_allclose(found[key], call(**shifted)[key], rtol=1e-6)
  key = 'logfc', 'all', 'mae'
  rows = (
    metrics.logfc(np.maximum(x, 0), c)
    for x, c in (
      (shifted['predicted'], own),
      (inputs['observed'], inputs['control']),
    )
  )
  testing.assert_allclose(found[key], metrics.mae(*rows), rtol=1e-4)
  # Models may bring one each.
  models = np.stack([shifted['predicted'], inputs['predicted']])
  each = call(
    **inputs | {'predicted': models},
    predicted_control=np.stack([own, inputs['control']]),
  )
  key = 'delta', 'all', 'mae'
  testing.assert_allclose(each[key], [found[key], plain[key]], rtol=1e-4)
  with pytest.raises(ValueError, match=r'predicted_control .*\(40,\)'):
    call(**inputs, predicted_control=np.zeros(GENES))


def test_table_of_control_predictions():
  inputs = make_inputs()
  inputs['predicted'] = inputs['control']
  found = metrics.table(**inputs, groups=GROUPS)
  assert set(found) == {
    (aggregate, 'all', name)
    for aggregate in metrics.AGGREGATES
    for name in metrics.TABLE_METRICS
  }
  for name in ('cosine', 'pearson'):
    assert np.isnan(found['logfc', 'all', name]).all()
    testing.assert_array_equal(found['delta', 'all', f'{name}_rank'], 0.5)
  testing.assert_array_equal(found['average', 'all', 'rmse_rank'], 0.5)
  testing.assert_allclose(
    found['delta', 'all', 'top_k_recall'], 20 / GENES, rtol=1e-5
  )


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'metrics': ('cosin',)}, 'closest: cosine'),
    ({'aggregates': ('lfc',)}, "'average', 'delta', 'logfc'"),
    ({'groups': GROUPS[:3]}, r'\(3,\)'),
    ({'control': np.zeros(GENES)}, r'\(40,\)'),
    ({'gene_masks': {'top': np.ones(3, bool)}}, 'same genes'),
    ({'rank_denominator': 'p'}, "'n', 'n-1'"),
  ],
)
def test_table_errors(changes, message):
  inputs = make_inputs() | {'groups': GROUPS, 'metrics': ('mse', 'mse_rank')}
  with pytest.raises(ValueError, match=message):
    metrics.table(**inputs | changes)


@pytest.mark.usefixtures('_restored')
def test_table_refuses_what_it_cannot_feed():
  entry = {'best': 0.0, 'direction': 'lower', 'reference': 'here'}
  registry.metric(name='of_cells', needs=('cells',), **entry)(lambda cells: 0)
  registry.metric(name='unmasked', **entry)(lambda predicted, observed: 0)
  call = functools.partial(metrics.table, **make_inputs(), groups=GROUPS)
  with pytest.raises(ValueError, match="'of_cells' needs cells"):
    call(metrics=('of_cells',))
  with pytest.raises(ValueError, match="'unmasked' takes no gene mask.*top25"):
    call(metrics=('unmasked',), gene_masks=masks())
