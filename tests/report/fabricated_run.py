"""Run directories made up for looking at and testing the report."""

import csv
import hashlib
import json

import numpy as np

from pertjax.metrics import comparison_table
from pertjax.metrics.attacks import FIELDS as RED_TEAM_HEADER
from pertjax.metrics.certificate import FIELDS as CERTIFICATE_HEADER

CSV_HEADER = (
  'model', 'seed', 'split', 'regime', 'covariate', 'condition', 'aggregate',
  'genes', 'metric', 'value', 'cells',
)  # fmt: skip
SUMMARY_HEADER = (
  'model', 'split', 'regime', 'aggregate', 'genes', 'metric', 'mean', 'low',
  'high', 'seeds', 'seed_sd', 'conditions', 'dropped', 'direction', 'best',
)  # fmt: skip
METRICS = ('cosine', 'pearson', 'rmse', 'mse', 'mae', 'r2')
LARGE_METRICS = METRICS + tuple(f'{name}_rank' for name in METRICS)
BASELINES = ('control', 'mean', 'additive', 'ridge')
# How far a model's error is from the effect, and how much it shrinks effects.
QUALITY = {
  'latent_additive': (0.55, 0.85),
  'decoder_only': (0.75, 0.8),
  'scgen': (0.95, 0.7),
  'additive': (0.5, 0.95),
  'ridge': (0.7, 0.6),
}


def write(
  workdir,
  *,
  conditions=40,
  genes=400,
  seeds=5,
  groups=('K562', 'RPE1'),
  own='latent_additive',
  trained=('latent_additive', 'decoder_only', 'scgen'),
  failed=(3,),
  steps=4000,
  seed=0,
):
  """Writes a whole run directory; numbers follow from simulated effects."""
  rng = np.random.default_rng(seed)
  (workdir / 'eval').mkdir(parents=True, exist_ok=True)
  singles = [f'{a}{i}' for i, a in enumerate(_symbols(rng, conditions))]
  names = [
    singles[i] if i % 2 else '+'.join(sorted((singles[i], singles[i - 2])))
    for i in range(conditions)
  ]
  regimes = ['unseen_single' if i % 2 else 'seen2' for i in range(conditions)]
  gene_names = _symbols(rng, genes)
  pairs = [(c, g) for g in range(len(groups)) for c in range(conditions)]
  base = rng.gamma(0.6, 0.8, (len(groups), genes))
  strength = rng.lognormal(-0.9, 0.7, conditions)
  effect = rng.laplace(0, 1, (conditions, genes))
  effect *= rng.random((conditions, genes)) < 0.12
  effect = effect * strength[:, None] + 0.12 * rng.laplace(0, 1, genes)
  control = np.stack([base[g] for _, g in pairs])
  truth = np.stack([effect[c] * (1 + 0.15 * g) for c, g in pairs])
  cells = rng.integers(25, 240, len(pairs))
  noise = 0.9 / np.sqrt(cells)[:, None]
  observed = truth + noise * rng.normal(size=truth.shape)

  runs = {('ceiling', -1): truth + noise * rng.normal(size=truth.shape)}
  typical = truth.mean(0, keepdims=True)
  for model in BASELINES + tuple(trained):
    for member in range(seeds) if model in trained else (-1,):
      if member in failed and model == own:
        continue
      if model == 'control':
        change = np.zeros_like(truth)
      elif model == 'mean':
        change = np.broadcast_to(typical, truth.shape)
      else:
        error, shrink = QUALITY.get(model, (0.8, 0.8))
        wrong = rng.normal(size=truth.shape) * truth.std(1, keepdims=True)
        hard = np.array(
          [1.35 if regimes[c] != 'seen2' else 0.9 for c, _ in pairs]
        )
        change = shrink * truth + 0.2 * typical
        change = change + error * hard[:, None] * wrong * (
          0.8 + 0.1 * max(member, 0)
        )
      runs[model, member] = change

  scored = {
    key: _score(change, observed, control) for key, change in runs.items()
  }
  rows = []
  for (model, member), values in scored.items():
    for (aggregate, gene_set, metric), value in values.items():
      for p, (c, g) in enumerate(pairs):
        rows.append(
          (
            model,
            member,
            'test',
            regimes[c],
            groups[g],
            names[c],
            aggregate,
            gene_set,
            metric,
            repr(float(value[p])),
            int(cells[p]),
          )
        )
  _write_csv(workdir / 'eval/metrics.csv', CSV_HEADER, rows)
  _write_summary(workdir / 'eval/summary.csv', rows)
  write_paired(workdir / 'eval/paired.csv', rows)
  write_calibration(workdir / 'eval', METRICS)
  models = list(dict.fromkeys(model for model, _ in runs if model != 'ceiling'))
  np.savez(
    workdir / 'eval/profiles.npz',
    pairs=np.array([f'{names[c]}|{groups[g]}' for c, g in pairs]),
    models=np.array(models),
    genes=np.array(gene_names),
    observed=(control + observed).astype(np.float32),
    control=control.astype(np.float32),
    predicted=np.stack(
      [
        control + np.mean([v for (m, _), v in runs.items() if m == model], 0)
        for model in models
      ]
    ).astype(np.float16),
  )
  _write_curves(workdir / 'metrics.jsonl', rng, seeds, failed, steps)
  _write_split(workdir, names, regimes, groups, cells, pairs)
  _write_facts(workdir, names, gene_names, groups, seeds, failed, own, steps)
  return workdir


def write_large(
  workdir, *, conditions=300, genes=5000, models=10, metrics=LARGE_METRICS
):
  """Writes a run with noise for numbers, as large as the page promises."""
  rng = np.random.default_rng(0)
  (workdir / 'eval').mkdir(parents=True, exist_ok=True)
  genes = [f'GENE{i}' for i in range(genes)]
  names = [f'{genes[i]}+{genes[i + 1]}' for i in range(conditions)]
  regimes = ('seen2', 'seen1', 'unseen_single')
  model_names = [*BASELINES, *(f'model_{i}' for i in range(models - 5))]
  rows = []
  for m, model in enumerate([*model_names, 'ceiling']):
    for aggregate in ('average', 'delta', 'logfc'):
      for gene_set in ('all', 'top20'):
        for metric in metrics:
          values = rng.normal(0.3 + 0.02 * m, 0.2, conditions).tolist()
          rows += [
            (
              model,
              -1 if m < 4 or model == 'ceiling' else 0,
              'test',
              regimes[i % 3],
              'all',
              name,
              aggregate,
              gene_set,
              metric,
              value,
              99,
            )
            for i, (name, value) in enumerate(zip(names, values))
          ]
  _write_csv(workdir / 'eval/metrics.csv', CSV_HEADER, rows)
  _write_summary(workdir / 'eval/summary.csv', rows)
  write_paired(workdir / 'eval/paired.csv', rows)
  write_calibration(workdir / 'eval', metrics)
  shape = (models - 1, conditions, len(genes))
  predicted = rng.standard_normal(shape, np.float32).astype(np.float16)
  np.savez(
    workdir / 'eval/profiles.npz',
    pairs=np.array([f'{name}|all' for name in names]),
    models=np.array(model_names),
    genes=np.array(genes),
    observed=predicted[0] + predicted[1],
    control=predicted[2],
    predicted=predicted,
  )
  config = {'model': {'name': 'model_0'}}
  (workdir / 'config.json').write_text(json.dumps(config))
  return workdir


def write_paired(path, rows):
  """Tests the rows of eval/metrics.csv as a run does."""
  values, pairs = {}, {}
  for row in rows:
    model, member, _, regime, group, condition, *combo, value, _ = row
    pair = pairs.setdefault((condition, group, regime), len(pairs))
    own = values.setdefault(model, {}).setdefault(tuple(combo), {})
    own.setdefault(member, {})[pair] = float(value)
  closed = [
    model
    for model, own in values.items()
    if list(next(iter(own.values()))) == [-1]
  ]
  dense = {
    model: {
      combo: np.array([[m[p] for p in range(len(pairs))] for m in own.values()])
      for combo, own in found.items()
    }
    for model, found in values.items()
  }
  metrics = {combo[2] for own in values.values() for combo in own}
  lines, notes = comparison_table.lines(
    dense,
    judged=[m for m in values if m not in closed],
    baselines=[m for m in closed if m != 'ceiling'],
    directions={
      m: 'higher' if m in ('cosine', 'pearson', 'r2') else 'lower'
      for m in metrics
    },
    conditions=[condition for condition, _, _ in pairs],
    regimes=[regime for _, _, regime in pairs],
    split='test',
    num=500,
  )
  assert notes == []
  fields = comparison_table.FIELDS
  _write_csv(path, fields, [_fields(line, fields) for line in lines])


def write_calibration(folder, metrics):
  """Writes a certificate and a red team for metrics of log fold changes."""
  lines, trials = [], []
  for i, metric in enumerate(metrics):
    higher = metric in ('cosine', 'pearson', 'r2')
    best, worst = (1.0, 0.1) if higher else (0.0, 0.8)
    ceiling = worst + (0.1 + i % 9 / 10) * (best - worst)
    line = dict.fromkeys(CERTIFICATE_HEADER, np.nan) | {
      'convention': 'perturbench' if i % 3 else 'a<b>',
      'metric': f'{metric}_logfc' if i else 'delta|all|cosine',
      'version': 1,
      'direction': 'none' if i == 3 else 'higher' if higher else 'lower',
      'best': np.nan if i == 3 else best,
      'perturbed_mean': worst,
      'control': worst - 30 if i == 2 else worst,
      'technical_duplicate': ceiling,
      'ceiling': ceiling,
      'ceiling_low': ceiling - 0.02,
      'ceiling_high': ceiling + 0.02,
      'null': worst,
      'null_low': worst - 0.1,
      'null_high': worst + 0.1,
      'dynamic_range': i % 9 / 10,
      'conditions': 12,
      'verdict': _VERDICTS[i % len(_VERDICTS)],
    }
    lines.append(_fields(line, CERTIFICATE_HEADER))
    for flag in (False, i % 2 == 1):
      trial = dict.fromkeys(RED_TEAM_HEADER, np.nan) | {
        'convention': 'perturbench',
        'metric': f'{metric}_logfc',
        'submission': 'sign flipped' if flag else 'scrambled',
        'value': 0.7,
        'flag': flag,
        'finding': 'scores above a <i>replicate</i>' if flag else '',
      }
      trials.append(_fields(trial, RED_TEAM_HEADER))
  _write_csv(folder / 'certificate.csv', CERTIFICATE_HEADER, lines)
  _write_csv(folder / 'red_team.csv', RED_TEAM_HEADER, trials)


_VERDICTS = (
  'tells a replicate from the mean',
  'a replicate is no better than the mean',
  'tells a replicate from the mean',
  'a diagnostic: nothing is better or worse',
)


def _fields(line, names):
  """Values as a run writes them: nothing for NaN."""
  return [
    '' if isinstance(line[n], float) and np.isnan(line[n]) else line[n]
    for n in names
  ]


def _symbols(rng, count):
  """Returns names that look like genes; two of them need escaping."""
  letters = np.array(list('ABCDEFGHIKLMNPRSTXZ'))
  names = dict.fromkeys(['A&B', '<b>'][: min(2, count)])
  while len(names) < count:
    stem = ''.join(rng.choice(letters, rng.integers(3, 5)))
    names[f'{stem}{rng.integers(1, 20)}'] = None
  return list(names)


def _score(change, observed, control):
  scores = {}
  floor = np.log2(control + 0.1)

  def logfc(delta):
    return np.log2(np.maximum(control + delta, 0) + 0.1) - floor

  views = {
    'average': (control + change, control + observed),
    'delta': (change, observed),
    'logfc': (logfc(change), logfc(observed)),
  }
  top = np.argsort(-np.abs(observed), axis=1)[:, :20]
  for aggregate, (guess, truth) in views.items():
    for gene_set in ('all', 'top20'):
      if gene_set == 'top20':
        guess = np.take_along_axis(guess, top, 1)
        truth = np.take_along_axis(truth, top, 1)
        tables = {m: _metric(m, guess, truth) for m in METRICS}
      else:
        tables = {m: _metric(m, guess, truth) for m in METRICS}
      crossed = {
        m: np.stack([_metric(m, g[None], truth) for g in guess])
        for m in METRICS
      }
      for metric in METRICS:
        scores[aggregate, gene_set, metric] = tables[metric]
        # Closeness of prediction i to truth p: column p is ranked.
        close = crossed[metric]
        if metric in ('cosine', 'pearson', 'r2'):
          close = -close
        own = np.diagonal(close)
        less = (close < own).mean(0) + 0.5 * ((close == own).mean(0))
        less = less - 0.5 / len(close)
        scores[aggregate, gene_set, f'{metric}_rank'] = np.where(
          np.isfinite(own), less, np.nan
        )
  return scores


def _metric(name, guess, truth):
  with np.errstate(invalid='ignore', divide='ignore'):
    if name == 'pearson':
      guess = guess - guess.mean(1, keepdims=True)
      truth = truth - truth.mean(1, keepdims=True)
    if name in ('pearson', 'cosine'):
      norms = np.sqrt((guess**2).sum(1) * (truth**2).sum(1))
      return (guess * truth).sum(1) / norms
    if name == 'r2':
      spread = ((truth - truth.mean(1, keepdims=True)) ** 2).sum(1)
      return 1 - ((guess - truth) ** 2).sum(1) / spread
    if name == 'mae':
      return np.abs(guess - truth).mean(1)
    mse = ((guess - truth) ** 2).mean(1)
    return mse if name == 'mse' else np.sqrt(mse)


def _write_csv(path, header, rows):
  with path.open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows(rows)


def _write_summary(path, rows):
  """Averages over seeds, then conditions; intervals are normal here."""
  cells = {}
  for row in rows:
    model, member, split, regime, group, condition, *combo, value, _ = row
    for shown in ('all', regime):
      place = cells.setdefault((model, split, shown, *combo), {})
      place.setdefault((group, condition), {})[member] = float(value)
  table = []
  for key, found in cells.items():
    means = np.array([_finite_mean(v.values()) for v in found.values()])
    kept = means[np.isfinite(means)]
    members = sorted({m for v in found.values() for m in v})
    by_member = [
      _finite_mean([v.get(m, np.nan) for v in found.values()]) for m in members
    ]
    mean = kept.mean() if len(kept) else np.nan
    half = 1.96 * kept.std() / np.sqrt(len(kept)) if len(kept) else np.nan
    metric = key[-1]
    higher = metric in ('cosine', 'pearson', 'r2')
    table.append(
      (
        *key,
        repr(float(mean)),
        repr(float(mean - half)),
        repr(float(mean + half)),
        len(members),
        repr(float(np.std(by_member, ddof=1))) if len(members) > 1 else '',
        len(kept),
        len(means) - len(kept),
        'higher' if higher else 'lower',
        1 if higher else 0,
      )
    )
  _write_csv(path, SUMMARY_HEADER, table)


def _finite_mean(values):
  values = [v for v in values if np.isfinite(v)]
  return float(np.mean(values)) if values else np.nan


def _write_curves(path, rng, seeds, failed, steps):
  with path.open('w') as file:
    for step in range(20, steps + 1, 20):
      for member in range(seeds):
        broken = member in failed and step > 0.3 * steps
        if member in failed and step > 0.32 * steps:
          continue
        fit = 0.05 + 0.9 * np.exp(-step / (500 + 60 * member))
        worse = 0.03 * (step / steps) ** 2
        row = {
          'step': step,
          'seed': member,
          'train_loss': None if broken else fit * np.exp(0.1 * rng.normal()),
          'val_loss': fit * 1.1 + worse + 0.003 * rng.normal()
          if step % 200 == 0 and not broken
          else None,
          'learning_rate': 1e-3 * 0.5 * (1 + np.cos(np.pi * step / steps)),
          'grad_norm': float(rng.lognormal(0, 0.4))
          * 20
          * fit
          * (30 if member in failed and step > 0.25 * steps else 1),
        }
        file.write(json.dumps(row) + '\n')


def _write_split(workdir, names, regimes, groups, cells, pairs):
  rows = []
  for p, (c, g) in enumerate(pairs):
    for i in range(int(cells[p])):
      rows.append(
        (f'{groups[g]}-{c}-{i}', 'test', names[c], groups[g], regimes[c])
      )
  _write_csv(
    workdir / 'split.csv',
    ('cell', 'split', 'condition', 'group', 'regime'),
    rows,
  )
  summary = []
  for g, group in enumerate(groups):
    summary += [
      {
        'group': group,
        'split': 'train',
        'regime': '',
        'conditions': 74,
        'cells': 11203 + 91 * g,
      },
      {
        'group': group,
        'split': 'val',
        'regime': '',
        'conditions': 12,
        'cells': 1444 + g,
      },
    ]
    for regime in sorted(set(regimes)):
      kept = [
        p for p, (c, h) in enumerate(pairs) if h == g and regimes[c] == regime
      ]
      summary.append(
        {
          'group': group,
          'split': 'test',
          'regime': regime,
          'conditions': len(kept),
          'cells': int(cells[kept].sum()),
        }
      )
  (workdir / 'split_summary.json').write_text(json.dumps(summary))


def _write_facts(workdir, names, genes, groups, seeds, failed, own, steps):
  config = {
    'seed': 0,
    'data': {'name': 'norman', 'path': None, 'preprocess': {'target': 1e4}},
    'split': {'method': 'simulation', 'train_fraction': 0.75},
    'model': {'name': own, 'hidden': [256, 256], 'dropout': 0.1, 'note': '<b>'},
    'train': {'steps': steps, 'batch_size': 512, 'learning_rate': 1e-3},
  }
  (workdir / 'config.json').write_text(json.dumps(config))
  digest = hashlib.sha256((workdir / 'split.csv').read_bytes()).hexdigest()
  members = [
    {
      'member': i,
      'seed': i,
      'overrides': {},
      'status': f'failed at step {int(0.3 * steps)}' if i in failed else 'ok',
      'best_step': int((0.25 if i in failed else 0.6) * steps) // 200 * 200,
    }
    for i in range(seeds)
  ]
  env = {
    'pertjax': '0.1.0',
    'python': '3.11.9',
    'packages': {'jax': '0.10.2', 'flax': '0.12.8', 'numpy': '2.4.6'},
    'devices': ['NVIDIA H200'],
    'revision': '3f2c1d9a7b6e5f40312233445566778899aabbcc',
    'dirty': False,
    'data_fingerprint': hashlib.sha256(b'data').hexdigest(),
    'split_sha256': digest,
    'dataset': 'norman_semisynthetic',
    'source': {'dataset': 'norman_semisynthetic', 'preset': 'perturbench'},
    'notes': ['3 doubles lack one of their singles and were left out.'],
    'num_cells': 26135,
    'num_genes': len(genes),
    'num_conditions': len(names) + 75,
    'num_perturbations': 105,
    'groups': list(groups),
    'model_parameters': 1_204_480,
    'members': members,
    'metric_versions': {'pearson': 1, 'cosine': 1, 'rmse': 1},
  }
  (workdir / 'env.json').write_text(json.dumps(env))
