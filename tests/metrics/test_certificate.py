"""Certificates and red teams: what nothing and everything get on a dataset."""

import closed_form
import numpy as np
import pytest
from numpy import testing

from pertjax.metrics import attacks, certificate, stand_ins
from pertjax.metrics import problem as problem_lib
from pertjax.metrics.conventions import base

GENES = tuple(f'g{i}' for i in range(120))
CONDITIONS = tuple(f'g{i}' for i in range(16))


def simulated(effect, *, groups=1, cells=40, seed=0):
  """Cells of 16 conditions, each a knock-down of a gene with an effect."""
  random = np.random.default_rng(seed)
  level = random.gamma(2, 1, len(GENES))
  blocks, names, of = [], [], []
  for group in range(groups):
    shared = effect * random.normal(size=len(GENES)) * (level > 2)
    for at, name in enumerate(('ctrl', *CONDITIONS)):
      change = 0.0
      if at:
        change = shared + effect * random.normal(size=len(GENES))
      number = cells * 4 if name == 'ctrl' else cells
      counts = random.poisson(level * np.exp(change), (number, len(GENES)))
      blocks.append(np.log1p(1e3 * counts / counts.sum(1, keepdims=True)))
      names += [name] * number
      of += [f'k{group}'] * number
  values = np.concatenate(blocks).astype(np.float32)
  return problem_lib.from_arrays(
    values, names, values, names, control='ctrl', genes=GENES,
    observed_groups=of, predicted_groups=of,
  )  # fmt: skip


def correlate(a, b):
  with np.errstate(invalid='ignore'):
    return np.asarray([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b)])


def columns_of(problem, wanted, options):
  """Three honest columns, and faulty ones as tools have had them."""
  del wanted, options
  predicted, observed = problem.deltas('predicted'), problem.deltas('observed')
  flat = np.ptp(predicted, axis=1) < 1e-12

  def places(p, o, ties):
    distance = np.abs(p[:, None] - o[None]).sum(-1).round(9)
    own = np.diagonal(distance)[:, None]
    closer = (distance < own).sum(1)
    tied = (distance == own).sum(1) - 1
    return 1 - (closer + ties * tied) / (len(p) - 1)

  order = np.abs(predicted[:, None] - observed[None]).sum(-1)
  by_name = np.abs(predicted[:, None] - predicted[None]).sum(-1)
  # Who comes first among equals wins, as an unstable sort lets it.
  first = np.asarray([(row < 1e-9)[:i].sum() for i, row in enumerate(by_name)])
  half = places(predicted, observed, 0.5)
  return {
    'pearson': np.where(flat, np.nan, correlate(predicted, observed)),
    'retrieval': half,
    'mse': np.square(
      problem.means('predicted') - problem.means('observed')
    ).mean(1),
    'unsigned': np.where(
      flat, np.nan, correlate(np.abs(predicted), np.abs(observed))
    ),
    'corrected': 2 * half / (1 + half),
    'by name': half - first / 1000 + 0 * order[:, 0],
  }


def column(name, best, direction, chance):
  return base.Column(name, '', best, direction, 'a test', chance)


TOY = base.Convention(
  'toy', 'Toy', 'a test', 'log1p', 'own',
  (
    column('pearson', 1.0, 'higher', 0.0),
    column('retrieval', 1.0, 'higher', 0.5),
    column('mse', 0.0, 'lower', None),
    column('unsigned', 1.0, 'higher', 0.0),
    column('corrected', 1.0, 'higher', 0.5),
    column('by name', 1.0, 'higher', 0.5),
  ),
  columns_of,
)  # fmt: skip


@pytest.fixture(scope='module')
def effective():
  lines = certificate.certificate(simulated(0.2), TOY, splits=6)
  return {line['metric']: line for line in lines}


def test_certificate_of_data_with_effects(effective):
  assert list(effective) == [c.name for c in TOY.columns]
  for name in ('pearson', 'retrieval'):
    line = effective[name]
    assert tuple(line) == certificate.FIELDS
    assert line['ceiling'] > (0.5 if name == 'pearson' else 0.99)
    assert line['ceiling_low'] < line['ceiling'] < line['ceiling_high']
    assert line['null_low'] <= line['chance'] <= line['null_high']
    assert line['dynamic_range'] > 0.3
    assert line['bound_discrimination'] > 0.9
    assert line['verdict'] == 'tells a replicate from the mean'
    assert line['conditions'] == len(CONDITIONS)
  # A control copy has no change to correlate, and every rank in the middle.
  assert np.isnan(effective['pearson']['control'])
  assert effective['retrieval']['control'] == pytest.approx(0.5)
  assert effective['mse']['control'] > effective['mse']['ceiling']
  # The mean of all explains what perturbations share.
  assert 0.2 < effective['pearson']['perturbed_mean'] < 0.45
  assert effective['retrieval']['perturbed_mean'] == pytest.approx(0.5)


def test_certificate_finds_a_ceiling_that_is_not_at_chance(effective):
  # Spearman-Brown takes 1/2 to 2/3, and ranks all over the range to 0.61.
  assert effective['corrected']['null'] == pytest.approx(0.61, abs=0.05)
  assert 'where nothing happens' in effective['corrected']['verdict']


def test_certificate_of_data_without_effects():
  lines = {
    line['metric']: line
    for line in certificate.certificate(simulated(0.0), TOY, splits=4)
  }
  # The labels mean nothing: the ceiling itself is what chance gives.
  assert abs(lines['pearson']['ceiling']) < 0.1
  assert lines['retrieval']['ceiling'] == pytest.approx(0.5, abs=0.15)
  assert lines['pearson']['dynamic_range'] < 0.1
  assert 'replicate' in lines['mse']['verdict']


def test_certificate_of_several_groups():
  (line,) = certificate.certificate(
    simulated(0.5, groups=2), TOY, wanted=['retrieval'], splits=2
  )
  assert line['conditions'] == 2 * len(CONDITIONS)
  assert line['ceiling'] > 0.8


def test_certificate_is_deterministic_and_checks_its_arguments():
  problem = simulated(0.5, cells=8)
  a, b = (
    certificate.certificate(problem, TOY, wanted=['pearson'], splits=2, seed=3)
    for _ in range(2)
  )
  assert a == b
  with pytest.raises(ValueError, match='splits is 1'):
    certificate.certificate(problem, TOY, splits=1)
  single = problem.choose(np.arange(2), ('k0',), (0,))
  labels = single.observed.labels.copy()
  labels[np.flatnonzero(labels == 1)[1:]] = -1
  single = single.with_sides(single.observed.relabelled(labels, 3), None)
  with pytest.raises(ValueError, match="first: 'g1'"):
    certificate.certificate(single, TOY)


@pytest.mark.parametrize(
  ('positive', 'negative', 'direction', 'expected'),
  [
    (0.8, 0.5, 'higher', 0.6),
    (0.2, 0.5, 'lower', 0.6),
    (0.5, 0.5, 'higher', 0.0),
    (-9, 0.5, 'higher', -1.0),
    (np.nan, 0.5, 'higher', np.nan),
  ],
)
def test_dynamic_range(positive, negative, direction, expected):
  best = 1.0 if direction == 'higher' else 0.0
  found = certificate.dynamic_range(
    column('x', best, direction, None), positive, negative
  )
  testing.assert_allclose(found, expected, atol=1e-5)


@pytest.fixture(scope='module')
def flags():
  lines = attacks.red_team(simulated(0.2), TOY)
  return {(line['metric'], line['submission']): line for line in lines}


@pytest.mark.parametrize(
  ('metric', 'submission', 'flagged'),
  [
    # Honest metrics reward nothing but what is shared by all perturbations.
    ('retrieval', 'control copy', False),
    ('retrieval', 'perturbed mean', False),
    ('retrieval', 'sign flipped', False),
    ('retrieval', 'constant', False),
    ('retrieval', 'scrambled', False),
    ('retrieval', 'order of names', False),
    ('pearson', 'sign flipped', False),
    ('pearson', 'perturbed mean', True),
    # The faults that were published, each found.
    ('unsigned', 'sign flipped', True),
    ('by name', 'order of names', True),
    ('mse', 'perturbed mean', True),
  ],
)
def test_red_team(flags, metric, submission, flagged):
  line = flags[metric, submission]
  assert tuple(line) == attacks.FIELDS
  assert line['flag'] == flagged, line
  if flagged:
    assert line['finding']


def test_red_team_says_what_a_metric_does_not_see(flags):
  assert 'is not seen' in flags['retrieval', 'effect x 3']['finding']
  assert 'is not seen' in flags['pearson', 'variance x 9']['finding']
  assert flags['mse', 'effect x 3']['finding'] == ''
  assert flags['pearson', 'control copy']['finding'] == 'no value'


# ----------------------------------------------------------------------------
# What they are made of.


def test_halves_share_no_cell_and_lose_none():
  problem = simulated(0.5, groups=2, cells=7)
  one = stand_ins.halves(problem, 1).problem
  assert not set(one.observed.rows) & set(one.predicted.rows)
  assert len(one.observed.rows) + len(one.predicted.rows) == len(
    problem.observed.labels
  )
  for side in (one.observed, one.predicted):
    testing.assert_array_equal(side.labels, problem.observed.labels[side.rows])
  turned = stand_ins.halves(problem, 1, turn=1).problem
  testing.assert_array_equal(turned.observed.mean, one.predicted.mean)


def test_null_keeps_cells_in_their_groups():
  problem = simulated(0.5, groups=2, cells=7)
  still = stand_ins.null(problem, 0)
  testing.assert_array_equal(still.observed.sizes, problem.observed.sizes)
  number = problem.num_conditions
  group_of = np.concatenate([problem.group, [0, 1]])
  before = group_of[problem.observed.labels]
  testing.assert_array_equal(group_of[still.observed.labels], before)
  assert (still.observed.labels != problem.observed.labels).mean() > 0.5
  assert number == 32


@pytest.mark.parametrize('name', ['control copy', 'perturbed mean', 'constant'])
def test_profiles_without_content_are_exactly_equal(name):
  found = stand_ins.halves(simulated(0.5), 0)
  side = stand_ins.NOTHING[name](found)
  mean = side.mean[: len(CONDITIONS)]
  assert (mean == mean[0]).all()


def test_control_copy_has_no_change_at_all():
  found = stand_ins.halves(closed_form.problem_a(), 0)
  copied = found.problem.with_sides(None, stand_ins.control_copy(found))
  assert (copied.deltas('predicted') == 0).all()


def test_spiked_target_is_all_that_is_predicted():
  found = stand_ins.halves(closed_form.problem_a(), 0)
  spiked = found.problem.with_sides(None, stand_ins.target_spiked(found))
  delta = spiked.deltas('predicted')
  testing.assert_allclose(delta[~spiked.target_mask], 0, atol=1e-7)
  own = spiked.control_means('predicted')[spiked.target_mask]
  testing.assert_allclose(delta[spiked.target_mask], -own, rtol=1e-6)


def test_moved_effects_are_what_they_say():
  found = stand_ins.halves(simulated(0.3), 0)
  truth = found.problem.deltas('predicted')
  low = found.problem.control_means('predicted') < 0.3

  def change(side):
    delta = found.problem.with_sides(None, side).deltas('predicted')
    return np.where(low, 0, delta), np.where(low, 0, truth)

  for name, factor in (('sign flipped', -1), ('effect x 3', 3)):
    made, real = change(stand_ins.WRONG[name](found))
    slope = (made * real).sum() / (real * real).sum()
    assert slope == pytest.approx(factor, abs=0.25 * abs(factor))
  made, real = change(stand_ins.WRONG['variance x 9'](found))
  assert np.corrcoef(made.ravel(), real.ravel())[0, 1] > 0.9


def test_interpolated_duplicate():
  found = stand_ins.halves(simulated(0.3), 0)
  problem = found.problem
  shape = (problem.num_conditions, len(GENES))
  means = problem.means('predicted')
  sure = stand_ins.interpolated(found, np.ones(shape)).mean[: shape[0]]
  testing.assert_allclose(sure, means)
  unsure = stand_ins.interpolated(found, np.zeros(shape)).mean[: shape[0]]
  testing.assert_allclose(unsure, np.broadcast_to(means.mean(0), shape))


def test_counts_get_counts_back():
  found = stand_ins.halves(closed_form.problem_b(), 0)
  for name, function in {**stand_ins.NOTHING, **stand_ins.WRONG}.items():
    side = function(found)
    assert np.isfinite(side.mean).all(), name
    assert (side.mean >= 0).all(), name
