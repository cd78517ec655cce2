// The leaderboard.

const COLUMNS = [
  ['model', 'Model', ''],
  ['mean', 'Mean', 'n'],
  ['strip', '95% interval', 'strip'],
  ['difference', 'Against best baseline', ''],
  ['spread', 'Seeds', 'n wide'],
  ['conditions', 'Conditions', 'n wide'],
];

function sortValue(key, m, c) {
  if (key === 'model') return data.models[m].name;
  if (key === 'difference') return difference(m, c)?.mean;
  if (key === 'spread') return score('seed_sd', m, c);
  return score(key, m, c);
}

// 1 for ascending, -1 for descending: what a first click should show.
function natural(key) {
  if (key === 'mean' || key === 'difference') return -goodness(state.metric);
  return key === 'conditions' ? -1 : 1;
}

function sortedModels(c) {
  const way = natural(state.sort) * (state.turned ? -1 : 1);
  return models().sort((a, b) => {
    const lacks = state.sort === 'mean' && partial(a, c) - partial(b, c);
    if (lacks) return lacks;
    const [x, y] = [sortValue(state.sort, a, c), sortValue(state.sort, b, c)];
    if (typeof x === 'string') return way * x.localeCompare(y, 'en');
    if (known(x) && known(y)) return way * (x - y);
    return known(y) - known(x);
  });
}

function heading([key, text, kind]) {
  if (key === 'strip') return null;
  const way = natural(key) * (state.turned ? -1 : 1);
  const choose = () => {
    state.turned = state.sort === key && !state.turned;
    state.sort = key;
    drawBoard();
    document.querySelector(`[data-sort="${key}"]`).focus();
  };
  return h(
    'th',
    {
      class: kind,
      'aria-sort':
        state.sort === key ? (way < 0 ? 'descending' : 'ascending') : null,
      scope: 'col',
    },
    h('button', { type: 'button', 'data-sort': key, onclick: choose }, text),
  );
}

const REFERENCES = ['ceiling', 'control'];

function references(x, c) {
  return models()
    .map((m) => ({ name: data.models[m].name, mean: score('mean', m, c) }))
    .filter(({ name, mean }) => REFERENCES.includes(name) && known(mean))
    .map(({ name, mean }) => ({ name, at: x(mean) }))
    .filter((ref) => ref.at >= 0 && ref.at <= 100);
}

function refLines(refs, height) {
  return refs.map(({ name, at }) =>
    line(
      percent(at),
      0,
      percent(at),
      height,
      name === 'grid' ? 'grid' : `ref-${name}`,
    ),
  );
}

function clamp(at) {
  return Math.min(101.5, Math.max(-1.5, at));
}

function gridLines(x, low, high) {
  return ticks(low, high, 6).map((tick) => ({ name: 'grid', at: x(tick) }));
}

const ROW = 42;

function strip(m, c, x, refs) {
  const [mean, low, high] = ['mean', 'low', 'high'].map((k) => score(k, m, c));
  const kind = kindOf(m);
  const middle = ROW / 2;
  const place = (value) => percent(clamp(x(value)));
  const drawing = s('svg', { 'aria-hidden': true }, refLines(refs, ROW));
  if (!known(mean)) return drawing;
  if (known(low) && known(high)) {
    drawing.append(
      line(place(low), middle, place(high), middle, `whisker c-${kind}`),
    );
  }
  for (const { value } of memberScores(m, c)) {
    drawing.append(line(place(value), 30, place(value), 35, 'seed'));
  }
  if (clamp(x(mean)) === x(mean)) {
    drawing.append(mark(kind, place(mean), middle));
  } else {
    // Far outside: an arrow at the edge.
    const arrow = x(mean) < 0 ? 'M5 -5L-3 0L5 5Z' : 'M-5 -5L3 0L-5 5Z';
    drawing.append(
      s(
        'svg',
        { x: place(mean), y: middle, overflow: 'visible' },
        s('path', { d: arrow, class: `mark c-${kind}` }),
      ),
    );
  }
  return drawing;
}

function boardTip(m, c) {
  const [mean, low, high] = ['mean', 'low', 'high'].map((k) => score(k, m, c));
  const lines = [data.models[m].name];
  if (known(low)) {
    const range = `${number(low, 4)} to ${number(high, 4)}`;
    lines.push(`${number(mean, 4)}, 95% interval ${range}`);
  } else lines.push(known(mean) ? number(mean, 4) : 'not defined in any condition');
  const members = memberScores(m, c);
  if (members.length) {
    const each = members.map((x) => `${x.member}: ${number(x.value, 3)}`);
    lines.push(`By member: ${each.join(', ')}`);
  }
  return lines;
}

function differenceCell(m, c, scoreDigits) {
  const cell = (attributes, ...children) =>
    h('td', { class: 'verdict-cell', ...attributes }, ...children);
  const gap = difference(m, c);
  if (!gap || gap.rival < 0) return cell({}, '–');
  if (gap.rival === m) return cell({}, h('small', {}, 'the best baseline'));
  if (!known(gap.mean)) return cell({}, '–');
  if (!gap.mean && !gap.low && !gap.high) return cell({}, h('small', {}, 'equal'));
  // As many decimals as the scores have, and two significant ones at least.
  const size = Math.max(
    ...[gap.mean, gap.low, gap.high].filter(known).map(Math.abs),
  );
  const digits = Math.max(scoreDigits, decimals(size) - 1);
  const range = known(gap.low)
    ? `${number(gap.low, digits)} to ${number(gap.high, digits)}`
    : '';
  return cell(
    { tip: testTip(m, gap, digits) },
    signed(gap.mean, digits),
    h('span', { class: `word ${gap.tone}` }, TONES[gap.tone]),
    h('small', {}, range),
  );
}

const TONES = {
  better: 'better',
  worse: 'worse',
  unclear: 'unclear',
  few: 'too few',
  none: '',
};

function pWords(p) {
  return p < 0.001 ? 'p < 0.001' : `p = ${Number(p.toPrecision(2))}`;
}

function testTip(m, gap, digits) {
  const seeds = gap.seeds > 1 ? `, ${plural(gap.seeds, 'seed')}` : '';
  const lines = [
    `${data.models[m].name} minus ${data.models[gap.rival].name}`,
    `Paired over ${plural(gap.conditions, 'condition')}${seeds}`,
  ];
  if (known(gap.p_adjusted)) {
    const family = gap.tests > 1 ? `, adjusted for ${gap.tests} models` : '';
    lines.push(pWords(gap.p_adjusted) + family);
  }
  if (known(gap.effect)) {
    const effect = number(Math.abs(gap.effect));
    lines.push(`${effect} standard deviations of the paired differences`);
  }
  if (known(gap.won)) lines.push(`Better in ${Math.round(100 * gap.won)}%`);
  if (known(gap.detectable)) {
    const least = number(gap.detectable, digits);
    lines.push(`${least} would be found with 80% power`);
  }
  return lines;
}

const KINDS = {
  own: 'this run',
  trained: 'trained',
  baseline: 'baseline',
  ceiling: 'replicate ceiling',
};

function boardRow(m, c, x, refs, digits, rank) {
  const model = data.models[m];
  const kind = kindOf(m);
  const dropped = score('dropped', m, c);
  const seeds = score('seeds', m, c);
  const spread = score('seed_sd', m, c);
  const word = kind === 'ceiling' ? 'reference' : KINDS[kind];
  return h(
    'tr',
    { class: `${kind}`, tip: () => boardTip(m, c) },
    h('td', { class: 'rank n' }, rank),
    h(
      'td',
      { class: `model ${kind}` },
      icon(kind),
      model.name,
      h('span', { class: 'kind' }, word),
    ),
    h('td', { class: `n ${kind}` }, number(score('mean', m, c), digits)),
    h('td', { class: 'strip' }, strip(m, c, x, refs)),
    differenceCell(m, c, digits),
    h(
      'td',
      { class: 'n wide' },
      model.kind === 'trained' || model.primary ? `${number(seeds, 0)}` : '–',
      known(spread) ? h('small', {}, ` sd ${number(spread, digits)}`) : null,
    ),
    h(
      'td',
      { class: 'n wide' },
      number(score('conditions', m, c), 0),
      dropped ? h('small', {}, ` (${dropped} undefined)`) : null,
    ),
  );
}

// Names the reference lines; two that are close point away from each other.
function refLabels(refs) {
  const drawing = s('svg', { 'aria-hidden': true });
  const sorted = [...refs].sort((a, b) => a.at - b.at);
  sorted.forEach(({ name, at }, i) => {
    const other = sorted[1 - i];
    let anchor = 'middle';
    if (at > 85) anchor = 'end';
    else if (at < 15) anchor = 'start';
    const near = other && Math.abs(other.at - at) < 34;
    if (near) anchor = i ? 'start' : 'end';
    const outside =
      (anchor === 'end' && at < 25) || (anchor === 'start' && at > 75);
    if (near && outside) anchor = anchor === 'end' ? 'start' : 'end';
    drawing.append(
      label(percent(at), near && outside ? 10 : 24, anchor, name),
    );
  });
  return drawing;
}

function axisRow(x, low, high) {
  const marks = ticks(low, high, 6);
  const drawing = s('svg', { 'aria-hidden': true });
  for (const tick of marks) {
    const at = percent(x(tick));
    drawing.append(
      line(at, 0, at, 5, 'axis'),
      label(at, 18, 'middle', tickText(tick, marks)),
    );
  }
  const empty = ['rank', 'model', ''].map((name) => h('td', { class: name }));
  return h(
    'tfoot',
    {},
    h('tr', {}, empty, h('td', { class: 'strip' }, drawing), h('td', { colspan: 3 })),
  );
}

function drawBoard() {
  if (!slot('board')) return;
  const c = current();
  if (c < 0) return put('board', h('p', { class: 'absent' }, 'The table has no rows.'));
  const shown = models().filter((m) => score('conditions', m, c) !== null);
  const ends = shown.flatMap((m) => [
    ...['mean', 'low', 'high'].map((k) => score(k, m, c)),
    ...memberScores(m, c).map((run) => run.value),
  ]);
  const [low, high] = domain(ends);
  const x = scale(low, high, 0, 100);
  const refs = references(x, c);
  const lines = [...gridLines(x, low, high), ...refs];
  const digits = decimals(
    Math.max(...shown.map((m) => Math.abs(score('mean', m, c))).filter(known), 0),
  );
  const way = direction(state.metric);
  const rank = (m) =>
    way && rankable(c).includes(m) ? numberBetter(m, c) + 1 : '';
  const rows = sortedModels(c)
    .filter((m) => shown.includes(m))
    .map((m) => boardRow(m, c, x, lines, digits, rank(m)));
  const heads = COLUMNS.map(
    (column) =>
      heading(column) ||
      h('th', { class: 'strip', 'aria-label': column[1] }, refLabels(refs)),
  );
  put(
    'board',
    h(
      'table',
      { class: 'board' },
      h('thead', {}, h('tr', {}, h('th', { class: 'rank' }), heads)),
      h('tbody', {}, rows),
      axisRow(x, low, high),
    ),
  );
  put(
    'lede',
    h('b', {}, comboWords(data.combos[c])),
    `, ${data.splits[state.split]} split, ${regimeWords()}`,
    way ? `; ${directionWords(state.metric)}.` : '.',
  );
  const kinds = new Set(shown.map(kindOf));
  put(
    'legend',
    Object.keys(KINDS)
      .filter((kind) => kinds.has(kind))
      .map((kind) => h('span', {}, icon(kind), KINDS[kind])),
  );
}
