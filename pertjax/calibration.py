"""The certificate of a run: what nothing and everything get on its held-out.

The metrics of the leaderboard, calibrated as `metrics.certificate` does it, on
the truth in halves that the models are scored on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from pertjax import heldout, metrics, scoring, targets, types
from pertjax.data import arrays
from pertjax.metrics import attacks, certificate, differential
from pertjax.metrics.conventions import base
from pertjax.metrics.differential import tails

CONVENTION = 'pertjax'


def lines(
  config,
  data: arrays.PerturbArrays,
  spec: types.DataSpec,
  truth: targets.Targets,
  *,
  say: Callable[[str], None],
) -> list[dict[str, Any]]:
  """Calibrates every metric of the leaderboard.

  Args:
    config: the run's config; eval.certificate cuts and permutations are made.
    data: the dataset.
    spec: its static facts.
    truth: of the held-out pairs.
    say: takes lines for a person.

  Returns:
    A line with the keys of `certificate.FIELDS` for each metric, which is named
    aggregate|genes|metric; [] where eval.certificate is 0.
  """
  number = config.eval.certificate
  if not number:
    return []
  say(f'certificate: {number} cuts in halves, {number} without effects')
  found = scoring.halves_of(truth)
  nothing = scoring.score(config, found, _stand_ins(found))
  ceilings, nulls = [], []
  for k in range(number):
    cut = found
    if k:
      cut = targets.make(config, data, spec, seed=config.eval.seed + k)
    ceilings.append(_ceiling(config, cut))
    still = targets.make(
      config, data, spec, seed=config.eval.seed + k, null=True
    )
    nulls.append(_ceiling(config, still))
  values = {s.name: s.values for s in nothing}
  return [
    certificate.line(
      CONVENTION,
      _column(key),
      _chance(config, metrics.get(key[2]).chance, truth),
      {name: of[key][0] for name, of in values.items()},
      [ceiling[key][0] for ceiling in ceilings],
      [null[key][0] for null in nulls],
      config.eval.seed,
    )
    for key in ceilings[0]
  ]


def red_team(
  config, spec: types.DataSpec, truth: targets.Targets
) -> list[dict[str, Any]]:
  """Tries submissions that deserve nothing on every metric of the leaderboard.

  As `metrics.attacks` does it, on means: a spread that is too large is not seen
  by any metric here and is left out.

  Args:
    config: the run's config.
    spec: static facts of the data.
    truth: of the held-out pairs.

  Returns:
    A line with the keys of `attacks.FIELDS` for each metric and submission;
    [] where eval.certificate is 0.
  """
  if not config.eval.certificate:
    return []
  found = scoring.halves_of(truth)
  control = truth.replicate_control[::-1]
  entries = [
    heldout.Predicted(name, (-1,), means[None].astype(np.float32), control)
    for name, means in _submissions(spec, found).items()
  ]
  scored = scoring.score(config, found, [scoring.replicate(found), *entries])
  replicate, *others = (s.values for s in scored)
  values = dict(zip((e.name for e in entries), others))
  return [
    attacks.line(
      CONVENTION,
      _column(key),
      _chance(config, metrics.get(key[2]).chance, truth),
      name,
      values[name][key][0],
      replicate[key][0],
      values['scrambled'][key][0],
    )
    for key in replicate
    for name in values
  ]


def _submissions(spec, truth) -> dict[str, np.ndarray]:
  """Returns the means [2, pairs, genes] of each; see `stand_ins`."""
  other = truth.replicate[::-1]
  control = truth.replicate_control[::-1][:, truth.group]
  mean, partner = np.empty_like(other), np.arange(len(truth.group))
  for group in np.unique(truth.group):
    chosen = np.flatnonzero(truth.group == group)
    mean[:, chosen] = other[:, chosen].mean(1, keepdims=True)
    partner[chosen] = np.roll(chosen, 1)
  # Who knows the name of a perturbed gene knows that much.
  spiked = control.copy()
  place = dict(zip(spec.perturbations, spec.perturbation_genes))
  for pair, condition in enumerate(truth.condition):
    for token in spec.conditions.tokens[int(condition)]:
      if place.get(token, -1) >= 0:
        spiked[:, pair, place[token]] = 0
  mixed = control.copy()
  mixed[:, ::2] = np.expm1(mixed[:, ::2])
  return {
    'control copy': control,
    'perturbed mean': mean,
    'constant': np.full_like(other, control.mean()),
    'target spiked': spiked,
    'scrambled': other[:, partner],
    'sign flipped': np.maximum(2 * control - other, 0),
    'effect x 3': np.maximum(control + 3 * (other - control), 0),
    'mixed scale': mixed,
  }


def _ceiling(config, truth: targets.Targets):
  found = scoring.halves_of(truth)
  (scored,) = scoring.score(config, found, [scoring.replicate(found)])
  return scored.values


def _stand_ins(truth: targets.Targets) -> list[heldout.Predicted]:
  """Makes predictions of the other half of the cells; see `certificate`."""
  other, control = truth.replicate[::-1], truth.replicate_control[::-1]
  mean = np.empty_like(other)
  for group in np.unique(truth.group):
    chosen = truth.group == group
    mean[:, chosen] = other[:, chosen].mean(1, keepdims=True)
  # The normal distribution in place of Student's: weights, not tests.
  p, _ = tails.normal(jnp.abs(jnp.asarray(truth.replicate_t[::-1])))
  sure = 1 - np.asarray(differential.benjamini_hochberg(p))
  sure = np.where(np.isnan(sure), 0, sure)
  made = {
    'control': control[:, truth.group],
    'perturbed_mean': mean,
    'interpolated': sure * other + (1 - sure) * mean,
  }
  return [
    heldout.Predicted(name, (-1,), means[None].astype(np.float32), control)
    for name, means in made.items()
  ]


def _column(key: tuple[str, str, str]) -> base.Column:
  entry = metrics.get(key[2])
  return base.Column(
    name='|'.join(key),
    formula='',
    best=entry.best,
    direction=entry.direction,
    reference=entry.reference,
    version=entry.version,
  )


def _chance(config, chance: float | None, truth) -> float | None:
  """Returns the chance value of a metric; ranks of 'n' are a little below."""
  if chance is None or config.eval.rank_denominator != 'n':
    return chance
  sizes = np.bincount(truth.group)
  sizes = sizes[sizes > 0]
  return float(((sizes - 1) / 2).sum() / sizes.sum())
