// Single conditions: strips by model, and the extremes.

const pairKey = (grid, p) => `${grid.conditions[p]}|${grid.groups[p]}`;

function gridValue(m, p) {
  const grid = data.grids[state.split];
  const c = current();
  if (!grid || c < 0 || c >= grid.combos) return null;
  return unpack(grid.values)[(m * grid.combos + c) * grid.conditions.length + p];
}

function shownPairs() {
  const grid = data.grids[state.split];
  if (!grid) return [];
  return grid.conditions
    .map((_, p) => p)
    .filter((p) => state.regime === 0 || grid.regimes[p] === state.regime);
}

function pairWords(grid, p) {
  const several = new Set(grid.groups).size > 1;
  return grid.conditions[p] + (several ? ` · ${grid.groups[p]}` : '');
}

function chosenPair() {
  const grid = data.grids[state.split];
  if (!grid || state.pair === null) return -1;
  return grid.conditions.findIndex((_, p) => pairKey(grid, p) === state.pair);
}

function choosePair(key) {
  state.pair = key;
  drawStrip();
  drawExtremes();
  drawPicker();
  drawScatter();
}

// Strips

// A fixed scatter of dots: the same page for the same numbers.
function jitter(p) {
  const x = Math.sin((p + 1) * 12.9898) * 43758.5453;
  return x - Math.floor(x) - 0.5;
}

function dotTip(grid, m, p, value) {
  const cells = grid.cells[p];
  return [
    pairWords(grid, p),
    `${data.models[m].name}: ${number(value)}`,
    [data.regimes[grid.regimes[p]], cells ? plural(cells, 'cell') : '']
      .filter((x) => x)
      .join(', '),
  ];
}

function stripRow(grid, m, pairs, x, height) {
  const kind = kindOf(m);
  const found = pairs.map((p) => [p, gridValue(m, p)]).filter(([, v]) => known(v));
  const drawing = s('svg', { height, role: 'img', 'aria-label': data.models[m].name });
  const middle = height / 2;
  const sorted = found.map(([, v]) => v).sort((a, b) => a - b);
  if (sorted.length > 4) {
    const [q1, q2, q3] = [0.25, 0.5, 0.75].map((q) => clamp(x(quantile(sorted, q))));
    drawing.append(
      s('rect', {
        x: percent(q1),
        width: percent(Math.max(q3 - q1, 0.1)),
        y: 5,
        height: height - 10,
        rx: 2,
        class: 'box',
      }),
      line(percent(q2), 5, percent(q2), height - 5, 'median'),
    );
  }
  for (const [p, value] of found) {
    drawing.append(
      s('circle', {
        cx: percent(clamp(x(value))),
        cy: (middle + jitter(p) * (height - 16)).toFixed(1),
        r: found.length > 150 ? 2.4 : 3.2,
        class: `dot ${kind}`,
        tip: () => dotTip(grid, m, p, value),
        onclick: () => choosePair(pairKey(grid, p)),
      }),
    );
  }
  const chosen = found.find(([p]) => p === chosenPair());
  if (chosen) {
    drawing.append(
      s('circle', {
        cx: percent(clamp(x(chosen[1]))),
        cy: (middle + jitter(chosen[0]) * (height - 16)).toFixed(1),
        r: 5.5,
        class: 'chosen-dot',
      }),
    );
  }
  return drawing;
}

function drawStrip() {
  if (!slot('strip')) return;
  const grid = data.grids[state.split];
  const c = current();
  const missing =
    !grid || c < 0
      ? 'eval/metrics.csv has no values of this split.'
      : c >= grid.combos
        ? 'This metric is left out here, to keep the page small.'
        : null;
  if (missing) {
    put('strip-lede');
    return put('strip', h('p', { class: 'absent' }, missing));
  }
  const pairs = shownPairs();
  const shown = byMedian(pairs);
  const all = shown.flatMap((m) => pairs.map((p) => gridValue(m, p)).filter(known));
  const [low, high] = domain(all);
  const x = scale(low, high, 0, 100);
  const outside = all.filter((v) => v < low || v > high).length;
  const marks = ticks(low, high, 6);
  const axis = s('svg', { height: 26, 'aria-hidden': true });
  for (const tick of marks) {
    const at = percent(x(tick));
    axis.append(
      line(at, 0, at, 5, 'axis'),
      label(at, 19, 'middle', tickText(tick, marks)),
    );
  }
  put(
    'strip-lede',
    h('b', {}, comboWords(data.combos[c])),
    `, ${data.splits[state.split]} split, ${regimeWords()}. Each dot is one of `,
    `${plural(pairs.length, 'condition')}, the box its middle half, the line `,
    'the median. Choose a dot to follow a condition.',
    outside ? ` ${plural(outside, 'far value')} drawn at the edge.` : '',
  );
  put(
    'strip',
    h(
      'div',
      { class: 'strip-chart' },
      shown.map((m) => [
        h('div', { class: `name ${kindOf(m)}` }, data.models[m].name),
        stripRow(grid, m, pairs, x, 38),
      ]),
      h('div', {}),
      axis,
    ),
  );
}

function byMedian(pairs) {
  const median = (m) => {
    const found = pairs.map((p) => gridValue(m, p)).filter(known).sort((a, b) => a - b);
    return found.length ? quantile(found, 0.5) : null;
  };
  const medians = models().map(median);
  const sign = goodness(state.metric);
  return models()
    .filter((m) => known(medians[m]))
    .sort((a, b) => sign * (medians[b] - medians[a]));
}

// Extremes

function drawExtremes() {
  if (!slot('extremes')) return;
  const grid = data.grids[state.split];
  const c = current();
  const way = direction(state.metric);
  if (!grid || c < 0 || c >= grid.combos) return put('extremes');
  if (!way) {
    return put(
      'extremes',
      h(
        'p',
        { class: 'absent' },
        'Without a direction in eval/summary.csv there is no best and no worst.',
      ),
    );
  }
  const sign = goodness(state.metric);
  const m = state.model;
  const rival = difference(m, c)?.rival ?? -1;
  const top = data.models.findIndex((model) => model.kind === 'ceiling');
  const found = shownPairs()
    .filter((p) => known(gridValue(m, p)))
    .sort((a, b) => sign * (gridValue(m, b) - gridValue(m, a)));
  const few = Math.min(8, Math.floor(found.length / 2));
  const others = [rival, top].filter((o) => o >= 0 && o !== m);
  const digits = decimals(
    found.reduce((most, p) => Math.max(most, Math.abs(gridValue(m, p))), 0),
  );
  const row = (p) =>
    h(
      'tr',
      {
        class: p === chosenPair() ? 'chosen' : null,
        onclick: () => choosePair(pairKey(grid, p)),
      },
      h('td', {}, pairWords(grid, p), h('small', {}, data.regimes[grid.regimes[p]])),
      h('td', { class: 'n wide' }, known(grid.cells[p]) ? grid.cells[p] : '–'),
      h('td', { class: 'n' }, number(gridValue(m, p), digits)),
      others.map((o) => h('td', { class: 'n' }, number(gridValue(o, p), digits))),
    );
  const table = (title, rows) =>
    h(
      'div',
      {},
      h('h3', {}, title),
      h(
        'div',
        { class: 'scroll' },
        h(
          'table',
          { class: 'plain pick' },
          h(
            'thead',
            {},
            h(
              'tr',
              {},
              h('th', {}, 'Condition'),
              h('th', { class: 'n wide' }, 'Cells'),
              [m, ...others].map((o) => h('th', { class: 'n' }, data.models[o].name)),
            ),
          ),
          h('tbody', {}, rows.map(row)),
        ),
      ),
    );
  put(
    'extremes',
    table(`Best conditions of ${data.models[m].name}`, found.slice(0, few)),
    table(`Worst conditions of ${data.models[m].name}`, found.slice(-few).reverse()),
  );
}
