"""Run the main job on simulated and real data and write its leaderboards.

  python -m experiments.main_job --data=FOLDER --workdir=runs/main_job

FOLDER holds the h5ad files named below; a job whose file is absent is left out,
and said. The tables go to experiments/results/main_job.md as they fall.
"""

from __future__ import annotations

import argparse
import csv
import json
import pathlib
from typing import Any, NamedTuple

import jax

from pertjax import config as config_lib
from pertjax import runs

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'experiments' / 'results' / 'main_job.md'
COLUMNS = (
  ('delta', 'all', 'pearson'),
  ('delta', 'top20', 'pearson'),
  ('logfc', 'all', 'cosine'),
  ('logfc', 'all', 'cosine_rank'),
  ('average', 'all', 'rmse'),
)
_SIMULATED = {
  'data.simulate.num_cells': 24_000,
  'data.simulate.num_genes': 500,
  'data.simulate.num_perturbations': 25,
  'data.simulate.num_doubles': 180,
  'data.simulate.num_programs': 10,
  'data.simulate.genes_per_program': 40,
  'train.steps': 3_000,
  'train.patience': 8,
}
_WIDE = {'model.width': 256, 'train.batch_size': 512}
_LATENT = {**_WIDE, 'model.latent_dim': 64}


class Job(NamedTuple):
  """One dataset.

  Attributes:
    title: heading.
    note: what a reader must know.
    config: the file under configs/, with its argument but for the model.
    file: name of the h5ad, '' for simulated data.
    changes: {dotted key: value} for every model.
    models: {model: its own changes}.
  """

  title: str
  note: str
  config: str
  file: str
  changes: dict[str, Any]
  models: dict[str, dict[str, Any]]


JOBS = (
  Job(
    'Simulated, additive truth',
    'Held-out doubles; effects add in log share (epistasis 0).',
    'default.py:',
    '',
    {**_SIMULATED, 'data.simulate.epistasis': 0.0},
    {'latent_additive': _LATENT, 'decoder_only': _WIDE, 'vae': {}},
  ),
  Job(
    'Simulated, strong epistasis',
    'Held-out doubles; saturation and gates between programs (epistasis 3).',
    'default.py:',
    '',
    {**_SIMULATED, 'data.simulate.epistasis': 3.0},
    {'latent_additive': _LATENT, 'decoder_only': _WIDE, 'vae': {}},
  ),
  Job(
    'Norman 2019, real, 500 genes',
    'Held-out doubles; 15 doubles in all, of which 5 have both singles, about '
    '100 cells a condition and 15 genes a cell: few conditions, wide '
    'intervals.',
    'norman.py:',
    'norman_k562_500g.h5ad',
    {
      'data.preset': 'perturbench',
      'data.scale': 'counts',
      'split.min_cells': 20,
    },
    {'latent_additive': {}, 'decoder_only': {}, 'vae': {}},
  ),
  Job(
    'Norman 2019, semi-synthetic, 1,530 genes',
    'Held-out doubles; cells are drawn from a model with the measured mean '
    'effects: not real cells.',
    'norman_semisynthetic.py:',
    'norman_semisynthetic_1530g.h5ad',
    {},
    {'latent_additive': {}, 'decoder_only': {}, 'vae': {}},
  ),
  Job(
    'Kang 2018, real, four unseen cell types',
    'All stimulated CD4T, B, NK and FCGR3A+Mono cells are held out at once; '
    'four conditions, so that intervals are wide.',
    'kang.py:',
    'kang_ifnb_2000g.h5ad',
    {
      'data.control': 'ctrl',
      'data.num_hvg': 0,
      'split.test_groups': ('CD4T', 'B', 'NK', 'FCGR3A+Mono'),
      'num_seeds': 2,
      'train.steps': 3_000,
    },
    {
      'vae': {},
      'latent_additive': {
        'model.inject_encoder': True,
        'model.inject_decoder': True,
        'train.batch_size': 256,
      },
      'decoder_only': {'train.batch_size': 256},
    },
  ),
  Job(
    'McFaline-Figueroa 2023, real, 500 genes',
    'Held-out (kinase, cell line) pairs; about one gene per condition moves '
    'beyond chance in these 500 genes: a case for honest tables.',
    'mcfaline.py:',
    'mcfaline_gbm_500g.h5ad',
    {
      'data.num_hvg': 0,
      'data.degs': 0,
      'train.steps': 2_000,
      'train.batch_size': 256,
    },
    {
      'latent_additive': {'model.width': 256, 'model.latent_dim': 64},
      'decoder_only': {'model.width': 256},
      'vae': {'train.batch_size': 32},
    },
  ),
)


def run_job(job: Job, data: pathlib.Path, workdir: pathlib.Path) -> list[str]:
  """Runs every model of a job; returns the lines of its section."""
  summaries: dict[str, dict] = {}
  records = []
  for model, own in job.models.items():
    source = f'{ROOT / "configs" / job.config}model={model}'
    config = config_lib.load(source)
    if job.file:
      config.data.path = str(data / job.file)
    for key, value in {**job.changes, **own}.items():
      section = config
      *path, last = key.split('.')
      for part in path:
        section = section[part]
      section[last] = value
    config.eval.save_predictions = False
    folder = workdir / f'{job.title.lower().replace(" ", "_")}' / model
    print(f'== {job.title}: {model}', flush=True)
    runs.start(config, folder)
    with (folder / 'eval' / 'summary.csv').open(encoding='utf-8') as file:
      for row in csv.DictReader(file):
        key = (row['regime'], row['aggregate'], row['genes'], row['metric'])
        summaries.setdefault(row['model'], {})[key] = row
    records.append(json.loads((folder / 'env.json').read_text()))
  return [f'## {job.title}', '', job.note, '', *_tables(summaries, records)]


def _tables(summaries, records) -> list[str]:
  env = records[0]
  lines = [
    f'{env["num_cells"]:,} cells x {env["num_genes"]:,} genes, '
    f'{env["num_conditions"]} conditions; data '
    f'`{env["data_fingerprint"][:12]}`, split `{env["split_sha256"][:12]}`.',
    '',
  ]
  regimes = list(dict.fromkeys(k[0] for v in summaries.values() for k in v))
  if len(regimes) == 2:
    regimes = regimes[1:]
  for regime in regimes:
    lines += _table(summaries, regime)
  return lines


def _table(summaries, regime) -> list[str]:
  def cell(model, column):
    row = summaries[model].get((regime, *column))
    return row if row and row['mean'] else None

  first_rows = [v.get((regime, *COLUMNS[0])) for v in summaries.values()]
  most = max(int(r['conditions']) for r in first_rows if r)

  def order(model):
    # A mean over fewer conditions is of other conditions: below the others.
    row = cell(model, COLUMNS[0])
    if row is None:
      return 2, 0.0
    return int(int(row['conditions']) < most), -float(row['mean'])

  heads = [
    f'{metric} of {aggregate}{"" if genes == "all" else ", " + genes}'
    for aggregate, genes, metric in COLUMNS
  ]
  lines = [
    f'Regime **{regime}**',
    '',
    f'| model | seeds | conditions | {" | ".join(heads)} |',
    '|---|---|---|' + '---|' * len(heads),
  ]
  for model in sorted(summaries, key=order):
    first = summaries[model].get((regime, *COLUMNS[0]))
    if first is None:
      continue
    texts = []
    for number, column in enumerate(COLUMNS):
      row = cell(model, column)
      text = '–' if row is None else f'{float(row["mean"]):.3f}'
      if number == 0 and row and row['low']:
        text += f' [{float(row["low"]):.3f}, {float(row["high"]):.3f}]'
      texts.append(text)
    dropped = int(first['dropped'])
    count = first['conditions'] + (f' (-{dropped})' if dropped else '')
    lines.append(
      f'| {model} | {first["seeds"]} | {count} | {" | ".join(texts)} |'
    )
  return [*lines, '']


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data', type=pathlib.Path, required=True)
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--only', default='', help='part of a title')
  options = parser.parse_args()
  out = options.workdir / 'sections'
  out.mkdir(parents=True, exist_ok=True)
  runs.use_compilation_cache()
  for number, job in enumerate(JOBS):
    section = out / f'{number}.md'
    if options.only.lower() not in job.title.lower():
      continue
    if job.file and not (options.data / job.file).exists():
      print(f'left out, as {job.file} is absent: {job.title}')
      continue
    lines = run_job(job, options.data, options.workdir)
    section.write_text('\n'.join(lines), encoding='utf-8')
  head = [
    '# The main job, as it falls',
    '',
    f'Made by `experiments/main_job.py` on {jax.devices()[0].device_kind}, jax '
    f'{jax.__version__}. Mean over held-out conditions, 95% bootstrap interval '
    'over them in brackets; models are means over seeds. Real cells are scored '
    'in halves; `ceiling` is one half against the other. Lower is better for '
    'ranks and rmse. A dash is a metric without a value, such as the '
    'correlation of no change at all. A model that lacks conditions which '
    'others have, because it cannot know a perturbation, stands below them: '
    'its mean is of other conditions.',
    '',
  ]
  sections = [p.read_text(encoding='utf-8') for p in sorted(out.glob('*.md'))]
  RESULTS.parent.mkdir(parents=True, exist_ok=True)
  RESULTS.write_text(
    '\n'.join([*head, *sections]).rstrip() + '\n', encoding='utf-8'
  )


if __name__ == '__main__':
  main()
