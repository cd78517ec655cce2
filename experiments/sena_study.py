"""What SENA recovers where the truth is known, and how it does on real doubles.

  python -m experiments.sena_study simulated --workdir=runs/sena_simulated
  python -m experiments.sena_study norman --workdir=runs/sena_norman \
    --data=FILE.h5ad --gene_sets=GMT

`simulated` trains the discrepancy-VAE with gene sets (SENA) and with a dense
layer (MLP) on worlds as the model assumes them, and compares factors, targets
and graph with the truth -> experiments/results/sena_simulated.md. `norman`
scores them on held-out doubles beside the baselines
-> experiments/results/sena_norman.md. A run that is finished is not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import pathlib
import statistics

import numpy as np
from scipy import stats

from pertjax import config as config_lib
from pertjax import runs
from pertjax.data import simulate
from pertjax.metrics import recovery

RESULTS = pathlib.Path(__file__).resolve().parent / 'results'
# Encoders of the grid: name, keys of config.model.
ENCODERS = {
  'SENA, lambda 0': {'encoder': 'sena', 'sena_lambda': 0.0},
  'SENA, lambda 0.1': {'encoder': 'sena', 'sena_lambda': 0.1},
  'MLP': {'encoder': 'mlp'},
  # The weights of the discrepancy-VAE (arXiv 2307.06250): more on the MMD, no
  # sharpening to speak of.
  "SENA, parent's weights": {
    'encoder': 'sena',
    'reduction': 'sum',
    'mmd_weight': 10.0,
    'kl_weight': 2.0,
    'l1_weight': 1e-3,
    'mmd_sigma': 1000.0,
    'temperature': 5.0,
    'eval_temperature': 5.0,
  },
}
# As the model assumes it: every guide works, one cell type and batch, effects
# of doubles add up, every perturbation does something.
WORLD = {
  'num_cells': 8_000,
  'num_genes': 300,
  'num_perturbations': 30,
  'num_doubles': 60,
  'num_cell_types': 1,
  'num_batches': 1,
  'null_fraction': 0.0,
  'guide_failure': 0.0,
  'specificity': 0.0,
  'epistasis': 0.0,
  'num_programs': 10,
  'edge_probability': 0.3,
  'genes_per_program': 30,
}
THRESHOLD = 0.1
SCORE = ('delta', 'all', 'pearson')


def folder_name(encoder: str) -> str:
  """Returns a name that every file system takes."""
  return encoder.replace(', ', '_').replace(' ', '_').replace("'", '')


def read(path: pathlib.Path) -> list[dict[str, str]]:
  """Returns the rows of a table."""
  with path.open(newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


def train(config, workdir: pathlib.Path) -> None:
  """Runs a config, unless its tables are there."""
  done = workdir / 'eval' / 'interpret' / 'summary.csv'
  if config.model.name != 'discrepancy_vae':
    done = workdir / 'eval' / 'summary.csv'
  if done.is_file():
    return
  print(f'== {workdir}', flush=True)
  runs.start(config, workdir)


# ----------------------------------------------------------------------------
# Simulated.


def world_config(encoder, factors, world, options):
  """Returns the config of one cell of the grid."""
  config = config_lib.default('discrepancy_vae', 'combinations')
  config.data.simulate.update(WORLD)
  if options.quick:
    config.data.simulate.update(num_cells=1_500, num_doubles=20)
  config.data.min_cells_per_gene = 0
  config.seed = world
  config.model.update(latent_dim=factors, **ENCODERS[encoder])
  config.split.update(val_fraction=0.2, test_fraction=0.3)
  config.num_seeds = options.seeds
  config.train.update(steps=options.steps, chunk=min(100, options.steps))
  config.train.batch_size = 64
  config.eval.update(save_predictions=False, certificate=0)
  return config


def truth_of(config):
  """Returns uns['simulation'] of a run's data, and mean changes of its cells.

  The second is {condition: [genes]} change of mean log1p from control.
  """
  adata = simulate.simulate(seed=config.seed, **config.data.simulate.to_dict())
  total = np.asarray(adata.X.sum(1)).ravel()
  values = np.log1p(adata.X.toarray() * (1e4 / total)[:, None])
  label = np.asarray(adata.obs['condition'].astype(str))
  means = {c: values[label == c].mean(0) for c in np.unique(label)}
  truth = dict(adata.uns['simulation'])
  truth['members'] = np.asarray(adata.varm['program_members'])
  return truth, {c: m - means['control'] for c, m in means.items()}


def member_tables(folder: pathlib.Path):
  """Returns what eval/interpret holds, by member.

  {member: {'layers': {layer: {condition: [units]}}, 'targets': {...},
  'graph': [(from, to, weight)]}}
  """
  out: dict[int, dict] = {}

  def of(row):
    return out.setdefault(
      int(row['member']), {'layers': {}, 'targets': {}, 'graph': []}
    )

  for row in read(folder / 'activation.csv'):
    layer = of(row)['layers'].setdefault(row['layer'], {})
    layer.setdefault(row['condition'], []).append(
      float(row['change']) if row['change'] else math.nan
    )
  for row in read(folder / 'perturbations.csv'):
    if row['trained'] == '1':
      of(row)['targets'][row['perturbation']] = number(row['factor'])
  for row in read(folder / 'graph.csv'):
    of(row)['graph'].append(
      (number(row['from']), number(row['to']), float(row['weight']))
    )
  return out


def number(unit: str) -> int:
  """Returns 3 of 'factor_3'."""
  return int(unit.rpartition('_')[2])


def recovered(tables, truth, factors) -> dict[str, float]:
  """Returns the recovery of one member."""
  conditions = [c for c in truth['row_condition'] if c != 'control']
  known = {
    c: truth['activity'][i] for i, c in enumerate(truth['row_condition'])
  }
  layers = tables['layers']
  shown = [c for c in conditions if c in layers['shift']]
  activity = np.stack([known[c] for c in shown])
  added = np.stack([layers['shift'][c] for c in shown])
  encoded = np.stack([layers['mean'][c] for c in shown])
  matched = recovery.match(activity, added)
  graph = np.zeros((factors, factors))
  for i, j, weight in tables['graph']:
    graph[i, j] = weight
  names = list(tables['targets'])
  place = {p: i for i, p in enumerate(truth['perturbations'])}
  program = np.asarray([truth['targets'][place[p]].argmax() for p in names])
  assigned = np.asarray([tables['targets'][p] for p in names])
  target = recovery.intervention_targets(
    program, assigned, matched, num_factors=factors
  )
  edges = recovery.graph_recovery(
    truth['graph'], graph, matched, threshold=THRESHOLD
  )
  found = {
    'MCC of predicted factors': matched.mean,
    '… by chance': recovery.match_by_chance(activity, added),
    'R² of predicted factors': mean(recovery.linear_r2(activity, added)),
    'MCC of encoded factors': recovery.match(activity, encoded).mean,
    'R² of encoded factors': mean(recovery.linear_r2(activity, encoded)),
    'distinct factors used': len(set(assigned.tolist())),
    'targets, by the match': target.matched,
    'targets, best naming': target.best,
    '… by chance ': target.best_by_chance,
    'SHD': edges.hamming,
    'SHD without edges': edges.empty_hamming,
    'AUROC of edges': edges.auroc,
    'AUROC, undirected': edges.auroc_undirected,
  }
  sets = layers['gene_set']
  singles = [c for c in shown if c in sets]
  change = np.stack([sets[c] for c in singles])
  own = np.stack([known[c] for c in singles])
  if change.shape[1] == own.shape[1]:
    found['set unit with its program, absolute r'] = mean(
      [
        abs(np.corrcoef(change[:, k], own[:, k])[0, 1])
        for k in range(own.shape[1])
      ]
    )
  return found


def yardsticks(truth, changes, factors) -> dict[str, float]:
  """Returns what no model at all recovers, from the means of real cells."""
  conditions = [
    c for c in truth['row_condition'] if c != 'control' and c in changes
  ]
  known = {
    c: truth['activity'][i] for i, c in enumerate(truth['row_condition'])
  }
  activity = np.stack([known[c] for c in conditions])
  observed = np.stack([changes[c] for c in conditions])
  left, size, _ = np.linalg.svd(
    observed - observed.mean(0), full_matrices=False
  )
  parts = (left * size)[:, :factors]
  sets = np.stack(
    [np.abs(observed[:, m]).mean(1) for m in truth['members'].T], 1
  )
  singles = [i for i, c in enumerate(conditions) if '+' not in c]
  place = {p: i for i, p in enumerate(truth['perturbations'])}
  program = np.asarray(
    [truth['targets'][place[conditions[i]]].argmax() for i in singles]
  )
  return {
    'MCC of principal components': recovery.match(activity, parts).mean,
    'R² of principal components': mean(recovery.linear_r2(activity, parts)),
    'targets by the set that changes most': float(
      (sets[singles].argmax(1) == program).mean()
    ),
  }


def mean(values) -> float:
  """Returns the mean of what is a number."""
  return float(np.nanmean(values))


def interval(values) -> str:
  """Returns mean and 95% interval of Student's t over seeds."""
  values = [v for v in values if not math.isnan(v)]
  if not values:
    return '–'
  centre = statistics.fmean(values)
  if len(values) < 2 or max(values) == min(values):
    return f'{centre:.3f}'
  reach = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values)
  reach /= math.sqrt(len(values))
  return f'{centre:.3f} ± {reach:.3f}'


def scores_on_doubles(folder: pathlib.Path) -> dict[str, list[float]]:
  """Returns {model: value of each seed} of SCORE over held-out conditions."""
  values: dict[str, dict[str, list[float]]] = {}
  for row in read(folder / 'eval' / 'metrics.csv'):
    if (row['aggregate'], row['genes'], row['metric']) == SCORE:
      seeds = values.setdefault(row['model'], {}).setdefault(row['seed'], [])
      seeds.append(float(row['value']) if row['value'] else math.nan)
  return {
    model: [mean(v) for v in seeds.values() if not np.isnan(v).all()]
    for model, seeds in values.items()
  }


def table(columns: dict[str, dict[str, str]], first: str) -> list[str]:
  """Returns a markdown table, one column for each entry."""
  rows = list(dict.fromkeys(k for c in columns.values() for k in c))
  lines = [
    f'| {first} | {" | ".join(columns)} |',
    '|---|' + '---|' * len(columns),
  ]
  for row in rows:
    cells = [c.get(row, '–') for c in columns.values()]
    lines.append(f'| {row.strip()} | {" | ".join(cells)} |')
  return [*lines, '']


def simulated(options) -> None:
  """Runs the grid on worlds with a known truth and writes the table."""
  encoders = [e for e in ENCODERS if e in options.encoders]
  lines, everything = [], {}
  for world in options.worlds:
    for factors in options.factors:
      columns, truth = {}, None
      for encoder in encoders:
        config = world_config(encoder, factors, world, options)
        folder = options.workdir / f'{folder_name(encoder)}_{factors}_{world}'
        train(config, folder)
        if truth is None:
          truth, changes = truth_of(config)
        known = yardsticks(truth, changes, factors)
        found = [
          {**recovered(tables, truth, factors), **known}
          for tables in member_tables(folder / 'eval/interpret').values()
        ]
        everything.setdefault(encoder, []).extend(found)
        columns[encoder] = {
          key: interval([f[key] for f in found if key in f])
          for key in dict.fromkeys(k for f in found for k in f)
          if key not in known
        }
        doubles = scores_on_doubles(folder)
        columns[encoder]['Pearson of held-out doubles'] = interval(
          doubles.get('discrepancy_vae', [])
        )
        for rival in ('additive', 'mean', 'ceiling'):
          columns[encoder][f'… {rival}'] = interval(doubles.get(rival, []))
        columns[encoder].update(summary_rows(folder))
      lines += [f'## World {world}, {factors} factors', '']
      lines += table(columns, f'{options.seeds} seeds: mean ± 95%')
      lines += [
        'Without a model: '
        + ', '.join(f'{k} {v:.3f}' for k, v in known.items())
        + '.',
        '',
      ]
      print('\n'.join(lines[-40:]), flush=True)
  config = world_config(encoders[0], 2, 0, options)
  head = SIMULATED_HEAD.format(
    **vars(options), **config.data.simulate.to_dict()
  )
  said = {
    encoder: {name: verdict(found, *keys) for name, keys in CLAIMS.items()}
    for encoder, found in everything.items()
  }
  lines = [
    head,
    '',
    '## What is recovered',
    '',
    VERDICT_HEAD,
    '',
    *table(said, f'{len(everything[encoders[0]])} models each'),
    *lines,
  ]
  write(options.results / 'sena_simulated.md', lines)


# Claim: what must be above what; a number, or a name.
CLAIMS = {
  'factors that the model adds are programs (MCC)': (
    'MCC of predicted factors', '… by chance',
  ),
  'they give the programs by regression (R²)': ('R² of predicted factors', 0.0),
  'perturbations go to the factor of their program': (
    'targets, best naming', '… by chance ',
  ),
  'edges rank above pairs without one (AUROC)': ('AUROC of edges', 0.5),
  'the graph beats a graph without edges (SHD)': ('SHD without edges', 'SHD'),
  'factors of encoded cells give the programs (R²)': (
    'R² of encoded factors', 0.0,
  ),
  '… better than as many principal components': (
    'R² of encoded factors', 'R² of principal components',
  ),
}  # fmt: skip
VERDICT_HEAD = """*yes*: the mean over worlds and seeds is above what knows \
nothing, by more than its 95 % interval; the difference is in brackets. Seeds \
of one world are counted as if they were worlds of their own, so that the \
intervals are rather too narrow than too wide."""


def verdict(found, key, other) -> str:
  """Says whether one value is above another, over models."""
  gaps = [
    f[key] - (f[other] if isinstance(other, str) else other) for f in found
  ]
  gaps = [g for g in gaps if not math.isnan(g)]
  if not gaps:
    return 'unknown'
  reach = 0.0
  if len(gaps) > 1:
    reach = stats.t.ppf(0.975, len(gaps) - 1) * statistics.stdev(gaps)
    reach /= math.sqrt(len(gaps))
  centre = statistics.fmean(gaps)
  word = 'yes' if centre > reach else 'worse' if centre < -reach else 'no'
  return f'{word} ({centre:+.3f} ± {reach:.3f})'


def summary_rows(folder: pathlib.Path) -> dict[str, str]:
  """Returns quantities of eval/interpret/summary.csv over seeds."""
  values: dict[str, list[float]] = {}
  for row in read(folder / 'eval/interpret/summary.csv'):
    values.setdefault(row['quantity'], []).append(
      float(row['value']) if row['value'] else math.nan
    )
  wanted = {
    'perturbations with a targeted set': 'perturbations whose gene is in a set',
    'dar, median': 'DAR, median',
    'dar_without_own, median': 'DAR without the own gene, median',
    'recall_25': 'recall at 25',
    'recall_25_without_own': 'recall at 25 without the own gene',
    'recall_25, by chance': 'recall at 25 by chance',
    'mmd, test combinations': 'MMD of held-out doubles',
    'mmd_control, test combinations': 'MMD of control cells to them',
    'entropy, mean': 'entropy of assignments',
    'distinct factors': 'distinct factors used',
  }
  return {wanted[k]: interval(v) for k, v in values.items() if k in wanted}


def write(path: pathlib.Path, lines) -> None:
  """Writes a result."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('\n'.join(lines).rstrip() + '\n', encoding='utf-8')
  print(f'wrote {path}')


SIMULATED_HEAD = """# SENA and the discrepancy-VAE where the truth is known

Made by `experiments/sena_study.py simulated`; {seeds} seeds a cell, \
{steps:,} steps of 64 cells. Simulated: {num_cells:,} cells, {num_genes} \
genes, {num_programs} programs of {genes_per_program} genes on an acyclic \
graph, {num_perturbations} perturbations, {num_doubles} doubles of which 30 % \
are held out; one cell type, guides that all work, effects that add up \
(epistasis 0): the world that the model assumes. Gene sets are the true \
programs. Intervals are over seeds of one world and say nothing about other \
worlds.

Factors are matched to programs one to one by absolute correlation over \
conditions (exact assignment); *predicted* factors are what the model adds for \
a condition, *encoded* ones the mean of its real cells. R² is leave-one-out. \
Chance: samples permuted, then matched again. Edges count above 0.1. \
*By chance* of targets: perturbations permuted. SENA's published run is about \
170,000 steps; what these shorter runs do not find, longer ones may."""


# ----------------------------------------------------------------------------
# Norman.


NORMAN_HEAD = """# SENA on real doubles of Norman et al. 2019

Made by `experiments/sena_study.py norman` from `{data}` with the gene sets of \
`{sets}`; {seeds} seeds, {steps:,} steps of 32 cells. {cells:,} cells x \
{genes} genes, {num_sets} gene sets of at least 5 genes; {doubles} held-out \
doubles: few, so that intervals are wide. The file is a small part of the data \
that SENA was published on, so these are no reproduction of its numbers."""


def norman_config(model, changes, options):
  """Returns the config of one model on the file."""
  config = config_lib.default(model, 'combinations')
  config.data.update(
    path=options.data,
    preset='perturbench',
    scale='counts',
    gene_sets=options.gene_sets,
    gene_set_max=options.gene_set_max,
  )
  config.split.update(val_fraction=0.2, test_fraction=0.8, min_cells=20)
  config.num_seeds = options.seeds
  config.train.update(steps=options.steps, chunk=min(100, options.steps))
  config.eval.update(save_predictions=False, certificate=0)
  config.model.update(changes)
  return config


def norman(options) -> None:
  """Runs SENA, the MLP and the baselines on held-out real doubles."""
  if not options.data or not options.gene_sets:
    raise SystemExit('norman needs --data=FILE.h5ad and --gene_sets=FILE')
  scores, columns, env = {}, {}, {}
  jobs = {
    encoder: ('discrepancy_vae', {'latent_dim': options.factors[0], **keys})
    for encoder, keys in ENCODERS.items()
    if encoder in options.encoders
  }
  jobs['latent_additive'] = ('latent_additive', {})
  for name, (model, changes) in jobs.items():
    folder = options.workdir / folder_name(name)
    config = norman_config(model, changes, options)
    train(config, folder)
    for row in read(folder / 'eval' / 'summary.csv'):
      if row['regime'] == 'seen2' and row['genes'] in ('all', 'top20'):
        shown = name if row['model'] == model else row['model']
        key = f'{row["metric"]} of {row["aggregate"]}, {row["genes"]}'
        scores.setdefault(shown, {})[key] = row
    if model == 'discrepancy_vae':
      columns[name] = summary_rows(folder)
      env = json.loads((folder / 'env.json').read_text(encoding='utf-8'))
      env['sets'] = len(
        {
          r['unit']
          for r in read(folder / 'eval/interpret/activation.csv')
          if r['layer'] == 'gene_set'
        }
      )
  wanted = [
    'pearson of delta, all', 'pearson of delta, top20', 'cosine of logfc, all',
    'rmse of average, all',
  ]  # fmt: skip
  first = next(iter(scores.values()))[wanted[0]]
  head = NORMAN_HEAD.format(
    data=pathlib.Path(options.data).name,
    sets=pathlib.Path(options.gene_sets.split(',')[0]).name,
    seeds=options.seeds,
    steps=options.steps,
    cells=env['num_cells'],
    genes=env['num_genes'],
    num_sets=env['sets'],
    doubles=first['conditions'],
  )
  lines = [head, '', f'| model | seeds | {" | ".join(wanted)} |']
  lines.append('|---|---|' + '---|' * len(wanted))
  by_score = sorted(
    scores, key=lambda m: -float(scores[m][wanted[0]]['mean'] or '-inf')
  )
  for name in by_score:
    cells = []
    for key in wanted:
      row = scores[name].get(key)
      text = '–' if not row or not row['mean'] else f'{float(row["mean"]):.3f}'
      if row and row['low']:
        text += f' [{float(row["low"]):.3f}, {float(row["high"]):.3f}]'
      cells.append(text)
    seeds = scores[name][wanted[0]]['seeds']
    lines.append(f'| {name} | {seeds} | {" | ".join(cells)} |')
  lines += ['', 'Intervals: 95 %, bootstrap over conditions and seeds.', '']
  lines += ['## What the gene sets and factors say', '']
  lines += table(columns, f'{options.seeds} seeds: mean ± 95%')
  lines += [NORMAN_FOOT, '']
  write(options.results / 'sena_norman.md', lines)


NORMAN_FOOT = """DAR above 1 means that the sets of a perturbed gene move more \
than others; the gene's own expression, which a CRISPRa guide raises by \
definition, is in those sets, so that the value without it is the one to read. \
Few perturbed genes are among the measured ones of a small panel, so that DAR \
and recall may stand on a single perturbation. MMD of control cells is what \
predicting no change at all gets; its kernels are wider with the parent's \
weights, so that it compares within a column only."""


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('study', choices=('simulated', 'norman'))
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--results', type=pathlib.Path, default=RESULTS)
  parser.add_argument('--seeds', type=int, default=5)
  parser.add_argument('--steps', type=int, default=3_000)
  parser.add_argument('--worlds', type=int, nargs='+', default=[0, 1])
  parser.add_argument('--factors', type=int, nargs='+', default=[10])
  parser.add_argument(
    '--encoders', nargs='+', default=list(ENCODERS), choices=list(ENCODERS)
  )
  parser.add_argument('--data', default='')
  parser.add_argument('--gene_sets', default='')
  parser.add_argument('--gene_set_max', type=int, default=0)
  parser.add_argument('--quick', action='store_true')
  options = parser.parse_args()
  runs.use_compilation_cache()
  {'simulated': simulated, 'norman': norman}[options.study](options)


if __name__ == '__main__':
  main()
