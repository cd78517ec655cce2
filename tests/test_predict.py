"""Requests for conditions that nobody measured."""

import pathlib

import anndata
import handmade
import jax.numpy as jnp
import numpy as np
import pytest

from pertjax import config as config_lib
from pertjax import predict, types
from pertjax.data import conventions

CONVENTION = conventions.make('perturbench', covariates=('kind',))
PATH = pathlib.Path('requests.csv')


@pytest.fixture(scope='module')
def screen():
  return handmade.screen(genes=6, copies=4, controls=10)


def _csv(folder, text):
  path = folder / 'requests.csv'
  path.write_text(text, encoding='utf-8')
  return path


def _parse(text, spec, folder, *, convention=CONVENTION, knows=None):
  rows = predict.read_requests(_csv(folder, text))
  return predict.parse_requests(rows, spec, convention, knows, PATH)


def test_read_requests(tmp_path):
  # A byte order mark, as spreadsheets write it, and a quoted comma.
  path = _csv(tmp_path, '\ufeffcondition,kind\nA+B,x\n\n"A,B",y\n')
  assert predict.read_requests(path) == [
    {'condition': 'A+B', 'kind': 'x'},
    {'condition': 'A,B', 'kind': 'y'},
  ]
  with pytest.raises(FileNotFoundError, match='predict.conditions=.*absent'):
    predict.read_requests(tmp_path / 'absent.csv')
  with pytest.raises(ValueError, match='no rows below the header'):
    predict.read_requests(_csv(tmp_path, 'condition,kind\n'))


@pytest.mark.parametrize('row', ['A', 'A,x,3'])
def test_rows_have_the_fields_of_the_header(tmp_path, row):
  path = _csv(tmp_path, f'condition,kind\nB,x\n{row}\n')
  with pytest.raises(ValueError, match=r'row 3: not as many .*condition, kind'):
    predict.read_requests(path)


def test_requests_are_parsed_as_the_data_were(tmp_path, screen):
  _, spec = screen
  text = 'kind,condition\ny,D+B\nx,A+C+B\nx,control\ny,B+D\nx,A+control\n'
  conditions, ids, groups = _parse(text, spec, tmp_path)
  names = [conditions.names[i] for i in ids]
  assert names == ['B+D', 'A+B+C', 'control', 'B+D', 'A']
  assert [conditions.tokens[i] for i in ids][1] == ('A', 'B', 'C')
  assert groups.tolist() == [1, 0, 0, 1, 0]
  assert conditions.names[0] == 'control'


def test_the_column_of_the_condition_may_have_the_files_own_name(
  tmp_path, screen
):
  _, spec = screen
  convention = conventions.make('cpa', covariates=('kind',))
  for key in ('guide_ids', 'condition'):
    conditions, ids, _ = _parse(
      f'{key},kind\n"B,A",x\n', spec, tmp_path, convention=convention
    )
    assert conditions.names[ids[0]] == 'A+B'


def test_doses(tmp_path, screen):
  _, spec = screen
  convention = CONVENTION._replace(dose_key='dose')
  text = 'condition,dose,kind\nB+A,0.5+2,x\nA,10,y\ncontrol,,x\nA+C,1,x\n'
  conditions, ids, _ = _parse(text, spec, tmp_path, convention=convention)
  assert [conditions.names[i] for i in ids] == [
    'A@2+B@0.5', 'A@10', 'control', 'A+C'
  ]  # fmt: skip
  assert conditions.doses[ids[0]] == (2.0, 0.5)
  with pytest.raises(ValueError, match=r"requests.csv: .*'dose' is '-1'"):
    _parse(
      'condition,dose,kind\nA,-1,x\n', spec, tmp_path, convention=convention
    )
  # A dose that nobody reads, or nobody gave, would be silently 1.
  with pytest.raises(ValueError, match="unknown column 'dose'; needed are"):
    _parse(text, spec, tmp_path)
  with pytest.raises(ValueError, match="no column 'dose'; needed are"):
    _parse('condition,kind\nA,x\n', spec, tmp_path, convention=convention)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('kind\nx\n', "no column 'condition'; needed are 'condition', 'kind'"),
    ('condition\nA\n', "no column 'kind'; .* found are 'condition'"),
    ('condition,kind\nA,z\n', r"row 2: .* \{'kind': 'z'\} .*known: x, y"),
    ('condition,kind\nA,x\nA+b,x\n', "row 3, .*'b' is not in .*closest: 'B'"),
    ('condition,kind\nA,x\n,x\n', 'requests.csv: .*1 of 2 cells have no label'),
  ],
)
def test_wrong_requests_say_what_is_allowed(tmp_path, screen, text, message):
  with pytest.raises(ValueError, match=message):
    _parse(text, screen[1], tmp_path)


def test_a_condition_that_the_model_cannot_know(tmp_path, screen):
  _, spec = screen

  def knows(tokens):
    return 'D was never trained' if 'D' in tokens else None

  _parse('condition,kind\nA+B,x\n', spec, tmp_path, knows=knows)
  with pytest.raises(ValueError, match="row 3, 'A.D'.*D was never trained"):
    _parse('condition,kind\nA,x\nD+A,x\n', spec, tmp_path, knows=knows)


def _model():
  """Adds per-gene effects of perturbations times doses, and of the group."""

  def model(params, key, source, condition, consts):
    assert key is None
    known = condition.perturbations >= 0
    effect = params['effect'][jnp.where(known, condition.perturbations, 0)]
    effect = jnp.where(known[..., None], effect, 0.0)
    shift = jnp.sum(effect * condition.doses[..., None], axis=1)
    level = condition.covariates[:, :1].astype(jnp.float32)
    return source * consts['scale'] + shift + 100.0 * level

  return types.Model(init=lambda key, consts: {}, losses={}, predict=model)


def _predict(screen, folder, text, *, convention=CONVENTION, cells=4, count=2):
  data, spec = screen
  config = config_lib.default('decoder_only')
  config.predict.cells = cells
  effects = np.random.default_rng(0).normal(size=(count, 4, 6))
  output = folder / 'predicted.h5ad'
  done = predict.predict(
    config,
    output,
    _csv(folder, text),
    model=_model(),
    data=data,
    spec=spec,
    convention=convention,
    params={'effect': jnp.asarray(effects, jnp.float32)},
    consts=[{'scale': jnp.float32(1 + k)} for k in range(count)],
    members=list(range(count)),
  )
  return done, anndata.read_h5ad(output), effects, output


def test_unseen_conditions_are_predicted_cell_by_cell(tmp_path, screen):
  """Among them one of more perturbations than any in the data."""
  data, spec = screen
  text = (
    'condition,dose,kind\n'
    'B+C,2+1,x\nA+B+C,1,y\ncontrol,,x\nA,0.5,x\nB+C,2+1,x\n'
  )
  convention = CONVENTION._replace(dose_key='dose')
  done, adata, effects, _ = _predict(
    screen, tmp_path, text, convention=convention
  )
  assert done == {'rows': 5, 'cells': 20}
  assert adata.obs['condition'].tolist() == [
    name
    for name in ('B@2+C', 'A+B+C', 'control', 'A@0.5', 'B@2+C')
    for _ in range(4)
  ]
  doses = [[0, 2, 1, 0], [1, 1, 1, 0], [0] * 4, [0.5, 0, 0, 0], [0, 2, 1, 0]]
  values = np.asarray(data.cells.values, np.float64)
  place = {name: i for i, name in enumerate(spec.cell_names)}
  for i in range(20):
    row = place[adata.obs['control_cell'].iloc[i]]
    kind = adata.obs['kind'].iloc[i]
    group = spec.groups.index((kind,))
    assert int(data.condition[row]) == 0
    assert int(data.group[row]) == group
    each = [
      values[row] * (1 + k) + np.dot(doses[i // 4], effects[k]) + 100 * group
      for k in range(2)
    ]
    np.testing.assert_allclose(adata.X[i], np.mean(each, 0), rtol=1e-5)
    np.testing.assert_allclose(
      adata.layers['seed_sd'][i], np.std(each, 0, ddof=1), rtol=1e-4, atol=1e-4
    )
  for n in range(5):
    own = adata.obs['control_cell'].iloc[4 * n : 4 * n + 4]
    assert own.is_unique


def test_every_split_gives_control_cells(tmp_path, screen):
  data, spec = screen
  text = 'condition,kind\nA,x\n'
  done, adata, _, _ = _predict(screen, tmp_path, text, cells=1000)
  rows = np.flatnonzero(
    (np.asarray(data.condition) == 0) & (np.asarray(data.group) == 0)
  )
  assert sorted(adata.obs['control_cell']) == sorted(spec.cell_names[rows])
  assert done['cells'] == len(rows) == 10
  assert set(spec.split.cells[rows]) == {0, 1, 2}


def test_names_are_unique_and_the_same_every_time(tmp_path, screen):
  text = 'condition,kind\nA+C,x\nA+C,x\nB,y\n'
  _, first, _, output = _predict(screen, tmp_path, text, cells=2)
  content = output.read_bytes()
  assert first.obs_names.is_unique
  cell = first.obs['control_cell'].iloc[0]
  assert first.obs_names[0] == f'A+C|x|{cell}|0'
  assert first.obs['row'].tolist() == ['0', '0', '1', '1', '2', '2']
  _predict(screen, tmp_path, text, cells=2)
  assert output.read_bytes() == content
  # A row's cells do not depend on the rows beside it.
  _, alone, _, _ = _predict(screen, tmp_path, 'condition,kind\nB,y\n', cells=2)
  assert (
    alone.obs['control_cell'].tolist()
    == (first.obs['control_cell'].tolist()[4:])
  )
  np.testing.assert_array_equal(alone.X, first.X[4:])


def test_one_member_has_no_spread(tmp_path, screen):
  _, adata, _, _ = _predict(screen, tmp_path, 'condition,kind\nA,x\n', count=1)
  assert not adata.layers
