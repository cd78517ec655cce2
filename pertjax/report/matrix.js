// All metrics of one quantity: values, ranks and their shade.

// Mid-ranks among the models that are ranked; the ceiling is not.
function rankAll(c) {
  if (!direction(data.combos[c][2])) return new Map();
  const ranked = rankable(c);
  return new Map(
    ranked.map((m) => {
      const equal = ranked.filter((o) => alike(score('mean', o, c), score('mean', m, c)));
      return [m, numberBetter(m, c) + (equal.length + 1) / 2];
    }),
  );
}

function matrixCell(m, c, ranks, digits) {
  const last = ranks.size;
  const value = score('mean', m, c);
  const rank = ranks.get(m);
  const heat = rank && last > 1 ? (0.5 * (last - rank)) / (last - 1) : 0;
  const shown = rank && (Number.isInteger(rank) ? rank : rank.toFixed(1));
  return h(
    'td',
    {
      style: `--heat:${heat.toFixed(3)}`,
      tip: [
        `${data.models[m].name}: ${number(value, 4)}`,
        comboWords(data.combos[c]),
        rank ? `rank ${shown} of ${last}` : 'not ranked',
      ],
    },
    h('span', {}, number(value, digits)),
    rank ? h('small', {}, `${shown}`) : null,
  );
}

function drawMatrix() {
  if (!slot('matrix') || !sizes.combos) return;
  const fits = ([aggregate, genes]) =>
    aggregate === state.aggregate && genes === state.genes;
  const columns = data.combos.map((_, c) => c).filter((c) => fits(data.combos[c]));
  const ranks = new Map(columns.map((c) => [c, rankAll(c)]));
  const rankedBy = (m) => columns.map((c) => ranks.get(c).get(m)).filter(known);
  const meanRank = (m) => {
    const found = rankedBy(m);
    return found.length ? found.reduce((a, b) => a + b, 0) / found.length : null;
  };
  const meanTip = (m) => [
    `Mean rank of ${data.models[m].name}`,
    `over ${rankedBy(m).length} of ${plural(columns.length, 'metric')}`,
  ];
  const order = models()
    .filter((m) => columns.some((c) => score('conditions', m, c) !== null))
    .sort((a, b) => (meanRank(a) ?? -1) - (meanRank(b) ?? -1));
  const isRank = (c) => data.combos[c][2].endsWith('_rank');
  const split = columns.findIndex(isRank);
  const spaced = (cells) =>
    split > 0 ? [...cells.slice(0, split), null, ...cells.slice(split)] : cells;
  const gap = (cell, tag) => cell || h(tag, { class: 'gap' });
  const arrows = { higher: '↑', lower: '↓' };
  const head = columns.map((c) =>
    h(
      'th',
      { scope: 'col', class: data.combos[c][2] === state.metric ? 'now' : null },
      metricWords(data.combos[c][2]).replace(/ rank$/, ''),
      h('br'),
      arrows[direction(data.combos[c][2])] || '',
    ),
  );
  const digits = new Map(
    columns.map((c) => {
      const values = order.map((m) => score('mean', m, c)).filter(known).map(Math.abs);
      const most = Math.max(...values, 0);
      // Three decimals wherever they suffice, so that columns compare.
      return [c, most < 0.01 || most >= 10 ? decimals(most) : 3];
    }),
  );
  const ranked = split > 0 ? columns.length - split : 0;
  const groups = h(
    'tr',
    { class: 'groups' },
    h('th', {}),
    h('th', { colspan: columns.length - ranked }, ranked ? 'scores' : ''),
    ranked ? h('th', { class: 'gap' }) : null,
    ranked
      ? h('th', { colspan: ranked }, 'rank metrics: 0 is best, 0.5 is chance')
      : null,
    h('th', { colspan: 2 }),
  );
  put(
    'matrix-lede',
    h('b', {}, `${aggregateWords(state.aggregate)}, ${genesWords(state.genes)}`),
    `, ${data.splits[state.split]} split, ${regimeWords()}. Small figures and `,
    'the shade are the rank within a column; a stronger shade is better. ',
    '↑ higher is better, ↓ lower is better.',
  );
  put(
    'matrix',
    h(
      'table',
      { class: 'matrix' },
      h(
        'thead',
        {},
        ranked ? groups : null,
        h(
          'tr',
          {},
          h('th', {}, 'Model'),
          spaced(head).map((cell) => gap(cell, 'th')),
          h('th', { class: 'gap' }),
          h('th', { scope: 'col' }, 'Mean rank'),
        ),
      ),
      h(
        'tbody',
        {},
        order.map((m) => {
          const cells = columns.map((c) =>
            matrixCell(m, c, ranks.get(c), digits.get(c)),
          );
          return h(
            'tr',
            {},
            h(
              'th',
              { scope: 'row', class: kindOf(m) },
              icon(kindOf(m)),
              ` ${data.models[m].name}`,
            ),
            spaced(cells).map((cell) => gap(cell, 'td')),
            h('td', { class: 'gap' }),
            h(
              'td',
              { tip: () => meanTip(m) },
              h('span', {}, number(meanRank(m), 1)),
            ),
          );
        }),
      ),
    ),
  );
}
