"""What every model must hold; a new file in models/ is tested on arrival."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pertjax import checkpoints, data, models, rng, train_step
from pertjax.data import sampling, statistics

TRAINED = [name for name in models.names() if name != 'baselines']


class Case(NamedTuple):
  config: Any
  data: Any
  spec: Any
  model: Any
  program: Any
  states: list
  metrics: list


_CASES: dict[str, Case] = {}


@pytest.fixture
def case(request, tiny_config) -> Case:
  """Trains a model for two chunks, once for all tests of it."""
  name = request.param
  if name in _CASES:
    return _CASES[name]
  config = tiny_config(name)
  arrays, spec = data.load(config)
  model = models.make(config.model, spec)
  (phase,) = train_step.phases_of(model, config)
  program = train_step.make_chunk(model, config, phase, config.train.steps)
  state = train_step.init_fleet(model, config, [0, 1], {}, model.consts)
  states, metrics = [_host(state)], []
  for _ in range(2):
    state, seen = program(state, arrays, model.consts)
    states.append(_host(state))
    metrics.append(jax.device_get(seen))
  _CASES[name] = Case(config, arrays, spec, model, program, states, metrics)
  return _CASES[name]


def _host(state):
  """Copies a state, since the next call is given its buffers."""
  return jax.tree.map(jnp.copy, state)


def _bytes(tree):
  return [
    np.asarray(jax.random.key_data(x) if _is_key(x) else x).tobytes()
    for x in jax.tree.leaves(tree)
  ]


def _is_key(x):
  return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _member(tree, k):
  return jax.tree.map(lambda x: x[k], tree)


def _batch(case, size=16):
  draw = sampling.get(case.model.sampling)
  return draw(jax.random.key(3), case.data, case.data.train, size)


def _fit(case, k=0):
  params = _member(case.states[2].best_params, k)
  if case.model.fit is None:
    return params
  pairs = statistics.pair_means(case.data, case.data.train)
  fit_data = statistics.FitData(case.data, pairs)
  return jax.jit(case.model.fit)(
    params, jax.random.key(0), fit_data, case.model.consts
  )


every = pytest.mark.parametrize('case', TRAINED, indirect=True)
# Models whose programs take long to compile: these tests of them are slow.
LARGE = ('discrepancy_vae', 'gene_set_autoencoder')
lasting = pytest.mark.parametrize(
  'case',
  [
    pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name
    for name in TRAINED
  ],
  indirect=True,
)


@every
def test_loss_is_finite_and_falls(case):
  losses = np.concatenate([m['loss'] for m in case.metrics])
  assert np.isfinite(losses).all()
  assert (losses[-10:].mean(0) < losses[:10].mean(0)).all()
  assert (case.metrics[-1]['failed_step'] == -1).all()


@every
def test_gradient_reaches_every_trainable_leaf(case):
  params = _member(case.states[0].params, 0)
  batch = _batch(case)
  labels = train_step.labels_of(case.model, params)
  for player, loss in case.model.losses.items():
    grads = jax.jit(jax.grad(lambda p, loss=loss: loss(
      p, jax.random.key(1), batch, case.model.consts, jnp.int32(0)
    )[0]))(params)  # fmt: skip
    for (path, leaf), label in zip(
      jax.tree_util.tree_leaves_with_path(grads), labels
    ):
      if label == player:
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
        assert np.any(np.asarray(leaf) != 0), jax.tree_util.keystr(path)


@lasting
def test_jit_equals_eager(case):
  params = _member(case.states[1].params, 0)
  batch = _batch(case)
  for loss in case.model.losses.values():

    def value(params, loss=loss):
      return loss(
        params, jax.random.key(1), batch, case.model.consts, jnp.int32(0)
      )[0]

    compiled, grads = jax.jit(jax.value_and_grad(value))(params)
    with jax.disable_jit():
      eager, eager_grads = jax.value_and_grad(value)(params)
    np.testing.assert_allclose(compiled, eager, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(eager_grads)):
      np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@every
def test_fleet_member_equals_its_solo_run(case):
  config, model = case.config, case.model
  phase = train_step.phases_of(model, config)[0]

  @jax.jit
  def steps(state):
    def step(state, _):
      return train_step.over_fleet(
        lambda m: train_step.train_step(
          model, config, phase, 60, m, case.data, model.consts
        ),
        state,
      )

    return jax.lax.scan(step, state, length=5)[0]

  fleet = steps(case.states[0])
  solo = steps(train_step.init_fleet(model, config, [1], {}, model.consts))
  for a, b in zip(jax.tree.leaves(fleet.params), jax.tree.leaves(solo.params)):
    np.testing.assert_allclose(a[1], b[0], rtol=1e-4, atol=1e-6)
  different = jax.tree.map(lambda x: np.any(x[0] != x[1]), fleet.params)
  assert any(jax.tree.leaves(different)), 'seeds must differ'


@every
def test_resume_is_bitwise(case, tmp_path):
  checkpoints.save(tmp_path, 1, case.states[1], {'chunk': 1}, keep=2)
  state, meta = checkpoints.restore(
    tmp_path, 1, jax.eval_shape(lambda: case.states[1])
  )
  assert meta == {'chunk': 1}
  assert _bytes(state) == _bytes(case.states[1])
  again, _ = case.program(state, case.data, case.model.consts)
  assert _bytes(again) == _bytes(case.states[2])


@lasting
def test_predict_shape_and_broadcast(case):
  params = _fit(case)
  source = _batch(case).target[:5]
  condition = data.arrays.conditions_at(
    case.data, case.data.test.pair_condition[:1], case.data.test.pair_group[:1]
  )
  one = case.model.predict(params, None, source, condition, case.model.consts)
  assert one.shape == source.shape
  assert one.dtype == jnp.float32
  assert np.isfinite(one).all()
  repeated = jax.tree.map(lambda x: jnp.repeat(x, 5, axis=0), condition)
  many = case.model.predict(params, None, source, repeated, case.model.consts)
  np.testing.assert_allclose(one, many, rtol=1e-5, atol=1e-6)


@every
def test_predict_depends_on_the_condition(case):
  params = _fit(case)
  source = _batch(case).target[:5]
  seen = [
    case.model.predict(
      params,
      None,
      source,
      data.arrays.conditions_at(
        case.data, jnp.array([c]), jnp.zeros(1, jnp.int32)
      ),
      case.model.consts,
    )
    for c in (1, 2)
  ]
  assert np.abs(seen[0] - seen[1]).max() > 1e-6


@lasting
def test_evaluation_loss_is_deterministic(case):
  params = _member(case.states[2].params, 0)
  batch = _batch(case)
  for loss in case.model.losses.values():
    args = (params, None, batch, case.model.consts, jnp.int32(0))
    assert float(loss(*args)[0]) == float(loss(*args)[0])


@every
def test_padding_does_not_count(case):
  params = _member(case.states[2].params, 0)
  batch = _batch(case)
  half = jnp.arange(16) < 8
  padded = batch._replace(weight=half.astype(jnp.float32))
  short = jax.tree.map(lambda x: x[:8], batch)
  for loss in case.model.losses.values():
    rest = (case.model.consts, jnp.int32(0))
    a = loss(params, None, padded, *rest)[0]
    b = loss(params, None, short, *rest)[0]
    np.testing.assert_allclose(a, b, rtol=1e-5)


@lasting
def test_bfloat16_computes_near_float32_on_float32_parameters(case):
  config = case.config.model.copy_and_resolve_references()
  config.dtype = 'bfloat16'
  model = models.make(config, case.spec)
  params = _member(case.states[2].params, 0)
  batch = _batch(case)
  for player, loss in case.model.losses.items():
    rest = (None, batch, case.model.consts, jnp.int32(0))
    exact = loss(params, *rest)[0]
    value, grads = jax.value_and_grad(
      lambda p, player=player, rest=rest: model.losses[player](p, *rest)[0]
    )(params)
    assert value != exact, 'bfloat16 must change the computation'
    np.testing.assert_allclose(value, exact, rtol=0.03)
    assert all(g.dtype == jnp.float32 for g in jax.tree.leaves(grads))


@every
def test_a_seed_is_a_seed(case):
  again = train_step.init_fleet(
    case.model, case.config, [0, 1], {}, case.model.consts
  )
  assert _bytes(again.params) == _bytes(case.states[0].params)
  other = train_step.init_fleet(
    case.model, case.config, [5, 6], {}, case.model.consts
  )
  assert _bytes(other.params) != _bytes(again.params)


@every
def test_nothing_is_drawn_outside_the_training_cells(case):
  """Values of other cells may be anything: the step must not see them."""
  rows = case.data.train
  inside = np.zeros(case.data.cells.shape[0], bool)
  inside[np.asarray(rows.perturbed)] = True
  inside[np.asarray(rows.control)] = True
  values = np.where(
    inside[:, None], np.asarray(case.data.cells.values), np.float32(np.nan)
  )
  poisoned = dataclasses.replace(
    case.data, cells=data.arrays.DenseCells(jnp.asarray(values))
  )
  draw = sampling.get(case.model.sampling)
  for number in range(20):
    key = rng.stream(jax.random.key(number), rng.BATCH)
    batch = draw(key, poisoned, poisoned.train, 64)
    assert np.isfinite(batch.target).all()
    assert batch.source is None or np.isfinite(batch.source).all()
  if case.model.fit is not None:
    pairs = statistics.pair_means(poisoned, poisoned.train)
    params = _member(case.states[2].best_params, 0)
    fitted = jax.jit(case.model.fit)(
      params,
      jax.random.key(0),
      statistics.FitData(poisoned, pairs),
      case.model.consts,
    )
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(fitted))
