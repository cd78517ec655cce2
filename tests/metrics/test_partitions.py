"""Agreement of two partitions; literals are scikit-learn 1.9.1's."""

import itertools

import numpy as np
import pytest
from numpy import testing

from pertjax.metrics import partitions

SCORES = {
  'ami': partitions.adjusted_mutual_information,
  'nmi': partitions.normalized_mutual_information,
  'ari': partitions.adjusted_rand_index,
}
MEMBER = np.arange(60)


@pytest.mark.parametrize(
  ('a', 'b', 'ami', 'nmi', 'ari'),
  [
    (
      MEMBER % 5, MEMBER % 7,
      -0.13587540914107793, 0.020794946221458804, -0.07403425786569197,
    ),
    (
      MEMBER // 10, MEMBER // 12,
      0.6786486069903899, 0.7163946960680297, 0.5594025797691785,
    ),
    (
      MEMBER // 10, (MEMBER + 3) // 10,
      0.6359264565906847, 0.6961145971189239, 0.4785952025708711,
    ),
    (
      MEMBER % 4, MEMBER**2 % 9,
      -0.05460195626272969, 0.00851229910680249, -0.045242257416442715,
    ),
    # All alone against pairs: chance does as well, whatever the pairs.
    (np.arange(6), np.arange(6) // 2, 0.0, 0.7601875334318686, 0.0),
  ],
)  # fmt: skip
def test_known_partitions(a, b, ami, nmi, ari):
  for name, expected in (('ami', ami), ('nmi', nmi), ('ari', ari)):
    for pair in ((a, b), (b, a)):
      testing.assert_allclose(SCORES[name](*pair), expected, atol=1e-12)


@pytest.mark.parametrize('name', list(SCORES))
def test_limits(name):
  score = SCORES[name]
  labels = np.array([0, 0, 1, 1, 2, 3])
  assert score(labels, np.array(list('zzaabc'))) == 1  # Names do not count.
  for same in (np.zeros(6), np.arange(6), np.zeros(1)):
    assert score(same, same) == 1
  # One cluster says nothing of several.
  assert score(labels, np.zeros(6)) == pytest.approx(0, abs=1e-15)
  assert score(np.zeros(6), labels) == pytest.approx(0, abs=1e-15)
  # Independent by construction: no information, and none below 0.
  independent = [0, 0, 1, 1], [0, 1, 0, 1]
  assert partitions.normalized_mutual_information(*independent) == 0
  with pytest.raises(ValueError, match=r'\(6,\) and \(5,\)'):
    score(labels, labels[:5])
  with pytest.raises(ValueError, match='not empty'):
    score([], [])


@pytest.mark.parametrize('b', [[0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 1, 2]])
def test_expectation_over_all_permutations(b):
  a, b = np.array([0, 0, 1, 1, 1, 2]), np.array(b)
  orders = [b[list(order)] for order in itertools.permutations(range(6))]
  overlaps = [partitions._overlap(a, order) for order in orders]
  mean = np.mean([partitions._information(overlap) for overlap in overlaps])
  expected = partitions._expected_information(overlaps[0])
  testing.assert_allclose(expected, mean, rtol=1e-12)
  for name in ('ami', 'ari'):
    values = [SCORES[name](a, order) for order in orders]
    testing.assert_allclose(np.mean(values), 0, atol=1e-12)


def test_large_partitions_do_not_overflow():
  generator = np.random.default_rng(0)
  a, b = generator.integers(0, 30, (2, 20_000))
  for name in ('ami', 'ari'):
    assert abs(SCORES[name](a, b)) < 2e-3
    assert SCORES[name](a, (a + 7) % 30) == 1
