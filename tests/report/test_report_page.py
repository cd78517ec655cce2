"""The page as a whole: what it holds, what it must not hold."""

import base64
import csv
import json
import pathlib
import re
import shutil
import subprocess

import fabricated_run
import numpy as np
import pytest

from pertjax import report
from pertjax.report import page, read


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  return fabricated_run.write(
    tmp_path_factory.mktemp('made'),
    conditions=6,
    genes=40,
    seeds=3,
    failed=(1,),
    trained=('latent_additive', 'scgen'),
  )


@pytest.fixture
def workdir(made, tmp_path):
  return pathlib.Path(shutil.copytree(made, tmp_path / 'a run'))


def payload(path):
  text = path.read_text(encoding='utf-8')
  pattern = r'<script type="application/json" id="data">(.*?)</script>'
  return json.loads(re.search(pattern, text, re.DOTALL).group(1))


def unpack(packed):
  data = base64.b64decode(packed['data'])
  return np.frombuffer(data, packed['dtype']).reshape(packed['shape'])


def body(path):
  """Returns the page without its data and its script."""
  text = path.read_text(encoding='utf-8')
  return re.sub(r'<script.*?</script>', '', text, flags=re.DOTALL)


def test_the_file_and_nothing_else_is_written(workdir):
  before = {p.name for p in workdir.rglob('*')}
  path = report.write(workdir)
  assert path == workdir / 'report.html'
  assert {p.name for p in workdir.rglob('*')} == before | {'report.html'}


def test_the_page_needs_no_network(workdir):
  text = report.write(workdir).read_text(encoding='utf-8')
  assert 'http://' not in text
  assert 'https://' not in text
  assert '//' not in re.sub(r'(?m)^\s*//.*$', '', body(workdir / 'report.html'))
  assert not re.search(r'<link|@import|url\(|\bsrc=|fetch\(|XMLHttp', text)
  assert "default-src 'none'" in text


def test_the_page_holds_the_numbers_of_the_summary(workdir):
  data = payload(report.write(workdir))
  shape = [len(data[k]) for k in ('splits', 'regimes', 'models', 'combos')]
  models = [model['name'] for model in data['models']]
  with (workdir / 'eval/summary.csv').open() as file:
    rows = list(csv.DictReader(file))
  found = {
    k: np.array(v, float).reshape(shape) for k, v in data['scores'].items()
  }
  for row in rows:
    place = (
      data['splits'].index(row['split']),
      data['regimes'].index(row['regime']),
      models.index(row['model']),
      data['combos'].index([row['aggregate'], row['genes'], row['metric']]),
    )
    for key, values in found.items():
      np.testing.assert_equal(values[place], float(row[key] or 'nan'))
  assert np.isfinite(found['conditions']).sum() == len(rows)


def test_the_page_holds_the_values_of_single_conditions(workdir):
  data = payload(report.write(workdir))
  (grid,) = data['grids']
  values = unpack(grid['values'])
  pairs = list(zip(grid['conditions'], grid['groups']))
  models = [model['name'] for model in data['models']]
  sums = np.zeros(values.shape)
  counts = np.zeros(values.shape)
  with (workdir / 'eval/metrics.csv').open() as file:
    for row in csv.DictReader(file):
      place = (
        models.index(row['model']),
        data['combos'].index([row['aggregate'], row['genes'], row['metric']]),
        pairs.index((row['condition'], row['covariate'])),
      )
      sums[place] += float(row['value'])
      counts[place] += 1
      assert grid['cells'][place[2]] == int(row['cells'])
  np.testing.assert_allclose(values, sums / counts, rtol=1e-6)


def test_the_verdict_and_the_leaderboard_agree(workdir):
  path = report.write(workdir)
  data = payload(path)
  packed = {k: unpack(v) for k, v in data['differences'][0].items()}
  combo = data['headline']
  assert data['combos'][combo] == ['delta', 'all', 'pearson']
  place = (0, 0, combo)
  rival = packed['rivals'][0, combo]
  mean, low, high = (packed[k][place] for k in ('mean', 'low', 'high'))
  text = body(path)
  assert data['models'][rival]['name'] == 'additive'
  shown = f'{mean:.3f} (95% interval {low:.3f} to {high:.3f}'
  assert f'Difference {shown}'.replace('-', '−') in text
  assert 'paired over 12 held-out pairs of condition and group' in text
  assert 'and 3 seeds' not in text  # One of the three has failed.
  assert 'and 2 seeds' in text
  scores = np.array(data['scores']['mean'], float).reshape(
    1, 3, len(data['models']), -1
  )
  assert f'{scores[0, 0, 0, combo]:.3f}' in text
  # The file's own line, turned back: its positive is better.
  with (workdir / 'eval/paired.csv').open() as file:
    (line,) = [
      row
      for row in csv.DictReader(file)
      if (row['regime'], row['model'], row['aggregate'], row['genes'])
      == ('all', 'latent_additive', 'delta', 'all')
      and row['metric'] == 'rmse'
    ]
  place = (0, 0, data['combos'].index(['delta', 'all', 'rmse']))
  np.testing.assert_allclose(
    [packed[k][place] for k in ('mean', 'low', 'high', 'p_adjusted')],
    [
      -float(line['difference']),
      -float(line['high']),
      -float(line['low']),
      float(line['p_adjusted']),
    ],
    rtol=1e-6,
  )


def test_names_are_escaped(workdir):
  config = json.loads((workdir / 'config.json').read_text())
  config['</script><b>&'] = ['</script><b>', {'a': None}, 1.5]
  (workdir / 'config.json').write_text(json.dumps(config))
  env = json.loads((workdir / 'env.json').read_text())
  env['notes'].append('<b>bold</b> & <script>alert(1)</script>')
  env['dataset'] = '<i>A&B</i>'
  (workdir / 'env.json').write_text(json.dumps(env))
  table = workdir / 'eval/metrics.csv'
  evil = '</script><!--<script>'
  table.write_text(table.read_text().replace('RPE1', evil))
  path = report.write(workdir, title='<b>T</b> & co')
  text = path.read_text(encoding='utf-8')
  assert text.count('</script>') == 2
  assert text.count('<script') == 2
  for bad in ('<b>T<', '<b>bold', '<i>A', 'alert(1)</script>'):
    assert bad not in text
  assert '&lt;b&gt;T&lt;/b&gt; &amp; co' in text
  assert '&lt;b&gt;bold&lt;/b&gt; &amp; ' in text
  data = payload(path)
  assert any('<b>' in name for name in data['grids'][0]['conditions'])
  assert evil in data['grids'][0]['groups']
  assert any('A&B' in name for name in data['grids'][0]['conditions'])


def test_the_same_inputs_give_the_same_bytes(workdir):
  first = report.write(workdir).read_bytes()
  assert report.write(workdir).read_bytes() == first
  other = report.write(workdir, title='Other').read_bytes()
  assert other != first


def test_a_failed_write_leaves_the_old_page(workdir, monkeypatch):
  path = report.write(workdir)
  before = path.read_bytes()

  def fail(*_):
    raise OSError('disk full')

  monkeypatch.setattr(page.os, 'replace', fail)
  with pytest.raises(OSError, match='disk full'):
    report.write(workdir, title='New')
  assert path.read_bytes() == before
  assert not list(workdir.glob('.*'))


@pytest.mark.parametrize('name', read.CONSEQUENCES)
def test_a_missing_file_is_said_and_the_rest_stays(workdir, name):
  (workdir / name).unlink()
  path = report.write(workdir)
  text = body(path)
  assert f'{name} is missing: {read.CONSEQUENCES[name]}.' in text
  if name != 'split.csv':
    assert text.count(f'{name} is missing') >= 2  # In its section as well.
  data = payload(path)
  assert (data['scores'] is None) == (name == 'eval/summary.csv')
  assert (data['grids'] == [None]) == (name == 'eval/metrics.csv')
  assert (data['differences'] == [None]) == (name == 'eval/paired.csv')
  assert (data['certificate'] is None) == (name == 'eval/certificate.csv')
  assert (data['profiles'] is None) == (name == 'eval/profiles.npz')
  assert (data['curves'] is None) == (name == 'metrics.jsonl')
  if name != 'eval/metrics.csv':
    assert any(grid for grid in data['grids'])


@pytest.mark.parametrize('name', read.CONSEQUENCES)
def test_one_file_alone_makes_a_page(made, tmp_path, name):
  target = tmp_path / name
  target.parent.mkdir(exist_ok=True)
  shutil.copy(made / name, target)
  text = body(report.write(tmp_path))
  assert text.count('is missing: ') >= len(read.CONSEQUENCES) - 1


def test_empty_tables_make_a_page(workdir):
  for name in ('paired', 'certificate', 'red_team', 'metrics', 'summary'):
    path = workdir / f'eval/{name}.csv'
    path.write_text(path.read_text().splitlines()[0] + '\n')
    text = body(report.write(workdir))
    if name == 'paired':
      assert 'There is no paired test' in text
  for what in ('verdict', 'certificate', 'red team'):
    assert f'No {what}.' in text


def test_an_older_run_has_its_page(workdir):
  for name in ('paired', 'certificate', 'red_team'):
    (workdir / f'eval/{name}.csv').unlink()
  text = body(report.write(workdir))
  assert 'red team' not in text.lower().replace('.red ', '')
  assert 'Submissions that deserve nothing' not in text
  assert 'No paired tests.' in text
  assert 'There is no paired test: eval/paired.csv does not hold' in text
  assert re.search('the two 95% intervals (do not )?overlap', text)


def test_the_certificate_and_the_red_team_are_shown(workdir):
  path = report.write(workdir)
  text, data = body(path), payload(path)
  assert '3 of 6 metrics tell a replicate from the mean' in text
  assert '2 have a fault on these data, 1 has nothing to say' in text
  rows = {row['metric']: row for row in data['certificate']}
  assert data['combos'][rows['delta|all|cosine']['combo']][0] == 'delta'
  assert data['combos'][rows['rmse_logfc']['combo']] == ['logfc', 'all', 'rmse']
  assert rows['delta|all|cosine']['chance'] is None
  assert rows['pearson_logfc']['perturbed_mean'] == 0.1
  assert '3 of 6 metrics reward a submission' in text
  assert '(3 of 12 trials)' in text
  assert text.count('scores above a &lt;i&gt;replicate') == 3
  assert 'scrambled' not in text


@pytest.mark.parametrize('name', ['paired', 'certificate', 'red_team'])
def test_a_half_written_table_is_named(workdir, name):
  path = workdir / f'eval/{name}.csv'
  lines = path.read_text().splitlines()
  path.write_text('\n'.join([*lines[:3], lines[3][:9]]))
  with pytest.raises(ValueError, match=rf'eval/{name}\.csv: row 4 has'):
    report.write(workdir)
  path.write_text(lines[0][:40])
  with pytest.raises(ValueError, match=rf"eval/{name}\.csv: column '.*missing"):
    report.write(workdir)


@pytest.mark.parametrize(
  ('name', 'old', 'new', 'words'),
  [
    ('paired', ',not tested\n', ',untested\n', "verdict 'untested' is not kno"),
    ('paired', ',higher,', ',up,', "direction 'up' is not known"),
    ('certificate', ',higher,', ',upward,', "direction is 'upward'"),
    ('red_team', ',True,', ',yes,', "flag is 'yes'"),
  ],
)
def test_a_word_that_is_not_known_is_named(workdir, name, old, new, words):
  path = workdir / f'eval/{name}.csv'
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new, 1))
  with pytest.raises(ValueError, match=words) as error:
    report.write(workdir)
  assert f'eval/{name}.csv' in str(error.value)


def test_a_certificate_without_numbers_makes_a_page(workdir):
  path = workdir / 'eval/certificate.csv'
  with path.open() as file:
    rows = list(csv.DictReader(file))
  text_columns = ('convention', 'metric', 'direction', 'verdict')
  with path.open('w', newline='') as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(
      {k: v if k in text_columns else '' for k, v in row.items()}
      for row in rows
    )
  data = payload(report.write(workdir))
  assert {row['ceiling'] for row in data['certificate']} == {None}


def test_warnings_name_what_a_reader_must_know(workdir):
  env = json.loads((workdir / 'env.json').read_text())
  env['dirty'] = True
  env['split_sha256'] = 'f' * 64
  env['members'][0]['overrides'] = {'learning_rate': 0.01}
  del env['members'][2]['status']
  (workdir / 'env.json').write_text(json.dumps(env))
  path = workdir / 'eval/summary.csv'
  lines = path.read_text().splitlines()
  fields = lines[1].split(',')
  fields[6] = repr(float(fields[6]) + 0.1)
  path.write_text('\n'.join([lines[0], ','.join(fields), *lines[2:]]))
  text = body(report.write(workdir))
  assert 'not the file that this run recorded' in text
  assert 'split.csv differs' in text
  assert 'changes that were not committed' in text
  assert 'Member 1 (seed 1): failed at step 1200. Its scores are not in' in text
  assert 'Member 2 (seed 2): not finished. Its scores are in the' in text
  assert 'The members have 2 different settings' in text
  assert 'learning_rate=0.01' in text
  assert re.search(r'1 of [\d,]+ means of eval/summary.csv are not', text)
  assert 'values of eval/metrics.csv are undefined (control ' in text


def test_a_clean_run_warns_of_nothing_else(workdir):
  path = report.write(workdir)
  found = re.findall(
    r'<li class="warning"><b>warning</b> <span>(.*?)<', body(path)
  )
  assert len(found) == 2
  assert 'failed at step' in found[0]
  assert 'are undefined' in found[1]
  assert 'split.csv agrees' in body(path)


@pytest.fixture(scope='module')
def large(tmp_path_factory):
  workdir = fabricated_run.write_large(tmp_path_factory.mktemp('large'))
  return report.write(workdir)


@pytest.mark.slow
def test_a_large_run_stays_under_five_megabytes(large):
  assert large.stat().st_size < 5_000_000
  data = payload(large)
  assert len(data['models']) == 10
  assert len(data['profiles']['pairs']) == 300
  assert data['profiles']['index']['shape'][1] >= 100
  assert data['grids'][0]['combos'] == len(data['combos']) == 72


@pytest.mark.slow
def test_a_hundred_metrics_stay_under_five_megabytes(tmp_path):
  metrics = tuple(f'metric_{i}' for i in range(17))
  fabricated_run.write_large(
    tmp_path, conditions=40, genes=2000, metrics=metrics
  )
  named = [f'metric_{i}' for i in range(100)]
  fabricated_run.write_calibration(tmp_path / 'eval', named)
  path = report.write(tmp_path)
  data = payload(path)
  assert (len(data['combos']), len(data['certificate'])) == (102, 100)
  assert path.stat().st_size < 5_000_000


def run_script(path, script, tmp_path):
  """Runs JavaScript in the page with Chromium; returns what it reports."""
  browser = shutil.which('chromium') or shutil.which('google-chrome')
  if browser is None:
    pytest.skip('there is no Chromium to draw the page with')
  text = path.read_text(encoding='utf-8')
  probe = (
    '<script>window.problems = [];'
    'addEventListener("error", (e) => problems.push(e.message));</script>'
  )
  tail = (
    '<pre id="probe"></pre><script>try {'
    f'document.getElementById("probe").textContent = JSON.stringify({script});'
    '} catch (e) { problems.push(e.message); }'
    'document.getElementById("probe").dataset.problems = '
    'JSON.stringify(problems);</script></body>'
  )
  copy = tmp_path / 'probe.html'
  text = text.replace('<head>', '<head>' + probe)
  copy.write_text(text.replace('</body>', tail), encoding='utf-8')
  flags = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--virtual-time-budget=4000',
    '--dump-dom',
  ]
  profile = f'--user-data-dir={tmp_path / "profile"}'
  done = subprocess.run(
    [browser, *flags, profile, copy.as_uri()],
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
  )
  found = re.search(
    r'<pre id="probe" data-problems="(.*?)">(.*?)</pre>', done.stdout, re.DOTALL
  )
  unescape = {'&quot;': '"', '&lt;': '<', '&gt;': '>', '&amp;': '&'}
  problems, answer = found.groups()
  for code, character in unescape.items():
    problems = problems.replace(code, character)
    answer = answer.replace(code, character)
  assert json.loads(problems) == []
  return json.loads(answer)


TOUR = """(() => {
  const all = (q) => [...document.querySelectorAll(q)];
  const names = () => all('.board tbody .model').map(
    (x) => x.childNodes[1].textContent);
  const choose = (select, value) => {
    select.value = value;
    select.dispatchEvent(new Event('change'));
  };
  const menus = () => all('#toolbar select');
  const out = { ready: document.documentElement.dataset.ready };
  out.start = names();
  out.means = all('.board tbody tr').map((x) => x.children[2].textContent);
  all('[data-sort="model"]')[0].click();
  out.byName = names();
  all('[data-sort="model"]')[0].click();
  out.byNameTurned = names();
  all('[data-sort="mean"]')[0].click();
  choose(menus()[0], 'rmse');
  out.byRmse = names();
  out.rmse = all('.board tbody tr').map((x) => x.children[2].textContent);
  choose(menus()[3], '1');
  out.lede = document.querySelector('[data-fill="lede"]').textContent;
  out.dots = all('.strip-chart .dot').length;
  out.panels = all('#predictions figure').length;
  const caption = () => all('[data-fill="scatter-caption"]')[0].textContent;
  const before = caption();
  all('.step')[1].click();
  out.moved = before !== caption();
  all('.pick tbody tr')[0].click();
  out.chosen = all('.pick tr.chosen').length;
  out.curves = all('#curves path.curve').length;
  out.crosses = all('#curves path.broken').length;
  out.matrix = all('.matrix tbody tr').map((x) => x.children.length);
  out.bold = all('main b').filter((x) => x.closest('.pick, .board')).length;
  const ranges = () => all('.ranges tbody tr').length;
  out.ranges = ranges();
  out.marks = all('.ranges .mark').length;
  out.words = all('.word').map((x) => x.textContent).filter((x) => x);
  out.tip = all('.verdict-cell').map((x) => x.tip).find((x) => x).join('; ');
  out.failure = document.getElementById('failure').hidden;
  return out;
})()"""


@pytest.mark.slow
def test_the_page_draws_and_answers_in_a_browser(workdir, tmp_path):
  path = report.write(workdir)
  out = run_script(path, TOUR, tmp_path)
  assert out['ready'] == 'yes'
  assert out['failure'] is True
  with (workdir / 'eval/summary.csv').open() as file:
    rows = [
      row
      for row in csv.DictReader(file)
      if (row['aggregate'], row['genes'], row['regime'])
      == ('delta', 'all', 'all')
    ]
  mean = {(r['model'], r['metric']): float(r['mean']) for r in rows}
  models = sorted({r['model'] for r in rows})
  pearson = sorted(
    (m for m in models if m != 'control'), key=lambda m: -mean[m, 'pearson']
  )
  assert out['start'] == [*pearson, 'control']
  shown = [f'{mean[m, "pearson"]:.3f}'.replace('-', '−') for m in pearson]
  assert out['means'] == [*shown, '–']
  assert out['byName'] == models
  assert out['byNameTurned'] == models[::-1]
  assert out['byRmse'] == sorted(models, key=lambda m: mean[m, 'rmse'])
  assert out['rmse'] == [f'{mean[m, "rmse"]:.3f}' for m in out['byRmse']]
  assert 'RMSE, change from control, all genes' in out['lede']
  assert 'seen2' in out['lede']
  assert out['dots'] == len(models) * 6
  assert out['panels'] == 3
  assert out['moved'] is True
  assert out['chosen'] >= 1
  assert out['curves'] == 3 * 3
  assert out['crosses'] >= 1
  assert len(set(out['matrix'])) == 1
  assert out['bold'] == 0
  assert out['ranges'] == 6
  assert out['marks'] >= 6 * 4
  # Six conditions in a regime, two models: what is trained is judged.
  assert len(out['words']) == 2
  assert 'Paired over' in out['tip']


@pytest.mark.slow
@pytest.mark.parametrize('name', read.CONSEQUENCES)
def test_the_page_draws_without_a_file(workdir, tmp_path, name):
  (workdir / name).unlink()
  script = '[document.documentElement.dataset.ready]'
  assert run_script(report.write(workdir), script, tmp_path) == ['yes']


@pytest.mark.slow
@pytest.mark.parametrize('name', read.CONSEQUENCES)
def test_the_page_draws_with_one_file(made, tmp_path, name):
  target = tmp_path / name
  target.parent.mkdir(exist_ok=True)
  shutil.copy(made / name, target)
  script = '[document.documentElement.dataset.ready]'
  assert run_script(report.write(tmp_path), script, tmp_path) == ['yes']


@pytest.mark.slow
def test_the_large_page_draws(large, tmp_path):
  script = 'document.querySelectorAll(".strip-chart .dot").length'
  assert run_script(large, script, tmp_path) == 3000
