"""Local regression against R."""

import numpy as np

from pertjax.data import loess

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
  fit = loess.fit(
    CARS[order], STOPPING[order], at=np.arange(5.0, 26), span=0.75
  )
  np.testing.assert_allclose(fit, expected, atol=6e-7)


def test_loess_reproduces_a_quadratic_and_survives_ties():
  rng = np.random.default_rng(1)
  x = rng.normal(size=300)
  y = 2 - x + 0.5 * x**2
  np.testing.assert_allclose(loess.fit(x, y), y, atol=1e-2)
  local = [loess._local_fit(np.sort(x), y[np.argsort(x)], c, 90) for c in x]
  np.testing.assert_allclose([value for value, _ in local], y, atol=1e-9)
  np.testing.assert_allclose([slope for _, slope in local], x - 1, atol=1e-9)
  for num in range(1, 25):
    tied = rng.choice(rng.normal(size=max(1, num // 6)), num)
    fit = loess.fit(tied, rng.normal(size=num))
    assert np.isfinite(fit).all()
