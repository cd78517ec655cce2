"""Preprocessing against hand-written numpy and the originals' numbers."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from pertjax.data import conventions, h5ad, preprocess

PERTURBENCH = conventions.make('perturbench')


def fixture_p():
  """The original's preprocessing fixture: 40 cells, 520 genes."""
  i, j = np.arange(40)[:, None], np.arange(520)[None]
  counts = ((3 * i + 5 * j + i * j) % 7).astype(np.float32)
  counts[:, 14] = np.arange(40) < 5
  names = [f'g{k}' for k in range(520)]
  names[13:15] = ['A', 'B']
  obs = pd.DataFrame(
    {
      'condition': [['control', *'ABC'][k // 5 % 4] for k in range(40)],
      'cell_type': ['ta' if k < 20 else 'tb' for k in range(40)],
    },
    index=[f'cell{k}' for k in range(40)],
  )
  return anndata.AnnData(
    sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=names)
  )


def read(adata, scale='counts', **options):
  return h5ad.from_anndata(
    adata, convention=PERTURBENCH, scale=scale, **options
  )


def run(raw, train=None, **options):
  train = np.ones(raw.X.shape[0], bool) if train is None else train
  return preprocess.run(raw, options=options, train_cells=train)


def noisy(num=240, num_genes=40, seed=0):
  """Negative-binomial counts; half of the genes differ between cells."""
  rng = np.random.default_rng(seed)
  mean = np.exp(rng.normal(0, 1.5, num_genes))
  mean = mean * np.exp(rng.normal(0, 1, (num, num_genes)) * (mean > 0.8))
  counts = rng.poisson(mean).astype(np.float32)
  counts[:, 0] += 1
  obs = pd.DataFrame(
    {
      'condition': rng.choice(['control', 'G3', 'G5', 'drug'], num),
      'cell_type': rng.choice(['ta', 'tb'], num),
    },
    index=[f'cell{k}' for k in range(num)],
  )
  var = pd.DataFrame(index=[f'G{k}' for k in range(num_genes)])
  return anndata.AnnData(sparse.csr_matrix(counts), obs=obs, var=var)


def test_fixture_p1():
  raw = read(fixture_p())
  done = run(raw)
  values = done.X.toarray()
  assert values.shape == (40, 519)
  assert values.dtype == np.float32
  np.testing.assert_array_equal(done.genes, np.delete(np.arange(520), 14))
  totals = done.counts.sum(axis=1).A1
  assert np.median(totals) == 1557
  assert totals[:5].tolist() == [1559, 1556, 3114, 1557, 1554]
  np.testing.assert_allclose(
    values[0, :4], [0, 1.79069, 1.3853317, 0.6925056], atol=1e-6
  )
  np.testing.assert_allclose(
    values[39, :4], [1.7933669, 0, 1.0998985, 1.6109811], atol=1e-6
  )
  np.testing.assert_allclose(
    np.expm1(values[0].astype(float)).sum(), 1557, rtol=1e-6
  )
  assert any("1 of them are perturbed genes: 'B'" in n for n in done.notes)
  assert any('median total 1557' in n for n in done.notes)


def test_fixture_p2():
  raw = read(fixture_p())
  done = run(raw, degs=519)
  for pair, expected in {
    ('A', 'ta'): ('g40', 'g54', 'g47'),
    ('B', 'ta'): ('g4', 'g39', 'g242'),
    ('C', 'tb'): ('g517', 'g41', 'g48'),
  }.items():
    key = raw.conditions.names.index(pair[0]), raw.groups.index((pair[1],))
    score = np.abs(slow_welch(raw, done.X.toarray(), *key))
    # Counts depend on the column modulo 7, so every seventh gene ties and the
    # original's choice among them is its sort's. Its genes must be among the
    # best, and so must ours.
    best = score.max()
    theirs = [done.gene_names.index(name) for name in expected]
    np.testing.assert_allclose(score[theirs], best, rtol=1e-6)
    ranked = done.de_genes[key]
    assert set(theirs) <= set(ranked[:75].tolist())
    np.testing.assert_allclose(score[ranked[:3]], best, rtol=1e-6)
    assert (np.diff(score[ranked]) <= 1e-5 * best).all()


def slow_welch(raw, values, condition, group):
  values = values.astype(np.float64)
  mine = (raw.condition_ids == condition) & (raw.group_ids == group)
  control = (raw.condition_ids == 0) & (raw.group_ids == group)
  a, b = values[mine], values[control]
  error = np.sqrt(
    a.var(axis=0, ddof=1) / len(a) + b.var(axis=0, ddof=1) / len(b)
  )
  difference = a.mean(axis=0) - b.mean(axis=0)
  return np.divide(
    difference, error, out=np.zeros_like(error), where=error > 1e-9
  )


def test_degs_match_the_order_of_scanpy():
  # GEARS' toy: order made with scanpy 1.11.5 by the original; the genes past
  # the given ones are constant and tie.
  genes = np.arange(24)
  keep = genes % 6 != 5

  def base(cell):
    return np.round(1 + 0.1 * genes + 0.05 * cell, 6)

  rows = [base(c) * keep for c in range(4)]
  rows += [
    (base(c) + 0.5 * np.sin(genes + 1)) * keep + 0.2 * c * (genes == 5)
    for c in range(3)
  ]
  rows += [
    (base(c) + 0.8 * np.cos(genes)) * keep * (genes != 2) for c in range(3)
  ]
  ranked = preprocess.degs(
    sparse.csr_matrix(np.array(rows, np.float32)),
    np.repeat([0, 1, 2], [4, 3, 3]),
    np.zeros(10, int),
    num=24,
  )
  assert ranked[1, 0][:21].tolist() == [
    10, 16, 4, 13, 7, 22, 19, 1, 3, 0, 20, 6, 14, 9, 12, 8, 15, 5, 18, 2, 21,
  ]  # fmt: skip
  assert ranked[2, 0][:20].tolist() == [
    2, 22, 3, 16, 0, 19, 9, 6, 13, 10, 12, 15, 7, 4, 18, 21, 1, 20, 8, 14,
  ]  # fmt: skip
  assert ranked[1, 0][21:].tolist() == [11, 17, 23]


@pytest.mark.parametrize('block', [7, 16384])
def test_degs_match_numpy(monkeypatch, block):
  monkeypatch.setattr(preprocess, '_BLOCK_ROWS', block)
  raw = read(noisy())
  values = np.log1p(raw.X.toarray())
  ranked = preprocess.degs(
    sparse.csr_matrix(values), raw.condition_ids, raw.group_ids, num=10
  )
  assert len(ranked) == 6
  for key, columns in ranked.items():
    score = np.abs(slow_welch(raw, values, *key))
    np.testing.assert_array_equal(columns, np.argsort(-score)[:10])


def test_degs_skip_pairs_that_have_no_variance():
  X = sparse.csr_matrix(np.arange(15, dtype=np.float32).reshape(5, 3))
  ids = np.array([0, 0, 1, 1, 2])
  groups = np.zeros(5, int)
  assert set(preprocess.degs(X, ids, groups, num=2)) == {(1, 0)}
  one_control = np.array([True, False, True, True, True])
  assert not preprocess.degs(X, ids, groups, num=2, cells=one_control)
  assert not preprocess.degs(X, ids + 1, groups, num=2)


def test_constant_genes_score_nothing_for_rounding():
  constant = np.float32(np.log1p(0.1))
  X = np.full((30, 2), constant, np.float32)
  X[:, 1] = np.arange(30) % 7
  ranked = preprocess.degs(
    sparse.csr_matrix(X), np.arange(30) // 17, np.zeros(30, int), num=2
  )
  assert ranked[1, 0].tolist() == [1, 0]


def test_normalize_total_matches_numpy():
  counts = noisy().X
  dense = counts.toarray().astype(np.float64)
  totals = dense.sum(axis=1)
  for target, size in (('median', np.median(totals)), (1e4, 1e4)):
    expected = dense / totals[:, None] * size
    scaled = preprocess.normalize_total(counts, target=target)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.toarray(), expected, rtol=1e-6)
  given = totals * 3
  np.testing.assert_allclose(
    preprocess.normalize_total(counts, target=100, totals=given).toarray(),
    dense / given[:, None] * 100,
    rtol=1e-6,
  )
  np.testing.assert_array_equal(counts.toarray(), dense)
  np.testing.assert_allclose(
    preprocess.log1p(counts).toarray(), np.log1p(dense), rtol=1e-6
  )


def test_cells_without_a_total_stay_and_do_not_move_the_median():
  counts = sparse.csr_matrix(np.array([[0, 0], [1, 1], [2, 4]], np.float32))
  scaled = preprocess.normalize_total(counts)
  np.testing.assert_allclose(scaled.toarray(), [[0, 0], [2, 2], [4 / 3, 8 / 3]])
  with pytest.raises(ValueError, match='no cell has a total'):
    preprocess.normalize_total(counts[:1])
  with pytest.raises(ValueError, match='a positive number'):
    preprocess.normalize_total(counts, target=0)


CARS = np.array(
  [4, 4, 7, 7, 8, 9, 10, 10, 10, 11, 11, 12, 12, 12, 12, 13, 13, 13, 13, 14, 14,
   14, 14, 15, 15, 15, 16, 16, 17, 17, 17, 18, 18, 18, 18, 19, 19, 19, 20, 20,
   20, 20, 20, 22, 23, 24, 24, 24, 24, 25],
  float,
)  # fmt: skip
STOPPING = np.array(
  [2, 10, 4, 22, 16, 10, 18, 26, 34, 17, 28, 14, 20, 24, 28, 26, 34, 34, 46, 26,
   36, 60, 80, 20, 26, 54, 32, 40, 32, 40, 50, 42, 56, 76, 84, 36, 46, 68, 32,
   48, 52, 56, 64, 66, 54, 70, 92, 93, 120, 85],
  float,
)  # fmt: skip


def test_loess_matches_r():
  # predict(loess(dist ~ speed, cars), data.frame(speed = 5:25)) in R.
  expected = [
    7.797353, 10.002308, 12.499786, 15.281082, 18.446568, 21.865315, 25.517015,
    29.350386, 33.230660, 37.167935, 41.205226, 45.055736, 48.355889, 49.824812,
    51.986702, 56.461318, 61.959729, 68.569313, 76.316068, 85.212121, 95.324047,
  ]  # fmt: skip
  order = np.random.default_rng(0).permutation(50)
  fit = preprocess.loess(
    CARS[order], STOPPING[order], at=np.arange(5.0, 26), span=0.75
  )
  np.testing.assert_allclose(fit, expected, atol=6e-7)


def test_loess_reproduces_a_quadratic_and_survives_ties():
  rng = np.random.default_rng(1)
  x = rng.normal(size=300)
  y = 2 - x + 0.5 * x**2
  np.testing.assert_allclose(preprocess.loess(x, y), y, atol=1e-2)
  local = [
    preprocess._local_fit(np.sort(x), y[np.argsort(x)], c, 90) for c in x
  ]
  np.testing.assert_allclose([value for value, _ in local], y, atol=1e-9)
  np.testing.assert_allclose([slope for _, slope in local], x - 1, atol=1e-9)
  for num in range(1, 25):
    tied = rng.choice(rng.normal(size=max(1, num // 6)), num)
    fit = preprocess.loess(tied, rng.normal(size=num))
    assert np.isfinite(fit).all()


def slow_seurat_v3(counts):
  """Variance of clipped, standardised counts of one batch; dense."""
  counts = counts.astype(np.float64)
  mean, variance = counts.mean(axis=0), counts.var(axis=0, ddof=1)
  varies = variance > 0
  deviation = np.ones(len(mean))
  fit = preprocess.loess(np.log10(mean[varies]), np.log10(variance[varies]))
  deviation[varies] = np.sqrt(10**fit)
  z = np.minimum((counts - mean) / deviation, np.sqrt(len(counts)))
  return (z**2).sum(axis=0) / (len(counts) - 1)


def test_seurat_v3_matches_numpy(monkeypatch):
  monkeypatch.setattr(preprocess, '_BLOCK_VALUES', 1000)
  adata = noisy()
  counts = adata.X.toarray()
  counts[:, 7] = 3  # Constant.
  counts[:, 9] = 0
  found = preprocess.highly_variable(sparse.csr_matrix(counts), num=10)
  score = slow_seurat_v3(counts)
  np.testing.assert_allclose(found.score, score, rtol=1e-9, atol=1e-9)
  assert set(np.flatnonzero(found.selected)) == set(np.argsort(-score)[:10])
  assert not found.selected[[7, 9]].any()
  assert found.rank[np.argsort(-score)[:10]].tolist() == list(range(10))
  assert np.isnan(found.rank[~found.selected]).all()


def test_seurat_v3_sorts_by_median_rank_over_batches():
  counts = noisy(300).X.toarray()
  batches = np.arange(300) % 3
  found = preprocess.highly_variable(
    sparse.csr_matrix(counts), num=8, groups=batches
  )
  scores = [slow_seurat_v3(counts[batches == b]) for b in range(3)]
  rank = np.argsort(np.argsort(-np.array(scores), axis=1), axis=1).astype(float)
  table = pd.DataFrame(
    {
      'rank': np.ma.median(np.ma.masked_array(rank, rank >= 8), axis=0).filled(
        np.nan
      ),
      'batches': (rank < 8).sum(axis=0),
    }
  ).sort_values(['rank', 'batches'], ascending=[True, False], kind='stable')
  assert set(np.flatnonzero(found.selected)) == set(table.index[:8])
  np.testing.assert_array_equal(found.batches, (rank < 8).sum(axis=0))
  np.testing.assert_array_equal(found.rank, table['rank'].sort_index())


def test_seurat_matches_numpy():
  log = np.log1p(noisy().X.toarray().astype(np.float64))
  log[:, 9] = 0
  log[:, 11] = 0.1  # Constant, but its float sums are not exact.
  found = preprocess.highly_variable(
    sparse.csr_matrix(log), num=10, flavor='seurat'
  )
  values = np.expm1(log)
  mean, variance = values.mean(axis=0), values.var(axis=0, ddof=1)
  variance[11] = 0
  log_mean = np.log1p(np.maximum(mean, 1e-12))
  bins = pd.cut(log_mean, 20, labels=False)
  expected = np.zeros(40)
  for b in np.unique(bins):
    members = np.flatnonzero((bins == b) & (variance > 0))
    dispersion = np.log(variance[members] / mean[members])
    if len(members) == 1:
      expected[members] = 1
    elif len(members):
      spread = dispersion.std(ddof=1)
      expected[members] = (dispersion - dispersion.mean()) / spread
  np.testing.assert_allclose(found.score, expected, atol=1e-9)
  assert found.selected.sum() == 10
  assert expected[found.selected].min() >= expected[~found.selected].max()


def test_highly_variable_edges():
  X = noisy(12).X
  groups = np.array([0] * 11 + [1])
  found = preprocess.highly_variable(X, num=5, groups=groups)
  assert '1 groups with fewer than 2 cells' in found.notes[0]
  everything = preprocess.highly_variable(X, num=999)
  assert everything.selected.all()
  with pytest.raises(ValueError, match='no group has two cells'):
    preprocess.highly_variable(X, num=5, cells=np.arange(12) == 3)
  with pytest.raises(ValueError, match='hvg_flavor'):
    preprocess.highly_variable(X, num=5, flavor='cell_ranger')


def test_selection_keeps_perturbed_genes_and_order():
  raw = read(noisy())
  done = run(raw, num_hvg=5, min_cells_per_gene=0)
  assert {'G3', 'G5'} <= set(done.gene_names)
  assert done.highly_variable.sum() == 5
  assert 5 <= len(done.genes) <= 7
  assert (np.diff(done.genes) > 0).all()
  assert done.gene_names == tuple(raw.gene_names[g] for g in done.genes)
  np.testing.assert_array_equal(
    done.counts.toarray(), raw.X.toarray()[:, done.genes]
  )
  filtered = run(raw, num_hvg=5, min_cells_per_gene=60)
  assert filtered.genes[0] > 0 or (np.diff(filtered.genes) > 1).any()
  np.testing.assert_array_equal(
    filtered.X.toarray() > 0, raw.X.toarray()[:, filtered.genes] > 0
  )
  detected = (raw.X.toarray() > 0).sum(axis=0)
  assert detected[filtered.genes].min() >= 60
  assert (detected < 60).any()
  # Cells are normalised by all genes, not by the chosen ones.
  full = run(raw, min_cells_per_gene=0)
  np.testing.assert_array_equal(
    done.X.toarray(), full.X.toarray()[:, done.genes]
  )
  assert any("perturbations name none of the 40 genes: 'drug'" in n
             for n in done.notes)  # fmt: skip


def test_held_out_cells_do_not_choose_genes():
  raw = read(noisy(400))
  held_out = np.isin(raw.condition_ids, [raw.conditions.names.index('G5')])
  other = raw.X.toarray()
  other[held_out] = np.roll(other[held_out], 11, axis=1)
  changed = read(
    anndata.AnnData(sparse.csr_matrix(other), obs=raw.obs, var=noisy(400).var)
  )
  options = {
    'num_hvg': 6, 'degs': 3, 'normalize': 1e4, 'min_cells_per_gene': 0,
  }  # fmt: skip
  for flavor in preprocess.FLAVORS:
    chosen = [
      run(data, ~held_out, hvg_flavor=flavor, **options).gene_names
      for data in (raw, changed)
    ]
    assert chosen[0] == chosen[1]
    everything = [
      run(data, ~held_out, hvg_flavor=flavor, hvg_cells='all', **options)
      for data in (raw, changed)
    ]
    assert everything[0].gene_names != everything[1].gene_names
  # The differential genes to judge by do cover held-out conditions.
  done = run(raw, ~held_out, **options)
  assert {condition for condition, _ in done.de_genes} == {1, 2, 3}
  assert all((c < len(done.genes)).all() for c in done.de_genes.values())


def test_differential_genes_are_kept_and_index_the_kept():
  raw = read(noisy())
  done = run(raw, num_hvg=2, degs=4, hvg_cells='all', min_cells_per_gene=0)
  full = run(raw, degs=4, min_cells_per_gene=0)
  for key, columns in full.de_genes.items():
    names = [full.gene_names[c] for c in columns]
    assert [done.gene_names[c] for c in done.de_genes[key]] == names


def test_totals_of_the_whole_transcriptome():
  adata = noisy()
  totals = adata.X.sum(axis=1).A1 * 4 + 7
  adata.obs['total'] = totals
  adata.obs['words'] = 'many'
  raw = read(adata)
  done = run(raw, totals_key='total', normalize=1000, min_cells_per_gene=0)
  expected = np.log1p(adata.X.toarray() / totals[:, None] * 1000)
  np.testing.assert_allclose(done.X.toarray(), expected, rtol=1e-5, atol=1e-6)
  assert any("the total 1000 of obs['total']" in n for n in done.notes)
  for key, words in (
    ('totals', "closest: 'total'"),
    ('words', 'expected numbers'),
  ):
    with pytest.raises(ValueError, match=words):
      run(raw, totals_key=key)
  adata.obs.loc['cell4', 'total'] = 0.5
  with pytest.raises(ValueError, match="less than the sum.*'cell4'"):
    run(read(adata), totals_key='total')
  adata.obs.loc['cell4', 'total'] = np.nan
  with pytest.raises(ValueError, match='1 of 240 values are not positive'):
    run(read(adata), totals_key='total')


def test_steps_can_be_left_out():
  raw = read(noisy())
  counts = raw.X.toarray()
  plain = run(raw, normalize='none', log1p=False, min_cells_per_gene=0)
  np.testing.assert_array_equal(plain.X.toarray(), counts)
  logged = run(raw, normalize='none', min_cells_per_gene=0)
  np.testing.assert_allclose(logged.X.toarray(), np.log1p(counts), rtol=1e-6)
  as_text = run(raw, normalize='1e4')
  np.testing.assert_array_equal(
    as_text.X.toarray(), run(raw, normalize=1e4).X.toarray()
  )
  used = run(raw, use_counts=True, min_cells_per_gene=0, degs=2)
  np.testing.assert_array_equal(used.X.toarray(), counts)
  assert used.de_genes.keys() == run(raw, degs=2).de_genes.keys()


def test_log_values_are_left_alone():
  adata = noisy()
  adata.layers['counts'] = adata.X.copy()
  adata.X = np.log1p(adata.X * 0.3)
  raw = read(adata, 'log1p')
  done = run(raw, num_hvg=5, min_cells_per_gene=0)
  np.testing.assert_array_equal(
    done.X.toarray(), adata.X.toarray()[:, done.genes]
  )
  np.testing.assert_array_equal(
    done.counts.toarray(), adata.layers['counts'].toarray()[:, done.genes]
  )
  bare = read(adata, 'log1p', counts_layer=None)
  assert run(bare, num_hvg=5, hvg_flavor='seurat').counts is None
  for options, words in (
    ({'normalize': 'median'}, "normalize: 'median', but data.scale"),
    ({'normalize': 1e4}, 'normalised already'),
    ({'log1p': False}, 'applied already'),
    ({'totals_key': 'x'}, 'not used where nothing is normalised'),
    ({'use_counts': True}, 'no layer with counts'),
    ({'num_hvg': 5}, "use 'seurat'"),
  ):
    with pytest.raises(ValueError, match=words):
      run(bare, **options)


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    ({'normalise': 1}, "closest: 'normalize'"),
    ({'normalize': 'mean'}, "allowed: 'auto', 'median'"),
    ({'normalize': -5}, 'positive number'),
    ({'hvg_cells': 'test'}, "allowed: 'train', 'all'"),
    ({'hvg_flavor': 'pearson'}, 'allowed: seurat_v3, seurat'),
    ({'num_hvg': -1}, 'num_hvg: -1'),
    ({'min_cells_per_gene': 1000}, 'no gene is detected'),
    ({'totals_key': 'x', 'normalize': 'none'}, 'leave it empty'),
  ],
)
def test_bad_options(options, words):
  with pytest.raises(ValueError, match=words):
    run(read(noisy()), **options)


def test_bad_training_cells():
  raw = read(noisy())
  with pytest.raises(ValueError, match='expected bool'):
    run(raw, np.ones(3, bool))
  with pytest.raises(ValueError, match='expected bool'):
    run(raw, np.zeros(240, int))
  with pytest.raises(ValueError, match='no cell is a training cell'):
    run(raw, np.zeros(240, bool), num_hvg=3)


def test_defaults_fit_a_config():
  defaults = preprocess.default_options()
  assert defaults == {**preprocess.Options()._asdict(), 'totals_key': ''}
  assert None not in defaults.values()
  run(read(noisy()), **defaults)


@pytest.mark.parametrize(
  ('file', 'control', 'totals'),
  [
    ('norman_k562_500g.h5ad', 'control', 'ncounts'),
    ('mcfaline_gbm_500g.h5ad', 'control', 'ncounts'),
    ('kang_ifnb_2000g.h5ad', 'ctrl', 'n_counts'),
    ('norman_semisynthetic_1530g.h5ad', 'control', 'total_counts_full'),
  ],
)
def test_real_files(shared_data, file, control, totals):
  raw = h5ad.read(
    shared_data / file,
    convention=conventions.make('perturbench', control=control),
    scale='counts',
  )
  train = np.arange(raw.X.shape[0]) % 4 > 0
  done = run(raw, train, num_hvg=100, degs=10, totals_key=totals)
  assert done.highly_variable.sum() == 100
  assert done.X.shape == (raw.X.shape[0], len(done.genes))
  assert np.isfinite(done.X.data).all()
  assert done.X.data.min() > 0
  assert done.X.data.max() < 12
  perturbed = np.unique(raw.condition_ids[raw.condition_ids > 0])
  assert {condition for condition, _ in done.de_genes} == set(perturbed)


@pytest.mark.parametrize(
  ('file', 'share'),
  [('norman_k562_500g.h5ad', 0.98), ('mcfaline_gbm_500g.h5ad', 0.35)],
)
def test_stored_log_layer_is_our_recipe(shared_data, file, share):
  # ln(1 + 1e4 x / total), where total sums the genes that its authors kept:
  # a whole number, somewhat below `ncounts`, that the file does not hold.
  path = shared_data / file
  raw = h5ad.read(path, convention=PERTURBENCH, scale='counts')
  stored = h5ad.read(
    path, convention=PERTURBENCH, scale='log1p', layer='log1p_norm'
  )
  implied = 1e4 * raw.X.data / np.expm1(stored.X.data.astype(np.float64))
  entries = np.diff(raw.X.indptr)
  row = np.repeat(np.arange(len(entries)), entries)
  totals = np.bincount(row, implied) / entries
  np.testing.assert_allclose(totals, np.round(totals), atol=2e-3)
  ratio = totals / raw.obs['ncounts'].to_numpy()
  assert share < ratio.min() < ratio.max() < 1
  ours = preprocess.log1p(
    preprocess.normalize_total(raw.X, target=1e4, totals=np.round(totals))
  )
  np.testing.assert_allclose(ours.data, stored.X.data, atol=1e-6)
