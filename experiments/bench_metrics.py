"""Speed of scoring, beside the tools that the conventions come from.

  python -m experiments.bench metrics [--peer=PYTHON] [--only=NAME] [--quick]

A peer is an interpreter that has the tool installed; ours and the peer's runs
take turns. Ours is the whole call that a user makes, from two AnnData in memory
to the table with intervals, compilation excluded and stated.
"""

from __future__ import annotations

import pathlib
import resource
import statistics as stats
import subprocess
import sys
import tempfile
import time

import anndata
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy import sparse

from pertjax import metrics
from pertjax.metrics import anndata as front
from pertjax.metrics import ranks
from pertjax.metrics.distribution import permutation

HERE = pathlib.Path(__file__).parent


def screen(conditions, cells, controls, genes, *, density, seed=0, side=0):
  """Makes counts of a screen as CSR, and the condition of each cell."""
  random = np.random.default_rng(seed)
  level = random.gamma(0.6, 1.0, genes)
  level *= -np.log1p(-density) / level.mean()
  effects = np.random.default_rng(seed + 1).normal(0, 0.4, (conditions, genes))
  effects *= np.random.default_rng(seed + 2).random(effects.shape) < 0.1
  random = np.random.default_rng(seed + 3 + side)
  blocks = [sparse.csr_matrix(random.poisson(level, (controls, genes)))]
  labels = ['ctrl'] * controls
  for number, effect in enumerate(effects):
    rate = level * np.exp(effect * (0.8 if side else 1.0))
    blocks.append(sparse.csr_matrix(random.poisson(rate, (cells, genes))))
    labels += [f'G{number:04d}'] * cells
  return sparse.vstack(blocks, format='csr').astype(np.float32), labels


def adata_of(counts, labels, *, logarithm):
  """Makes an AnnData of counts, or of ln(1 + x) of ten thousand a cell."""
  values = counts
  if logarithm:
    scale = 1e4 / np.maximum(np.asarray(counts.sum(1)).ravel(), 1)
    values = sparse.diags(scale.astype(np.float32)) @ counts
    values.data = np.log1p(values.data).astype(np.float32)
  return anndata.AnnData(
    values.tocsr(),
    obs=pd.DataFrame(
      {'target': pd.Categorical(labels)},
      index=[f'c{i}' for i in range(len(labels))],
    ),
    var=pd.DataFrame(index=[f'G{i:04d}' for i in range(counts.shape[1])]),
  )


class Peer:
  """Another tool in its own process."""

  def __init__(self, python, real, predicted):
    self._folder = tempfile.TemporaryDirectory()
    paths = []
    for name, adata in (('real', real), ('predicted', predicted)):
      paths.append(f'{self._folder.name}/{name}.h5ad')
      adata.write_h5ad(paths[-1])
    self._process = subprocess.Popen(
      [python, str(HERE / 'peers.py'), *paths],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def seconds(self, task) -> float:
    """Runs a task and returns its seconds; NaN where it failed, and says so."""
    self._process.stdin.write(f'{task}\n')
    self._process.stdin.flush()
    answer = self._process.stdout.readline().strip()
    try:
      return float(answer)
    except ValueError:
      print(f'peer: {task}: {answer}', file=sys.stderr)
      return float('nan')

  def close(self):
    """Ends the process."""
    self._process.stdin.close()
    self._process.wait()
    self._folder.cleanup()


def timed(function) -> float:
  """Returns the seconds of one call."""
  began = time.perf_counter()
  jax.block_until_ready(function())
  return time.perf_counter() - began


def product_rate() -> float:
  """Returns the multiply-add rate of a large float32 product, flop/s."""
  a = jnp.ones((2000, 2000))
  dot = jax.jit(jnp.dot)
  timed(lambda: dot(a, a))
  return 2 * 2000**3 / stats.median(timed(lambda: dot(a, a)) for _ in range(5))


def copy_rate() -> float:
  """Returns the rate at which memory is read and written, bytes/s."""
  a = np.ones(1 << 26, np.float32)
  b = np.empty_like(a)
  np.copyto(b, a)
  return (
    2
    * a.nbytes
    / stats.median(timed(lambda: np.copyto(b, a)) for _ in range(5))
  )


def versus(name, ours, repeats, *, peer=None, task=None, **facts):
  """Times ours and the peer's in turn; returns a row."""
  first = timed(ours)
  mine, theirs = [], []
  for _ in range(repeats):
    mine.append(timed(ours))
    if peer is not None and task is not None:
      theirs.append(peer.seconds(task))
  row = {
    'bench': f'metrics {name}',
    'seconds': round(stats.median(mine), 3),
    'seconds_least': round(min(mine), 3),
    'first_call_seconds': round(first, 2),
    'repeats': repeats,
    **facts,
  }
  if theirs:
    row['peer'] = task
    row['peer_seconds'] = round(stats.median(theirs), 3)
    row['times_peer'] = round(stats.median(theirs) / stats.median(mine), 2)
  return row


def bench_conventions(repeats, python, only, record):
  """The task of cell-eval: 60 conditions of 300 cells, 2,000 genes."""
  size = {'density': 0.256}
  counts = [screen(60, 300, 2000, 2000, side=s, **size) for s in (0, 1)]
  logs = [adata_of(*c, logarithm=True) for c in counts]
  raws = [adata_of(*c, logarithm=False) for c in counts]

  def score(sides, convention):
    return lambda: front.score(
      *sides,
      perturbation_key='target',
      control='ctrl',
      convention=convention,
      say=lambda line: None,
    )

  if only in ('', 'cell-eval'):
    peer = Peer(python, *logs) if python else None
    record(
      versus(
        'cell-eval full', score(logs, 'cell-eval'), repeats, peer=peer,
        task='cell-eval full', cells=20_000, genes=2000, conditions=60,
        stored='CSR',
      )
    )  # fmt: skip
    _bench_de(logs[0], repeats, peer, record)
    _bench_energy(logs[0], repeats, record)
    if peer:
      peer.close()
  if only in ('', 'vcc2026'):
    peer = Peer(python, *raws) if python else None
    record(
      versus(
        'vcc2026', score(raws, 'vcc2026'), repeats, peer=peer,
        task='cell-eval2 vcc2026', cells=20_000, genes=2000, conditions=60,
        stored='CSR',
      )
    )  # fmt: skip
    if peer:
      peer.close()


def _bench_de(adata, repeats, peer, record):
  codes = pd.Categorical(adata.obs['target'])
  codes = codes.reorder_categories(
    ['ctrl', *(c for c in codes.categories if c != 'ctrl')]
  ).codes
  dense = adata.X.toarray()
  for stored, values in (('CSR', adata.X), ('dense', dense)):
    for engine in ('illico', 'jax') if stored == 'CSR' else ('illico',):

      def run(values=values, engine=engine):
        return metrics.de(values, codes, num_conditions=61, engine=engine)[0].p

      record(
        versus(
          f'de one side, {engine}', run, repeats, peer=peer,
          task='pdex one side' if engine == 'illico' else None,
          stored=stored, tests=60 * 2000,
        )
      )  # fmt: skip


def _bench_energy(adata, repeats, record):
  values = jnp.asarray(adata.X.toarray())
  codes = pd.factorize(adata.obs['target'])[0]
  sizes = np.bincount(codes)
  # Products of every condition with itself and the control, and of the control.
  flops = (
    2
    * values.shape[1]
    * float((sizes[1:] * (sizes[1:] + sizes[0])).sum() + sizes[0] ** 2)
  )
  row = versus(
    'energy distance one side',
    lambda: permutation.energy_from_control(values, codes, num_groups=61),
    repeats,
    stored='dense',
  )
  rate = product_rate()
  record(
    row
    | {
      'gflops': round(flops / row['seconds'] / 1e9, 1),
      'gflops_of_a_product': round(rate / 1e9, 1),
      'share_of_product_rate': round(flops / row['seconds'] / rate, 3),
    }
  )


def bench_perturbench(repeats, record):
  """PerturBench's evaluator: 100 conditions, 5,000 genes, 50,000 cells."""
  counts, labels = screen(100, 490, 1000, 5000, density=0.1)
  real = adata_of(counts, labels, logarithm=True)
  del counts
  # In place: the peak is to be that of scoring.
  values = np.random.default_rng(0).standard_normal(
    real.shape, dtype=np.float32
  )
  values *= 0.3
  values += 0.1
  np.maximum(values, 0, out=values)
  predicted = anndata.AnnData(values, obs=real.obs, var=real.var)
  wanted = [
    'rmse_average', 'rmse_rank_average', 'cosine_logfc', 'cosine_rank_logfc',
  ]  # fmt: skip

  def run():
    return front.score(
      real,
      predicted,
      perturbation_key='target',
      control='ctrl',
      convention='perturbench',
      metrics=wanted,
      say=lambda line: None,
    )

  size = real.X.data.nbytes + real.X.indices.nbytes + predicted.X.nbytes
  row = versus('perturbench evaluator', run, repeats)
  record(
    row
    | {
      'input_gib': round(size / 2**30, 2),
      'peak_memory_gib': _peak(),
      'share_of_copy_rate': round(size / row['seconds'] / copy_rate(), 3),
      'peer': 'PerturBench, as its specification measured it',
      'peer_seconds': 9.9,
    }
  )


def bench_ranks(repeats, record):
  """Every retrieval metric of 2,000 conditions and 5,000 genes."""
  random = np.random.default_rng(0)
  observed = jnp.asarray(random.normal(size=(2000, 5000)), jnp.float32)
  predicted = observed + jnp.asarray(
    3 * random.normal(size=observed.shape), jnp.float32
  )
  flops = 2 * 2000**2 * 5000
  for name in ranks.METRICS:
    row = versus(
      f'{name} rank, 2,000 conditions',
      lambda name=name: ranks.perturbation_rank(
        predicted, observed, metric=name
      ),
      repeats,
    )
    if name != 'mae':
      share = flops / row['seconds'] / product_rate()
      row['share_of_product_rate'] = round(share, 3)
    record(row)


def bench_backed(record, *, cells):
  """More cells than memory: scored from the disk."""
  with tempfile.TemporaryDirectory() as folder:
    paths = [f'{folder}/{side}.h5ad' for side in ('real', 'predicted')]
    for side, path in enumerate(paths):
      write_large(path, cells, side=side)
    size = sum(pathlib.Path(path).stat().st_size for path in paths)
    program = (
      'import resource, sys, time\n'
      'from pertjax import metrics\n'
      'began = time.perf_counter()\n'
      'metrics.score(*sys.argv[1:3], perturbation_key="target", '
      'control="ctrl", convention="perturbench", '
      'metrics=["rmse_average", "cosine_logfc", "cosine_rank_logfc"], '
      'backed=True, say=lambda line: None)\n'
      'print(time.perf_counter() - began, '
      'resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)\n'
    )
    done = subprocess.run(
      [sys.executable, '-c', program, *paths],
      capture_output=True,
      text=True,
      check=True,
    )
    seconds, peak = map(float, done.stdout.split())
  record(
    {
      'bench': 'metrics backed on disk',
      'cells': cells,
      'genes': 2000,
      'files_gib': round(size / 2**30, 2),
      'seconds': round(seconds, 1),
      'cells_per_second': round(2 * cells / seconds),
      'peak_memory_gib': round(peak, 2),
    }
  )


def write_large(path, cells, *, side):
  """Writes a CSR screen of 200 conditions in shuffled order, by parts."""
  import h5py

  random = np.random.default_rng(side)
  genes, each = 2000, 60  # Values a cell.
  labels = random.integers(0, 201, cells)
  names = ['ctrl', *(f'G{i:04d}' for i in range(200))]
  empty = anndata.AnnData(
    sparse.csr_matrix((cells, genes), dtype=np.float32),
    obs=pd.DataFrame(
      {'target': pd.Categorical.from_codes(labels, names)},
      index=pd.RangeIndex(cells).astype(str),
    ),
    var=pd.DataFrame(index=[f'G{i:04d}' for i in range(genes)]),
  )
  empty.write_h5ad(path)
  part = 50_000
  with h5py.File(path, 'r+') as file:
    group = file['X']
    for name in ('data', 'indices', 'indptr'):
      del group[name]
    chunks = {'chunks': (1 << 18,)}
    data = group.create_dataset('data', (cells * each,), np.float32, **chunks)
    at = group.create_dataset('indices', (cells * each,), np.int32, **chunks)
    group.create_dataset(
      'indptr', data=np.arange(cells + 1, dtype=np.int64) * each
    )
    steps = np.arange(each) * (genes // each)
    for start in range(0, cells, part):
      number = min(part, cells - start)
      jitter = random.integers(0, genes // each, (number, each))
      values = random.gamma(2.0, 0.5, (number, each)).astype(np.float32)
      where = slice(start * each, (start + number) * each)
      at[where] = (steps + jitter).astype(np.int32).ravel()
      data[where] = values.ravel()


def _peak() -> float:
  usage = resource.getrusage(resource.RUSAGE_SELF)
  return round(usage.ru_maxrss / 2**20, 2)


def main(options, record) -> None:
  """Runs the benches that `options` names."""
  repeats = 3 if options.quick else 5
  only = options.only
  if only in ('', 'perturbench'):
    # First: its peak is the process's.
    bench_perturbench(repeats, record)
  if only in ('', 'ranks'):
    bench_ranks(repeats, record)
  if only in ('', 'cell-eval', 'vcc2026'):
    bench_conventions(repeats, options.peer, only, record)
  if only in ('', 'backed'):
    bench_backed(record, cells=100_000 if options.quick else 2_000_000)
