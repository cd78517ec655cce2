"""Two-sided tails of the normal and of Student's t, down to any p.

Both return p and its natural logarithm, which goes on where p has become 0.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from pertjax.types import Array

# Degrees of freedom from which the t tail goes by the normal one, in its middle
# and up to t = sqrt(df).
_ENOUGH, _MANY = 10.0, 100.0

# Where the middle ends, steps of the continued fraction beyond, and points of
# the quadrature before: as many leave less than float32's rounding.
_FAR = 2.0
_STEPS = 20
_POINTS = 16


def normal(z: Array) -> tuple[Array, Array]:
  """Returns 2 Phi(-z), at most 1, and its natural logarithm."""
  log_p = jnp.minimum(math.log(2) + jax.scipy.special.log_ndtr(-z), 0)
  # Near 1 the logarithm has the fewer digits, and far out the more.
  p = jnp.minimum(2 * jax.scipy.special.ndtr(-z), 1)
  return jnp.where(z > 5, jnp.exp(log_p), p), log_p


def _log_beta_half(a: Array) -> Array:
  """Returns log B(a, 1/2).

  From a = 8 by the series of log Gamma(a + 1/2) - log Gamma(a) (Stirling): the
  difference of two large logarithms has no digits in float32.
  """
  large = jnp.maximum(a, 8)
  x = 1 / jnp.square(large)
  series = (-1 / 8 + x * (1 / 192 - x / 640)) / large
  large = 0.5 * (math.log(math.pi) - jnp.log(large)) - series
  small = jnp.minimum(a, 8)
  small = jax.lax.lgamma(small) - jax.lax.lgamma(small + 0.5)
  return jnp.where(a < 8, small + 0.5 * math.log(math.pi), large)


def student(t: Array, df: Array) -> tuple[Array, Array]:
  """Returns P(|T| >= t) of Student's t and its natural logarithm.

  From t = 2 it is I_x(df / 2, 1/2) at x = df / (df + t^2): a continued
  fraction (Abramowitz and Stegun 26.5.8) times x^a (1 - x)^b / (a B(a, b)), in
  logarithms that cannot underflow. Before, it is 1 less the integral of the
  density (Gauss-Legendre): `jax.scipy.special.betainc` loses digits with many
  degrees of freedom (4e-4 of p at 300 in float32) and is slow to compile. From
  100 degrees on before t = sqrt(df), and from 10 on before t = 2, t becomes a
  normal quantile (Hill, Comm. ACM 13, 1970, Algorithm 395; 2e-9 of p there).

  Args:
    t: not negative; infinity gives 0.
    df: degrees of freedom, 1 at least, of the same shape.
  """
  many = (df >= _MANY) & (jnp.square(t) < df)
  few = jnp.where(many, _MANY, df)
  a, b = few / 2, 0.5
  square = jnp.square(t) / few
  x = 1 / (1 + square)
  log_beta = _log_beta_half(a)

  near = jnp.minimum(t, _FAR)
  points, weights = np.polynomial.legendre.leggauss(_POINTS)
  points = jnp.asarray((points + 1) / 2, x.dtype)
  weights = jnp.asarray(weights, x.dtype)

  def add(i, area):
    u = near * points[i]
    return area + weights[i] * jnp.exp(-(a + b) * jnp.log1p(u * u / few))

  area = jax.lax.fori_loop(0, _POINTS, add, jnp.zeros_like(x))
  # Twice the density, times half the interval.
  area *= near * jnp.exp(-log_beta) / jnp.sqrt(few)
  middle = 1 - area

  def step(i, fraction):
    # From the inside out: m runs from _STEPS down to 1.
    m = (_STEPS - i).astype(x.dtype)
    even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
    fraction = 1 + even / fraction
    m = m - 1
    odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    return 1 + odd / fraction

  fraction = jax.lax.fori_loop(0, _STEPS, step, jnp.ones_like(x))
  log_p = -a * jnp.log1p(square) + b * (jnp.log(square) - jnp.log1p(square))
  log_p = log_p - jnp.log(a) - log_beta - jnp.log(fraction)
  far = t >= _FAR
  p = jnp.where(far, jnp.exp(log_p), middle)
  log_p = jnp.where(far, log_p, jnp.log1p(-area))

  enough = jnp.maximum(df, _ENOUGH)
  a = enough - 0.5
  b = 48 * a * a
  z = jnp.sqrt(a * jnp.log1p(jnp.square(t) / enough))
  odd = z * (855 + z * z * (240 + z * z * (33 + z * z * 4)))
  z += z * (z * z + 3) / b - odd / (10 * b * (b + 0.8 * z**4 + 100))
  p_many, log_p_many = normal(z)
  approximate = many | ((df >= _ENOUGH) & ~far)
  p = jnp.where(approximate, p_many, p)
  log_p = jnp.where(approximate, log_p_many, log_p)
  return (
    jnp.where(jnp.isinf(t), 0, p),
    jnp.where(jnp.isinf(t), -jnp.inf, log_p),
  )
