// What each metric can tell apart: where nothing, something and everything lie.

// So many stand open; the others are a click away.
const OPEN_RANGES = 8;
const openRanges = new Set();

const RANGE_MARKS = {
  control: (r) => s('rect', { x: -r + 1, y: -r + 1, width: 2 * r - 2, height: 2 * r - 2 }),
  mean: (r) => s('path', { d: `M${-r} ${-r + 1}L${r} ${-r + 1}L0 ${r}Z` }),
  interpolated: (r) => s('path', { d: `M${-r} ${r - 1}L${r} ${r - 1}L0 ${-r}Z` }),
};

function rangeMark(kind, x, y) {
  if (!Object.hasOwn(RANGE_MARKS, kind)) return mark(kind, x, y, 5);
  const inner = RANGE_MARKS[kind](5);
  inner.setAttribute('class', `mark c-${kind}`);
  return s('svg', { x, y, overflow: 'visible' }, inner);
}

// [kind, name, key of the row].
const REFERENCE_MARKS = [
  ['control', 'control cells', 'control'],
  ['mean', 'mean of all perturbations', 'perturbed_mean'],
  ['interpolated', 'interpolated', 'interpolated'],
  ['ceiling', 'replicate', 'ceiling'],
];

// The run's model and its best baseline, by the leaderboard.
function rangeModels(row) {
  if (row.combo < 0 || !data.scores) return [];
  const found = [];
  const own = data.models.findIndex((model) => model.primary);
  const rival = bestBaseline(row.combo);
  for (const [m, name] of [[rival, 'best baseline'], [own, 'this run']]) {
    const value = m >= 0 ? score('mean', m, row.combo) : null;
    if (known(value) && !found.some((x) => x.m === m)) {
      found.push({ m, kind: kindOf(m), name: `${name}, ${data.models[m].name}`, value });
    }
  }
  return found;
}

function rangeTip(row, marks) {
  const range = (low, high) =>
    known(low) ? ` (${number(low, 4)} to ${number(high, 4)})` : '';
  const lines = [`${row.convention}: ${row.metric}`];
  for (const { name, value } of marks) lines.push(`${name}: ${number(value, 4)}`);
  lines.push(`replicate's interval:${range(row.ceiling_low, row.ceiling_high) || ' none'}`);
  if (known(row.null)) {
    lines.push(`nothing there: ${number(row.null, 4)}${range(row.null_low, row.null_high)}`);
  }
  if (known(row.best)) lines.push(`best: ${number(row.best, 4)}`);
  if (known(row.chance)) lines.push(`chance: ${number(row.chance, 4)}`);
  lines.push(plural(row.conditions ?? 0, 'condition'));
  return lines;
}

const LANES = { height: 52, references: 13, models: 27, words: 48 };

// Values far out are drawn as an arrow at the edge.
function rangePlace(drawing, kind, x, value, y) {
  const at = x(value);
  if (at >= -1 && at <= 101) {
    drawing.append(rangeMark(kind, percent(at), y));
    return;
  }
  const arrow = at < 0 ? 'M4 -4L-3 0L4 4Z' : 'M-4 -4L3 0L-4 4Z';
  drawing.append(
    s(
      'svg',
      { x: percent(at < 0 ? 0 : 100), y, overflow: 'visible' },
      s('path', { d: arrow, class: `mark c-${kind}` }),
    ),
  );
}

// Between the worse reference, the replicate, the models and the best value.
function rangeDomain(row, models) {
  const near = [
    row.perturbed_mean ?? row.control,
    row.ceiling,
    row.ceiling_low,
    row.ceiling_high,
    row.interpolated,
    row.null,
    row.best,
    ...models.map((x) => x.value),
  ].filter(known);
  if (!near.length) return null;
  // The control joins unless it squeezes all others into a corner.
  let [low, high] = [Math.min(...near), Math.max(...near)];
  if (known(row.control) && high > low) {
    const reach = 2 * (high - low);
    if (row.control > low - reach && row.control < high + reach) {
      [low, high] = [Math.min(low, row.control), Math.max(high, row.control)];
    }
  }
  return padded([low, high]);
}

function rangeDrawing(row, models) {
  const found = rangeDomain(row, models);
  const drawing = s('svg', { class: 'lanes', role: 'img' });
  if (!found) return drawing;
  const [low, high] = found;
  const turned = row.direction === 'lower';
  const x = turned ? scale(high, low, 0, 100) : scale(low, high, 0, 100);
  const edge = (value) => Math.min(100, Math.max(0, x(value)));
  const band = (a, b, y, height, kind) => {
    const [from, to] = [edge(a), edge(b)].sort((p, q) => p - q);
    return s('rect', {
      x: percent(from),
      width: percent(Math.max(to - from, 0.2)),
      y,
      height,
      class: kind,
    });
  };
  const { references, models: lane, words } = LANES;
  const floor = row.perturbed_mean ?? row.control;
  if (known(floor) && known(row.ceiling)) {
    const reached = (turned ? -1 : 1) * (row.ceiling - floor) > 0;
    drawing.append(band(floor, row.ceiling, 2, 36, reached ? 'reach' : 'reach none'));
  }
  if (known(row.null)) {
    if (known(row.null_low)) {
      drawing.append(band(row.null_low, row.null_high, 33, 5, 'nothing'));
    }
    if (x(row.null) >= 0 && x(row.null) <= 100) {
      drawing.append(line(percent(x(row.null)), 29, percent(x(row.null)), 42, 'c-null'));
    }
  }
  drawing.append(line('0%', 38, '100%', 38, 'axis'));
  const marks = [];
  for (const tick of ticks(low, high, 3)) {
    const at = percent(x(tick));
    marks.push(line(at, 38, at, 41, 'axis'));
    marks.push(label(at, words, 'middle', tickText(tick, ticks(low, high, 3))));
  }
  if (known(row.best)) {
    marks.push(line(percent(edge(row.best)), 2, percent(edge(row.best)), 38, 'c-best'));
  }
  if (known(row.ceiling_low)) {
    const [a, b] = [row.ceiling_low, row.ceiling_high].map((v) => percent(edge(v)));
    marks.push(line(a, references, b, references, 'whisker c-ceiling'));
  }
  drawing.append(...marks);
  for (const [kind, , key] of REFERENCE_MARKS) {
    if (known(row[key])) rangePlace(drawing, kind, x, row[key], references);
  }
  for (const { kind, value } of models) rangePlace(drawing, kind, x, value, lane);
  const said = REFERENCE_MARKS.filter(([, , key]) => known(row[key])).map(
    ([, name, key]) => `${name} ${number(row[key], 3)}`,
  );
  const scored = models.map(({ name, value }) => `${name} ${number(value, 3)}`);
  drawing.setAttribute('aria-label', [...said, ...scored].join(', '));
  return drawing;
}

function rangeRow(row) {
  const models = rangeModels(row);
  const marks = [
    ...REFERENCE_MARKS.map(([, name, key]) => ({ name, value: row[key] })),
    ...models,
  ].filter(({ value }) => known(value));
  const fault = !row.sound && !row.silent;
  const share = (value) =>
    known(value) ? `${number(100 * value, 0)}%` : '–';
  return h(
    'tr',
    { tip: () => rangeTip(row, marks) },
    h(
      'th',
      { scope: 'row', class: 'metric' },
      inFull(row) ? comboWords(data.combos[row.combo]) : row.metric,
      h('small', { class: fault ? 'fault' : null }, row.verdict),
    ),
    h('td', { class: 'range' }, rangeDrawing(row, models)),
    h('td', { class: 'n wide' }, share(row.dynamic_range)),
    h('td', { class: 'n wide' }, share(row.bound_discrimination)),
  );
}

function rangeTable(rows) {
  return h(
    'div',
    { class: 'scroll' },
    h(
      'table',
      { class: 'ranges' },
      h(
        'thead',
        {},
        h(
          'tr',
          {},
          h('th', { class: 'metric' }, 'Metric'),
          h('th', { class: 'range' }, 'worse ← → better'),
          h('th', { class: 'n wide' }, 'Range'),
          h('th', { class: 'n wide' }, 'Wins'),
        ),
      ),
      h('tbody', {}, rows.map(rangeRow)),
    ),
  );
}

function drawRangeLegend() {
  const small = (node) => s('svg', { width: 14, height: 14, 'aria-hidden': true }, node);
  const bar = (kind) => small(s('rect', { x: 1, y: 1, width: 12, height: 12, class: kind }));
  put(
    'certificate-legend',
    h(
      'span',
      {},
      small(
        s(
          'g',
          {},
          s('rect', { x: 0, y: 5, width: 14, height: 5, class: 'nothing' }),
          line(7, 1, 7, 14, 'c-null'),
        ),
      ),
      'nothing there',
    ),
    REFERENCE_MARKS.map(([kind, name]) =>
      h('span', {}, small(rangeMark(kind, 7, 7)), name),
    ),
    h('span', {}, small(line(7, 0, 7, 14, 'c-best')), 'best value'),
    h('span', {}, bar('reach'), 'what can be told apart'),
    ['own', 'baseline']
      .filter((kind) => data.models.some((_, m) => kindOf(m) === kind))
      .map((kind) =>
        h('span', {}, icon(kind), kind === 'own' ? 'this run' : 'best baseline'),
      ),
  );
}

// A metric that is named as in the tables, in full.
const inFull = (row) => row.metric.includes('|') && row.combo >= 0;

function rangeGroup(row) {
  if (!inFull(row)) return row.convention;
  const [aggregate, genes] = data.combos[row.combo];
  return `${aggregateWords(aggregate)}, ${genesWords(genes)}`;
}

function drawCertificate() {
  if (!slot('certificate') || !data.certificate) return;
  const rows = data.certificate;
  // The leaderboard's metric and the other scores of the same quantity.
  const now = ({ combo }) => {
    const [aggregate, genes, metric] = data.combos[combo] || [];
    if (aggregate !== state.aggregate || genes !== state.genes) return false;
    return metric === state.metric || !metric.endsWith('_rank');
  };
  let shown = rows;
  if (rows.length > OPEN_RANGES + 4) {
    shown = rows.filter(now).slice(0, OPEN_RANGES);
    if (!shown.length) shown = rows.slice(0, OPEN_RANGES);
  }
  const groups = new Map();
  for (const row of rows.filter((x) => !shown.includes(x))) {
    const name = rangeGroup(row);
    groups.set(name, [...(groups.get(name) || []), row]);
  }
  drawRangeLegend();
  put(
    'certificate',
    rangeTable(shown),
    [...groups].map(([name, some]) => {
      const faults = some.filter((row) => !row.sound && !row.silent).length;
      const details = h(
        'details',
        { class: 'more-ranges', open: openRanges.has(name) },
        h(
          'summary',
          {},
          `${name}: ${some.length} more`,
          faults ? `, ${faults} with a fault` : '',
        ),
      );
      // Drawn when they are first seen.
      const draw = () => {
        if (details.open) openRanges.add(name);
        else openRanges.delete(name);
        if (details.open && details.children.length === 1) {
          details.append(rangeTable(some));
        }
      };
      details.addEventListener('toggle', draw);
      draw();
      return details;
    }),
  );
}
