"""The section about latent factors: its rows, and that it draws."""

import csv
import pathlib
import re
import shutil

import fabricated_run
import numpy as np
import pytest
import test_report_page as pages

from pertjax import report
from pertjax.report import factors, read

WEIRD = '<b>&"x'


def write_tables(workdir, *, factors=16, perturbations=30, members=2, sets=40):
  """Fabricates eval/interpret; a gene set and a perturbation need escaping."""
  folder = workdir / 'eval' / 'interpret'
  folder.mkdir(parents=True)
  random = np.random.default_rng(0)
  names = [WEIRD, *(f'GENE{i}' for i in range(1, perturbations))]
  tables = {
    'perturbations': [[
      'member', 'condition', 'perturbation', 'trained', 'factor', 'weight',
      'entropy', 'shift', 'targeted', 'dar', 'dar_without_own', 'recall_25',
    ]],
    'assignments': [['member', 'perturbation', 'factor', 'weight']],
    'factor_sets': [[
      'member', 'factor', 'rank', 'gene_set', 'name', 'weight', 'contribution',
    ]],
    'graph': [['member', 'from', 'to', 'weight', 'threshold']],
    'summary': [['member', 'quantity', 'value']],
  }  # fmt: skip
  for member in range(members):
    for p, name in enumerate(names):
      z = int(random.integers(0, factors // 2))
      untrained = p == 3
      tables['perturbations'].append(
        [member, name, name, int(not untrained)]
        + (['', '', '', ''] if untrained else [f'factor_{z}', 0.9, 0.3, 1.1])
        + [2, '' if p == 5 else 1.5, '' if p == 5 else 0.8, 0.25]
      )
      if not untrained:
        for other, weight in ((z, 0.9), ((z + 1) % factors, 0.1)):
          tables['assignments'].append(
            [member, name, f'factor_{other}', weight]
          )
    for z in range(factors):
      chosen = random.permutation(sets)[:20]
      for rank, k in enumerate(chosen):
        value = round(float(random.normal() / (rank + 1)), 5)
        tables['factor_sets'].append(
          [member, f'factor_{z}', rank + 1, f'GO:{k:07d}',
           WEIRD if k == 0 else f'process number {k} of the cell' * (k % 2),
           value, value * 0.4]
        )  # fmt: skip
    edges = [
      (i, j, float(random.normal() * 0.2))
      for i in range(factors)
      for j in range(i + 1, factors)
    ]
    for i, j, weight in sorted(edges, key=lambda e: -abs(e[2])):
      tables['graph'].append(
        [member, f'factor_{i}', f'factor_{j}', weight, 0.005]
      )
    for name, value in (
      ('factors', factors),
      ('edges', len(edges)),
      ('dar, median', 1.5 + member),
      ('mmd, test combinations', ''),
    ):
      tables['summary'].append([member, name, value])
  for name, rows in tables.items():
    with (folder / f'{name}.csv').open('w', newline='') as file:
      csv.writer(file).writerows(rows)
  return folder


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  folder = fabricated_run.write(
    tmp_path_factory.mktemp('made'), conditions=6, genes=40, seeds=2
  )
  write_tables(folder)
  return folder


@pytest.fixture
def workdir(made, tmp_path):
  return pathlib.Path(shutil.copytree(made, tmp_path / 'run'))


def test_rows_number_the_names(workdir):
  found = factors.rows(factors.read(workdir))
  assert len(found['perturbations']) == 30
  assert [m['member'] for m in found['members']] == [0, 1]
  member = found['members'][1]
  assert (member['factors'], member['edges']) == (16, 120)
  assert len(member['graph']) == 120
  sizes = [abs(w) for _, _, w in member['graph']]
  assert sizes == sorted(sizes, reverse=True)
  assert all(len(f) == factors.MOST_SETS for f in member['feeds'].values())
  untrained = [r for r in member['about'] if r['factor'] is None]
  assert len(untrained) == 1
  assert untrained[0]['shift'] is None
  summary = {name: values for name, *values in found['summary']}
  assert summary['dar, median'] == [2.0, 1.5, 2.5]
  assert summary['mmd, test combinations'] == [None, None, None]


def test_without_the_folder_there_is_no_section(workdir, tmp_path):
  assert read.read_run(workdir).factors is not None
  text = report.write(workdir).read_text(encoding='utf-8')
  assert '<section id="factors">' in text
  for path in (workdir / 'eval' / 'interpret').iterdir():
    path.unlink()
  (workdir / 'eval' / 'interpret').rmdir()
  path = report.write(workdir)
  assert '<section id="factors">' not in path.read_text(encoding='utf-8')
  assert pages.payload(path)['factors'] is None
  # It is a part of some runs only: nothing is said to be missing.
  assert not any('interpret' in name for name in read.read_run(workdir).missing)


def test_names_cannot_break_out_of_the_page(workdir):
  path = report.write(workdir)
  assert WEIRD not in path.read_text(encoding='utf-8')
  assert WEIRD in pages.payload(path)['factors']['perturbations']


def test_a_broken_table_is_named(workdir):
  path = workdir / 'eval' / 'interpret' / 'graph.csv'
  text = path.read_text()
  path.write_text(text.replace('factor_3', 'third'))
  with pytest.raises(ValueError, match="interpret/graph.csv: .*'third'"):
    factors.rows(factors.read(workdir))
  path.write_text(text.replace('weight', 'wait', 1))
  with pytest.raises(ValueError, match='graph.csv: column .weight. is missing'):
    factors.read(workdir)


def test_a_folder_without_a_table_is_said(workdir):
  (workdir / 'eval' / 'interpret' / 'graph.csv').unlink()
  assert factors.read(workdir) is None
  text = report.write(workdir).read_text(encoding='utf-8')
  assert '<section id="factors">' not in text
  assert 'eval/interpret/graph.csv' in text
  assert 'what the factors are cannot be shown' in text


TOUR = """(() => {
  const all = (q) => [...document.querySelectorAll(q)];
  const out = { ready: document.documentElement.dataset.ready };
  out.edges = all('.factor-graph .edge').length;
  const slider = document.querySelector('[data-fill="factor-slider"] input');
  slider.value = 30;
  slider.dispatchEvent(new Event('input'));
  out.more = all('.factor-graph .edge').length;
  const text = (q) => document.querySelector(q).textContent;
  out.caption = text('[data-fill="factor-caption"]');
  const page = () => text('[data-fill="factor-page"] h3');
  const before = page();
  const node = all('.factor-node:not(.chosen)')[0];
  node.dispatchEvent(new Event('click'));
  out.moved = before !== page();
  out.bars = all('.factor-bars tbody tr').length;
  out.cells = all('.heat-cell').length;
  out.bold = all('#factors main b, .factor-bars b').length;
  const menus = all('[data-fill="factor-menus"] select');
  menus[0].value = 1;
  menus[0].dispatchEvent(new Event('change'));
  out.lede = text('[data-fill="factor-lede"]');
  const place = (g) => g.getBoundingClientRect();
  const at = (g) => `${place(g).x} ${place(g).y}`;
  const boxes = all(".factor-node rect").map(at);
  out.apart = new Set(boxes).size === boxes.length;
  out.failure = document.getElementById('failure').hidden;
  return out;
})()"""


@pytest.mark.slow
def test_the_section_draws_and_answers(workdir, tmp_path):
  out = pages.run_script(report.write(workdir), TOUR, tmp_path)
  assert out['ready'] == 'yes'
  assert out['failure'] is True
  assert (out['edges'], out['more']) == (15, 30)
  assert '30 of 120 edges' in out['caption']
  assert out['moved'] is True
  assert out['bars'] == factors.MOST_SETS
  assert out['cells'] >= 58
  assert out['bold'] == 0
  assert re.search(
    r'of 16 factors have a perturbation, in member 1', out['lede']
  )
  assert out['apart'] is True


@pytest.mark.slow
def test_a_graph_without_edges_is_said(workdir, tmp_path):
  path = workdir / 'eval' / 'interpret' / 'graph.csv'
  path.write_text(path.read_text().splitlines()[0] + '\n')
  script = 'document.querySelector(\'[data-fill="factor-graph"]\').textContent'
  out = pages.run_script(report.write(workdir), script, tmp_path)
  assert 'No edge is above' in out
