// Predicted against observed, gene by gene.

// Genes drawn in colour, and genes listed, by observed change.
const TOP = 20;
const LISTED = 15;
const PANEL = { width: 340, height: 330 };

function profileModels() {
  return data.profiles.models.map((name) =>
    data.models.findIndex((model) => model.name === name),
  );
}

// The conditions of the chosen split and regime that have a profile.
function pickable() {
  const keys = new Set(data.profiles.pairs);
  const grid = data.grids[state.split];
  if (!grid) {
    return data.profiles.pairs.map((key) => ({ key, words: key, regime: '' }));
  }
  return shownPairs()
    .filter((p) => keys.has(pairKey(grid, p)))
    .map((p) => ({
      key: pairKey(grid, p),
      words: pairWords(grid, p),
      regime: data.regimes[grid.regimes[p]],
    }));
}

function option(value, words, selected) {
  return h('option', { value, selected }, words);
}

function conditionMenu(options) {
  const select = h('select', {
    onchange: (event) => choosePair(event.target.value),
  });
  if (!options.some(({ key }) => key === state.pair)) {
    select.append(option('', '–', true));
  }
  for (const regime of new Set(options.map((x) => x.regime))) {
    const inside = options.filter((x) => x.regime === regime);
    select.append(
      h(
        'optgroup',
        { label: regime || 'conditions' },
        inside.map(({ key, words }) => option(key, words, key === state.pair)),
      ),
    );
  }
  return select;
}

function modelMenu(words, key) {
  const onchange = (event) => {
    state[key] = Number(event.target.value);
    drawExtremes();
    drawScatter();
  };
  const names = data.profiles.models;
  const options = profileModels().map((m, i) =>
    option(m, names[i], m === state[key]),
  );
  return h('label', {}, words, h('select', { onchange }, options));
}

function drawPicker() {
  if (!slot('picker') || !data.profiles) return;
  const options = pickable();
  const inView = shownPairs().includes(chosenPair());
  if (!options.some(({ key }) => key === state.pair) && !inView) {
    state.pair = options.length ? options[0].key : null;
  }
  const button = (words, by, name) => {
    const onclick = () => {
      const at = options.findIndex(({ key }) => key === state.pair);
      const next = options[(at + by + options.length) % options.length];
      if (next) choosePair(next.key);
    };
    const looks = { type: 'button', class: 'step', 'aria-label': name };
    return h('button', { ...looks, onclick }, words);
  };
  put(
    'picker',
    h('label', {}, 'Condition', conditionMenu(options)),
    h(
      'span',
      {},
      button('←', -1, 'Previous condition'),
      ' ',
      button('→', 1, 'Next condition'),
    ),
    modelMenu('Model', 'model'),
    modelMenu('beside', 'rival'),
  );
}

// {genes, truth, guess(model)} of one condition.
function profile(key) {
  const packed = data.profiles;
  const i = packed.pairs.indexOf(key);
  if (i < 0) return null;
  const width = packed.index.shape[1];
  const step = unpack(packed.scale)[i];
  const row = (array, at) => array.subarray(at * width, (at + 1) * width);
  const values = (array, at) =>
    Array.from(row(array, at), (q) => (q === -32768 ? NaN : q * step));
  return {
    genes: Array.from(row(unpack(packed.index), i), (g) => packed.genes[g]),
    truth: values(unpack(packed.observed), i),
    guess: (m) => {
      const place = packed.models.indexOf(data.models[m]?.name);
      if (place < 0) return null;
      return values(unpack(packed.predicted), place * packed.pairs.length + i);
    },
  };
}

function frame(low, high, x, y, title) {
  const marks = ticks(low, high, 5);
  const drawing = picture(PANEL.width, PANEL.height, title);
  for (const tick of marks) {
    const kind = tick === 0 ? 'zero' : 'grid';
    const words = tickText(tick, marks);
    drawing.append(
      line(x(tick), y(low), x(tick), y(high), kind),
      line(x(low), y(tick), x(high), y(tick), kind),
      label(x(tick), y(low) + 16, 'middle', words),
      label(x(low) - 6, y(tick) + 4, 'end', words),
    );
  }
  const [across, up] = [x, y].map((axis) => (axis(low) + axis(high)) / 2);
  const side = label(0, 0, 'middle', 'predicted change');
  side.setAttribute('transform', `translate(11 ${up}) rotate(-90)`);
  drawing.append(
    line(x(low), y(low), x(high), y(high), 'identity'),
    label(across, PANEL.height - 2, 'middle', 'observed change'),
    side,
  );
  return drawing;
}

// Names the most changed genes where there is room for the name.
function geneLabels(points) {
  const taken = [];
  const labels = [];
  for (const { gene, px, py } of points) {
    const long = gene.length * 6.4 + 4;
    const end = px + 8 + long > PANEL.width;
    const left = end ? px - 8 - long : px + 7;
    const clash = taken.some(
      (o) => left < o.left + o.long && o.left < left + long && Math.abs(py - o.py) < 14,
    );
    if (clash || labels.length >= 7) continue;
    taken.push({ left, long, py });
    labels.push(
      label(end ? px - 8 : px + 8, py + 4, end ? 'end' : 'start', gene, 'gene'),
    );
  }
  return labels;
}

function scatterPanel(shown, m, low, high) {
  const guess = shown.guess(m);
  const x = scale(low, high, 46, PANEL.width - 8);
  const y = scale(low, high, PANEL.height - 38, 8);
  const name = data.models[m].name;
  const drawing = frame(low, high, x, y, `${name}: predicted against observed`);
  const points = shown.genes
    .map((gene, i) => ({ gene, i, truth: shown.truth[i], guess: guess[i] }))
    .filter((point) => known(point.truth) && known(point.guess))
    .map((point) => ({ ...point, px: x(point.truth), py: y(point.guess) }));
  // The most changed genes last, so that they lie on top.
  for (const point of [...points].reverse()) {
    const top = point.i < TOP;
    const lines = [
      point.gene,
      `observed ${signed(point.truth, 3)}`,
      `predicted ${signed(point.guess, 3)}`,
    ];
    if (top) lines.push(`number ${point.i + 1} by observed change`);
    drawing.append(
      s('circle', {
        cx: point.px.toFixed(1),
        cy: point.py.toFixed(1),
        r: top ? 4 : 2.6,
        class: top ? 'top' : 'rest',
        tip: lines,
      }),
    );
  }
  drawing.append(...geneLabels(points.filter((point) => point.i < 10)));
  const p = chosenPair();
  const value = p >= 0 ? gridValue(m, p) : null;
  const words = `${metricWords(state.metric)} ${number(value)}`;
  const note = known(value) ? h('small', {}, words) : null;
  return h('figure', {}, h('figcaption', {}, h('b', {}, name), note), drawing);
}

function key(kind) {
  const shape =
    kind === 'truth'
      ? line(6, 0, 6, 11, kind)
      : s('circle', { cx: 6, cy: 6, r: 4, class: kind });
  const size = { width: 13, height: 11, 'aria-hidden': true, class: 'key' };
  return s('svg', size, shape);
}

// One listed gene: what was observed, and what two models say.
function geneRow({ gene, truth, a, b }, x, left, y, height, names) {
  const lines = [gene, `observed ${signed(truth, 3)}`];
  lines.push(`${names[0]} ${signed(a, 3)}`);
  if (names.length > 1) lines.push(`${names[1]} ${signed(b, 3)}`);
  const group = s('g', { tip: lines });
  const area = { x: 0, y: y - height / 2, width: PANEL.width, height };
  const short = gene.length > 16 ? `${gene.slice(0, 15)}…` : gene;
  const values = [truth, a, b].filter(known).map(x);
  group.append(
    s('rect', { ...area, fill: 'transparent' }),
    label(left - 8, y + 4, 'end', short, 'strong'),
  );
  if (values.length) {
    group.append(line(Math.min(...values), y, Math.max(...values), y, 'link'));
  }
  const dot = (value, r, kind) => s('circle', { cx: x(value), cy: y, r, class: kind });
  if (known(b)) group.append(dot(b, 3.6, 'guess b'));
  if (known(a)) group.append(dot(a, 4.4, 'guess'));
  if (known(truth)) group.append(line(x(truth), y - 6, x(truth), y + 6, 'truth'));
  return group;
}

function genePanel(shown, panels) {
  const [a, b] = panels.map((m) => shown.guess(m));
  const genes = shown.genes.slice(0, LISTED).map((gene, i) => ({
    gene,
    truth: shown.truth[i],
    a: a[i],
    b: b ? b[i] : NaN,
  }));
  const longest = Math.max(...genes.map(({ gene }) => gene.length));
  const left = Math.min(120, 14 + longest * 6.8);
  const used = genes.flatMap(({ truth, a, b }) => [truth, a, b]);
  const [low, high] = padded([0, ...used.filter(known)]);
  const x = scale(low, high, left, PANEL.width - 8);
  const floor = PANEL.height - 38;
  const height = (floor - 8) / Math.max(genes.length, 1);
  const marks = ticks(low, high, 4);
  const drawing = picture(PANEL.width, PANEL.height, 'Most changed genes');
  for (const tick of marks) {
    const kind = tick === 0 ? 'identity' : 'grid';
    drawing.append(
      line(x(tick), 8, x(tick), floor, kind),
      label(x(tick), floor + 16, 'middle', tickText(tick, marks)),
    );
  }
  const names = panels.map((m) => data.models[m].name);
  genes.forEach((gene, i) =>
    drawing.append(geneRow(gene, x, left, 8 + height * (i + 0.5), height, names)),
  );
  const middle = (left + PANEL.width) / 2;
  drawing.append(
    label(middle, PANEL.height - 2, 'middle', 'change from control'),
  );
  const keys = [key('truth'), 'observed ', key('guess'), 'model '];
  if (b) keys.push(key('guess b'), 'beside');
  return h(
    'figure',
    {},
    h('figcaption', {}, h('b', {}, 'Most changed'), h('small', {}, keys)),
    drawing,
  );
}

function scatterCaption(shown) {
  const grid = data.grids[state.split];
  const p = chosenPair();
  const facts = [p >= 0 ? pairWords(grid, p) : state.pair];
  if (p >= 0) {
    facts.push(data.regimes[grid.regimes[p]]);
    if (known(grid.cells[p])) facts.push(plural(grid.cells[p], 'observed cell'));
  }
  const total = plural(data.profiles.total_genes, 'gene');
  const part =
    shown.genes.length < data.profiles.total_genes
      ? `${shown.genes.length} of ${total}: those with the largest observed ` +
        'or predicted change and an even sample of the rest'
      : `all ${total}`;
  const top = Math.min(TOP, shown.genes.length);
  put(
    'scatter-caption',
    h('b', {}, facts.join(', ')),
    `. Shown are ${part}. Blue: the ${top} genes with the largest observed `,
    'change. Predictions are means over seeds; the figure beside a name is ',
    'the mean of the scores of its seeds.',
  );
}

function drawScatter() {
  if (!slot('scatter')) return;
  const say = (words) => {
    put('scatter-caption');
    put('scatter', h('p', { class: 'absent' }, words));
  };
  if (!data.profiles) {
    return say('Predictions are left out to keep the page small.');
  }
  const shown = state.pair === null ? null : profile(state.pair);
  const name = state.pair ?? 'any condition here';
  if (!shown) return say(`No prediction of ${name} is in this page.`);
  const panels = [...new Set([state.model, state.rival])].filter(
    (m) => m >= 0 && shown.guess(m),
  );
  if (!panels.length) return say('No model has predictions.');
  const values = [shown.truth, ...panels.map(shown.guess)].flat();
  const [low, high] = padded(values.filter(known));
  scatterCaption(shown);
  put(
    'scatter',
    panels.map((m) => scatterPanel(shown, m, low, high)),
    genePanel(shown, panels),
  );
}
