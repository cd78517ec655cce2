// What is shown, where its numbers are, and the menus that choose it.

const sizes = {
  splits: data.splits.length,
  regimes: data.regimes.length,
  models: data.models.length,
  combos: data.combos.length,
};
const start = data.combos[data.headline] || ['', '', ''];
const state = {
  split: 0,
  regime: 0,
  aggregate: start[0],
  genes: start[1],
  metric: start[2],
  model: 0,
  rival: -1,
  pair: null,
  sort: 'mean',
  turned: false,
};

function comboIndex(aggregate, genes, metric) {
  return data.combos.findIndex(
    (c) => c[0] === aggregate && c[1] === genes && c[2] === metric,
  );
}

const current = () => comboIndex(state.aggregate, state.genes, state.metric);
const direction = (metric) =>
  Object.hasOwn(data.directions, metric) ? data.directions[metric] : null;
const goodness = (metric) => (direction(metric) === 'lower' ? -1 : 1);

function score(column, m, c, r = state.regime) {
  if (!data.scores) return null;
  const row = (state.split * sizes.regimes + r) * sizes.models + m;
  return data.scores[column][row * sizes.combos + c];
}

// The paired test of a model against the best baseline.
const TEST = [
  'mean',
  'low',
  'high',
  'p_adjusted',
  'tests',
  'effect',
  'won',
  'conditions',
  'seeds',
  'detectable',
];

function difference(m, c) {
  const packed = data.differences[state.split];
  if (!packed) return null;
  const rival = unpack(packed.rivals)[state.regime * sizes.combos + c];
  const place = (state.regime * sizes.models + m) * sizes.combos + c;
  const tone = data.tones[unpack(packed.tones)[place]] || 'none';
  const numbers = TEST.map((key) => [key, unpack(packed[key])[place]]);
  return { rival, tone, ...Object.fromEntries(numbers) };
}

// The tested one, or the best by its mean where nothing is tested.
function bestBaseline(c) {
  const rival = difference(0, c)?.rival ?? -1;
  if (rival >= 0) return rival;
  const way = goodness(data.combos[c][2]);
  return rankable(c)
    .filter((m) => data.models[m].kind === 'baseline')
    .reduce(
      (best, m) =>
        best < 0 || way * (score('mean', m, c) - score('mean', best, c)) > 0
          ? m
          : best,
      -1,
    );
}

// [{member, value}] of one model, seed by seed.
function memberScores(m, c) {
  const grid = data.grids[state.split];
  if (!grid) return [];
  const values = unpack(grid.members);
  return grid.runs
    .map(([model, member], i) => ({
      model,
      member,
      value: values[(state.regime * grid.runs.length + i) * sizes.combos + c],
    }))
    .filter((run) => run.model === m && known(run.value));
}

function models() {
  return data.models.map((_, m) => m);
}

// Equal but for rounding.
function alike(a, b) {
  const size = Math.max(Math.abs(a), Math.abs(b));
  return Math.abs(a - b) <= data.rounding * size;
}

// Whether a model lacks conditions that others have: its mean is of other,
// usually easier, conditions, and has no place among theirs.
function partial(m, c) {
  const counts = models().map((o) => score('conditions', o, c) || 0);
  return (score('conditions', m, c) || 0) < Math.max(...counts);
}

function rankable(c) {
  return models().filter(
    (m) =>
      data.models[m].kind !== 'ceiling' &&
      known(score('mean', m, c)) &&
      !partial(m, c),
  );
}

function numberBetter(m, c) {
  const value = (o) => goodness(data.combos[c][2]) * score('mean', o, c);
  return rankable(c).filter(
    (o) => value(o) > value(m) && !alike(value(o), value(m)),
  ).length;
}

// With one regime, "all" is another name for it.
function regimeWords() {
  if (state.regime) return data.regimes[state.regime];
  return sizes.regimes === 2 ? data.regimes[1] : 'all regimes';
}

function directionWords(metric) {
  const way = direction(metric);
  if (!way) return '';
  const best = Object.hasOwn(data.bests, metric)
    ? `, ${number(data.bests[metric], 0)} is best`
    : '';
  return `${way} is better${best}`;
}

// Toolbar

function menu(label, key, options) {
  const select = h('select', {
    onchange: (event) => {
      state[key] = event.target.value;
      if (key === 'split' || key === 'regime') state[key] = Number(state[key]);
      settle(key);
      update();
    },
  });
  for (const [value, text] of options) {
    select.append(h('option', { value, selected: state[key] === value }, text));
  }
  return h('label', {}, label, select);
}

// Not every metric exists for every quantity: keeps the choice possible.
function settle(changed) {
  if (current() >= 0) return;
  const keep = { aggregate: 0, genes: 1, metric: 2 }[changed];
  const wanted = [state.aggregate, state.genes, state.metric];
  const fits = data.combos.filter(
    (c) => keep === undefined || c[keep] === wanted[keep],
  );
  const agreement = (c) => c.filter((x, i) => x === wanted[i]).length;
  fits.sort((a, b) => agreement(b) - agreement(a));
  if (fits.length) [state.aggregate, state.genes, state.metric] = fits[0];
}

function drawToolbar() {
  if (!sizes.combos) return;
  const distinct = (i) => [...new Set(data.combos.map((c) => c[i]))];
  const split = data.splits.map((name, i) => [i, name]);
  const regimes = data.regimes.map((name, i) => [i, name]);
  document.getElementById('toolbar').replaceChildren(
    h(
      'div',
      {},
      menu('Metric', 'metric', distinct(2).map((x) => [x, metricWords(x)])),
      menu('of', 'aggregate', distinct(0).map((x) => [x, aggregateWords(x)])),
      menu('over', 'genes', distinct(1).map((x) => [x, genesWords(x)])),
      regimes.length > 2 ? menu('Regime', 'regime', regimes) : null,
      split.length > 1 ? menu('Split', 'split', split) : null,
    ),
  );
}
