"""Student's t on the host, without a library of distributions."""

from __future__ import annotations

import math
import statistics

import numpy as np

# Of Gauss and Legendre.
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def noncentral(alpha: float, power: float, freedom: np.ndarray) -> np.ndarray:
  """Non-centrality at which a two-sided t test has the power, see above."""
  t = quantile(alpha, freedom)
  z = statistics.NormalDist().inv_cdf(power)
  gamma = np.array(
    [math.lgamma((v + 1) / 2) - math.lgamma(v / 2) for v in freedom]
  )
  c = np.sqrt(2 / freedom) * np.exp(gamma)
  return t * c + z * np.sqrt(1 + t**2 * np.maximum(1 - c**2, 0))


def two_sided(t: np.ndarray, freedom: np.ndarray) -> np.ndarray:
  """P(|T| >= t) of Student's t on the host, to 1e-12; degrees of freedom >= 1.

  With t = sqrt(v) tan(u) the density is a power of cos(u), integrated from 0.
  """
  t, v = np.broadcast_arrays(np.abs(np.asarray(t, np.float64)), freedom)
  # Beyond, cos(u)^(v - 1) < exp(-(v - 1) u^2 / 2) is nothing.
  end = np.minimum(np.arctan(t / np.sqrt(v)), 9 / np.sqrt(np.maximum(v - 1, 1)))
  u = end[..., None] * (_POINTS + 1) / 2
  area = end / 2 * np.sum(_WEIGHTS * np.cos(u) ** (v[..., None] - 1), -1)
  log_gamma = np.frompyfunc(math.lgamma, 1, 1)
  scale = log_gamma((v + 1) / 2) - log_gamma(v / 2)
  scale = 2 / math.sqrt(math.pi) * np.exp(np.asarray(scale, np.float64))
  return np.clip(1 - scale * area, 0, 1)


def quantile(alpha: float, freedom: np.ndarray) -> np.ndarray:
  """Returns t with P(|T| >= t) = alpha, by bisection of its angle."""
  freedom = np.asarray(freedom, np.float64)
  low, high = np.zeros(freedom.shape), np.full(freedom.shape, math.pi / 2)
  for _ in range(50):
    middle = (low + high) / 2
    above = two_sided(np.sqrt(freedom) * np.tan(middle), freedom) > alpha
    low, high = np.where(above, middle, low), np.where(above, high, middle)
  return np.sqrt(freedom) * np.tan((low + high) / 2)
