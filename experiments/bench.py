"""Measure speed, beside the floor measured in the same process.

  python -m experiments.bench train [--quick]
  python -m experiments.bench metrics [--quick] [--peer=PYTHON] [--only=NAME]
  python -m experiments.bench sena [--quick]

Every figure is a median of interleaved repeats, so that a drifting machine
drifts for both sides. Results are appended to experiments/results/bench.jsonl.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import resource
import statistics as stats
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import bench_metrics, bench_sena
from pertjax import config as config_lib
from pertjax import models, rng, train_step, types
from pertjax.data import arrays

RESULTS = pathlib.Path(__file__).parent / 'results' / 'bench.jsonl'


def fake_data(num_cells, num_genes, num_perturbations, *, density=0.15):
  """Makes Norman-like arrays of random values; only sizes matter here."""
  random = np.random.default_rng(0)
  values = random.random((num_cells, num_genes), np.float32)
  values = np.where(values < density, values * 10, 0).astype(np.float32)
  condition = random.integers(0, num_perturbations + 1, num_cells)
  condition[: num_cells // 10] = 0
  names = tuple(f'P{i:04d}' for i in range(num_perturbations))
  conditions = types.Conditions(
    ('control', *names),
    ((), *((n,) for n in names)),
    ((), *((1.0,) for _ in names)),
  )
  group = np.zeros(num_cells, np.int64)
  ids, doses = arrays.condition_tables(conditions, names, order=2)
  held = random.random(num_cells)
  rows = [
    arrays.make_rows((held >= a) & (held < b), condition, group, 1)
    for a, b in ((0, 0.9), (0.9, 0.9), (0.95, 1))
  ]
  data = arrays.PerturbArrays(
    cells=arrays.DenseCells(jnp.asarray(values)),
    condition=jnp.asarray(condition, jnp.int32),
    group=jnp.asarray(group, jnp.int32),
    condition_perturbations=jnp.asarray(ids),
    condition_doses=jnp.asarray(doses),
    group_covariates=jnp.zeros((1, 0), jnp.int32),
    train=rows[0],
    val=rows[1],
    test=rows[2],
    partner=jnp.zeros((0,), jnp.int32),
  )
  spec = types.DataSpec(
    name='bench',
    genes=tuple(f'G{i}' for i in range(num_genes)),
    perturbations=names,
    perturbation_genes=(-1,) * len(names),
    conditions=conditions,
    covariates=(),
    groups=((),),
    cell_names=np.arange(num_cells),
    trained=(True,) * len(names),
    split=types.Split(np.zeros(0, np.int8), {}, 'cells', ''),
    fingerprint='',
    source={},
  )
  return data, spec, values


def seconds(function) -> float:
  """Returns the wall time of one call, waiting for its result."""
  began = time.perf_counter()
  jax.block_until_ready(function())
  return time.perf_counter() - began


def matmul_floor(shapes):
  """Returns (functions that do nothing but the products, total flops).

  Args:
    shapes: (batch, in, out, whether the input needs a gradient).
  """
  functions, flops = [], 0
  multiply = jax.jit(jnp.dot)
  left = jax.jit(lambda a, b: jnp.dot(a.T, b))
  right = jax.jit(lambda a, b: jnp.dot(a, b.T))
  for batch, width, out, needs_input in shapes:
    x, w = jnp.ones((batch, width)), jnp.ones((width, out))
    y = jnp.ones((batch, out))
    parts = [(multiply, x, w), (left, x, y)]
    if needs_input:
      parts.append((right, y, w))
    for function, a, b in parts:
      jax.block_until_ready(function(a, b))
      functions.append(lambda f=function, a=a, b=b: f(a, b))
      flops += 2 * batch * width * out
  return functions, flops


def product_loop(shapes, steps):
  """Compiles a scan over the products of one step and nothing else.

  For small shapes, where one call per product would measure the calls. Each
  product depends on the one before, as in a step.

  Args:
    shapes: as in matmul_floor.
    steps: length of the scan.
  """
  arguments = [
    (jnp.ones((b, i)), jnp.ones((i, o)), jnp.ones((b, o)))
    for b, i, o, _ in shapes
  ]

  def step(total, _):
    for (x, w, y), (*_, needs_input) in zip(arguments, shapes):
      x, y = x + total, y + total
      parts = [x @ w, x.T @ y, *([y @ w.T] if needs_input else [])]
      total = total + 1e-30 * sum(p[0, 0] for p in parts)
    return total, None

  return jax.jit(lambda start: jax.lax.scan(step, start, length=steps)[0])


def _record(row) -> None:
  row = {
    'device': jax.devices()[0].device_kind,
    'jax': jax.__version__,
    'machine': f'{platform.machine()}, {len(jax.devices())} device(s)',
    'peak_memory_gib': round(
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2
    ),
    **row,
  }
  RESULTS.parent.mkdir(exist_ok=True)
  with RESULTS.open('a', encoding='utf-8') as file:
    file.write(json.dumps(row) + '\n')
  print(json.dumps(row, indent=2))


def bench_latent_additive(repeats: int, *, width: int, batch: int) -> None:
  """LatentAdditive at its published Norman size against its own products."""
  genes, perturbations, latent = 5000, 131, 64
  config = config_lib.default('latent_additive', 'cells')
  config.model.update(num_layers=1, width=width, latent_dim=latent, dropout=0.1)
  config.optimizer.learning_rate = 6.7796e-5
  config.optimizer.weight_decay = 1.0407e-8
  config.train.update(batch_size=batch, chunk=2, steps=1000)
  data, spec, _ = fake_data(12_000, genes, perturbations)
  model = models.make(config.model, spec)
  (phase,) = train_step.phases_of(model, config)
  program = train_step.make_chunk(model, config, phase, 1000)
  state = train_step.init_fleet(model, config, [0], {}, model.consts)
  parameters = sum(x.size for x in jax.tree.leaves(state.params))
  began = time.perf_counter()
  compiled = program.lower(state, data, model.consts).compile()
  compile_seconds = time.perf_counter() - began
  floor, flops = matmul_floor(
    [
      (batch, genes, width, False),
      (batch, width, latent, True),
      (batch, perturbations, width, False),
      (batch, width, latent, True),
      (batch, latent, width, True),
      (batch, width, genes, True),
    ]
  )
  holder = [state]

  def chunk():
    holder[0], metrics = compiled(holder[0], data, model.consts)
    return metrics

  seconds(chunk)
  step, product = [], []
  for _ in range(repeats):
    step.append(seconds(chunk) / config.train.chunk)
    product.append(sum(seconds(f) for f in floor))
  share = stats.median(p / s for p, s in zip(product, step))
  middle = stats.median(step)
  _record(
    {
      'bench': 'train latent_additive',
      'parameters': parameters,
      'genes': genes,
      'width': width,
      'batch': batch,
      'compile_seconds': round(compile_seconds, 2),
      'steps_per_second': round(1 / middle, 4),
      'cells_per_second': round(batch / middle, 1),
      'gflops_of_step': round(flops / middle / 1e9, 1),
      'gflops_of_products': round(flops / stats.median(product) / 1e9, 1),
      'share_of_product_rate': round(share, 3),
      'repeats': repeats,
    }
  )


def bench_vae(repeats: int, *, width: int, latent: int, batch: int) -> None:
  """A small VAE: the compiled loop against a host loop with host batches."""
  genes, steps = 2000, 100
  config = config_lib.default('vae', 'cells')
  config.model.update(width=width, latent_dim=latent)
  config.train.update(batch_size=batch, chunk=steps, steps=100_000)
  data, spec, values = fake_data(20_000, genes, 100)
  model = models.make(config.model, spec)
  (phase,) = train_step.phases_of(model, config)
  program = train_step.make_chunk(model, config, phase, 100_000)
  state = train_step.init_fleet(model, config, [0], {}, model.consts)
  parameters = sum(x.size for x in jax.tree.leaves(state.params))
  began = time.perf_counter()
  compiled = program.lower(state, data, model.consts).compile()
  compile_seconds = time.perf_counter() - began
  holder = [state]

  def chunk():
    holder[0], metrics = compiled(holder[0], data, model.consts)
    return metrics

  host = _HostLoop(model, config, data, values)
  products = product_loop(
    [
      (batch, genes, width, False),
      (batch, width, width, True),
      (batch, width, latent, True),
      (batch, width, latent, True),
      (batch, latent, width, True),
      (batch, width, width, True),
      (batch, width, genes, True),
    ],
    steps,
  )
  seconds(chunk)
  seconds(lambda: products(jnp.float32(0)))
  host.run(3)
  members = 8
  fleet = [
    train_step.init_fleet(model, config, range(members), {}, model.consts)
  ]

  def fleet_chunk():
    fleet[0], metrics = program(fleet[0], data, model.consts)
    return metrics

  seconds(fleet_chunk)
  ours, theirs, floor, many = [], [], [], []
  for _ in range(repeats):
    ours.append(seconds(chunk) / steps)
    many.append(seconds(fleet_chunk) / steps / members)
    floor.append(seconds(lambda: products(jnp.float32(0))) / steps)
    began = time.perf_counter()
    host.run(steps // 4)
    theirs.append((time.perf_counter() - began) / (steps // 4))
  _record(
    {
      'bench': 'train vae',
      'parameters': parameters,
      'genes': genes,
      'width': width,
      'batch': batch,
      'compile_seconds': round(compile_seconds, 2),
      'steps_per_second': round(1 / stats.median(ours), 1),
      'host_steps_per_second': round(1 / stats.median(theirs), 1),
      'seed_steps_per_second_of_a_fleet_of_8': round(1 / stats.median(many), 1),
      'cells_per_second': round(batch / stats.median(ours), 1),
      'share_of_product_rate': round(
        stats.median(f / o for f, o in zip(floor, ours)), 3
      ),
      'times_host_loop': round(
        stats.median(t / o for t, o in zip(theirs, ours)), 2
      ),
      'fleet_times_host_loop': round(
        stats.median(t / m for t, m in zip(theirs, many)), 2
      ),
      'repeats': repeats,
    }
  )


class _HostLoop:
  """The same step as most repositories drive it: one call a batch.

  The batch is gathered from a sparse matrix on the host, made dense and copied;
  the step is jitted; the loss is fetched every step, for the progress bar.
  """

  def __init__(self, model, config, data, values):
    from scipy import sparse

    self._matrix = sparse.csr_matrix(values)
    self._random = np.random.default_rng(0)
    self._size = config.train.batch_size
    self._condition = np.asarray(data.condition)
    self._tables = data
    tx = optax.chain(
      optax.add_decayed_weights(config.optimizer.weight_decay),
      optax.adam(config.optimizer.learning_rate, eps=config.optimizer.eps),
    )
    self._params = model.init(jax.random.key(0), model.consts)
    self._opt = tx.init(self._params['network'])
    self._key = jax.random.key(1)

    @jax.jit
    def step(params, opt, key, batch):
      def loss(network):
        return model.losses['model'](
          {**params, 'network': network}, key, batch, model.consts, jnp.int32(0)
        )

      (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(
        params['network']
      )
      updates, opt = tx.update(grads, opt, params['network'])
      network = optax.apply_updates(params['network'], updates)
      return {'network': network, **aux.state}, opt, value

    self._step = step

  def run(self, steps):
    for number in range(steps):
      rows = self._random.integers(0, self._matrix.shape[0], self._size)
      condition = arrays.conditions_at(
        self._tables,
        jnp.asarray(self._condition[rows]),
        jnp.zeros(self._size, jnp.int32),
      )
      batch = types.Batch(
        jnp.asarray(self._matrix[rows].toarray()),
        None,
        condition,
        jnp.ones(self._size),
      )
      key = rng.stream(self._key, rng.LOSS, number)
      self._params, self._opt, value = self._step(
        self._params, self._opt, key, batch
      )
      float(value)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('what', choices=['train', 'metrics', 'sena'])
  parser.add_argument('--quick', action='store_true', help='small sizes')
  parser.add_argument(
    '--peer', default='', help='a Python that has the other tool installed'
  )
  parser.add_argument('--only', default='', help='one part of metrics')
  options = parser.parse_args()
  if options.what == 'metrics':
    bench_metrics.main(options, _record)
    return
  if options.what == 'sena':
    bench_sena.main(options, _record, fake_data, product_loop)
    return
  repeats = 3 if options.quick else 5
  if options.quick:
    bench_latent_additive(repeats, width=512, batch=512)
  else:
    bench_latent_additive(repeats, width=5376, batch=4000)
  for width, latent, batch in ((800, 100, 32), (128, 32, 32), (32, 10, 32)):
    bench_vae(repeats, width=width, latent=latent, batch=batch)


if __name__ == '__main__':
  main()
