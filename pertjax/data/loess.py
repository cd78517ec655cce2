"""Local regression in one dimension, as R and scikit-misc do it."""

from __future__ import annotations

import numpy as np


def fit(
  x: np.ndarray,
  y: np.ndarray,
  *,
  at: np.ndarray | None = None,
  span: float = 0.3,
  cell: float = 0.2,
) -> np.ndarray:
  """Fits local quadratics with tricube weights, and blends them.

  Cleveland & Grosse (1991): the fit is exact at the vertices of a k-d tree,
  whose cells hold at most `span * cell` of the points, and between vertices it
  is the cubic that has their values and slopes. Agrees with `loess` of R and
  of scikit-misc at degree 2, one predictor, gaussian family. Where so many
  points share one x that a neighbourhood has no width, those raise; here it is
  widened to the next point.

  Args:
    x: [points] predictor.
    y: [points] response.
    at: where to evaluate, within the range of x; x by default.
    span: share of the points in each neighbourhood.
    cell: share of a neighbourhood in each cell of the tree.

  Returns:
    float64, as `at`.
  """
  order = np.argsort(x, kind='stable')
  x, y, at = np.asarray(x, float), np.asarray(y, float), x if at is None else at
  x, y = x[order], y[order]
  count = len(x)
  near = min(count, max(int(count * span + 1e-5), min(count, 4)))
  vertices = _vertices(x, int(count * span * cell))
  fits = np.array([_local_fit(x, y, vertex, near) for vertex in vertices])
  value, slope = fits[:, 0], fits[:, 1]
  left = np.clip(
    np.searchsorted(vertices, at, side='right') - 1, 0, len(vertices) - 2
  )
  width = vertices[left + 1] - vertices[left]
  t = (at - vertices[left]) / width
  # Cubic Hermite basis.
  return (
    value[left] * (1 + 2 * t) * (1 - t) ** 2
    + value[left + 1] * t**2 * (3 - 2 * t)
    + slope[left] * width * t * (1 - t) ** 2
    + slope[left + 1] * width * t**2 * (t - 1)
  )


def _vertices(x: np.ndarray, most: int) -> np.ndarray:
  """Returns the sorted vertices of a one-dimensional k-d tree over sorted x.

  A cell of more than `most` points is cut at its middle point, or at the
  nearest place where neighbours differ.
  """
  low, high = x[0], x[-1]
  largest = max(abs(low), abs(high))
  margin = 0.005 * max(high - low, 1e-10 * largest + 1e-30)
  bounds = (low - margin, high + margin)
  vertices = set(bounds)
  cells = [(0, len(x) - 1, *bounds)]
  while cells:
    first, last, left, right = cells.pop()
    if last - first + 1 <= max(most, 1):
      continue
    cut = _cut(x, first, last)
    if cut is None or x[cut] in (left, right):
      continue
    vertices.add(x[cut])
    cells.append((first, cut, left, x[cut]))
    cells.append((cut + 1, last, x[cut], right))
  return np.array(sorted(vertices))


def _cut(x: np.ndarray, first: int, last: int) -> int | None:
  """Returns the index after which to cut, nearest the middle, or None."""
  differs = np.flatnonzero(x[first:last] != x[first + 1 : last + 1]) + first
  if not len(differs):
    return None
  # Counted from one, the middle of (first, last) is rounded down.
  middle = (first + last + 2) // 2 - 1
  distance = np.abs(differs - middle)
  # Of two at the same distance the later one is tried first.
  return int(differs[np.lexsort((-differs, distance))[0]])


def _local_fit(
  x: np.ndarray, y: np.ndarray, center: float, near: int
) -> tuple[float, float]:
  """Returns value and slope at `center` of a tricube-weighted quadratic."""
  distance = np.abs(x - center)
  radius = np.partition(distance, near - 1)[near - 1]
  if radius == 0:
    positive = distance[distance > 0]
    # Twice the distance, so that the nearest other point has weight.
    radius = 2 * positive.min() if len(positive) else 1.0
  inside = distance < radius
  offset = x[inside] - center
  root = np.sqrt((1 - (distance[inside] / radius) ** 3) ** 3)
  design = root[:, None] * np.stack(
    [np.ones_like(offset), offset, offset**2], axis=1
  )
  norm = np.linalg.norm(design, axis=0)
  norm[norm == 0] = 1.0
  solution = np.linalg.lstsq(
    design / norm, root * y[inside], rcond=100 * np.finfo(float).eps
  )[0]
  value, slope, _ = solution / norm
  return float(value), float(slope)
