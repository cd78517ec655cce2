// What a model of latent factors has learned: its graph, whose factor is whose,
// and the gene sets that feed each.

const factorState = { member: 0, edges: 15, factor: null };
const NODE = { width: 126, height: 36, gapX: 78, gapY: 14, pad: 8 };
const MOST_DRAWN = 60;

const factorMember = () => data.factors.members[factorState.member];
const factorName = (z) => `F${z}`;
const perturbationName = (p) => data.factors.perturbations[p];

// The perturbations whose largest weight is at this factor.
function perturbationsOf(z) {
  const found = factorMember().about.filter((row) => row.factor === z);
  return [...new Set(found.map((row) => row.perturbation))];
}

const usedFactors = () =>
  [...new Set(factorMember().about.map((row) => row.factor))]
    .filter((z) => z !== null)
    .sort((a, b) => a - b);

function fewNames(z, most) {
  const names = perturbationsOf(z).map(perturbationName);
  if (!names.length) return 'no perturbation';
  const rest = names.length - most;
  return names.slice(0, most).join(', ') + (rest > 0 ? ` +${rest}` : '');
}

function clipped(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

// Columns by the longest path that leads to a factor; rows by the mean place of
// its neighbours, so that few edges cross.
function factorLayout(edges) {
  const nodes = [...new Set(edges.flatMap(([i, j]) => [i, j]))].sort((a, b) => a - b);
  const depth = new Map(nodes.map((z) => [z, 0]));
  // Edges run from lower to higher numbers: one pass in that order will do.
  for (const z of nodes) {
    for (const [i, j] of edges) {
      if (i === z) depth.set(j, Math.max(depth.get(j), depth.get(i) + 1));
    }
  }
  const layers = [];
  for (const z of nodes) (layers[depth.get(z)] ||= []).push(z);
  const place = new Map();
  const settle = () => {
    for (const layer of layers) layer.forEach((z, k) => place.set(z, k - layer.length / 2));
  };
  settle();
  for (let turn = 0; turn < 6; turn++) {
    for (const layer of layers) {
      const middle = new Map(
        layer.map((z) => {
          const near = edges
            .filter(([i, j]) => i === z || j === z)
            .map(([i, j]) => place.get(i === z ? j : i));
          return [z, near.reduce((a, b) => a + b, 0) / near.length];
        }),
      );
      layer.sort((a, b) => middle.get(a) - middle.get(b) || a - b);
    }
    settle();
  }
  const rows = Math.max(...layers.map((layer) => layer.length));
  const at = new Map();
  layers.forEach((layer, x) => {
    layer.forEach((z, k) => {
      at.set(z, {
        x: NODE.pad + x * (NODE.width + NODE.gapX),
        y: NODE.pad + (k + (rows - layer.length) / 2) * (NODE.height + NODE.gapY),
      });
    });
  });
  return {
    at,
    width: 2 * NODE.pad + layers.length * (NODE.width + NODE.gapX) - NODE.gapX,
    height: 2 * NODE.pad + rows * (NODE.height + NODE.gapY) - NODE.gapY,
  };
}

function factorEdge([i, j, weight], at, most) {
  const from = at.get(i);
  const to = at.get(j);
  const [x1, y1] = [from.x + NODE.width, from.y + NODE.height / 2];
  const [x2, y2] = [to.x - 7, to.y + NODE.height / 2];
  const bend = Math.max(30, (x2 - x1) / 2);
  const chosen = [i, j].includes(factorState.factor);
  const sign = weight < 0 ? 'minus' : 'plus';
  const line = s('path', {
    d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`,
    'stroke-width': (0.8 + 3.2 * (Math.abs(weight) / most)).toFixed(2),
    class: `edge ${sign}`,
  });
  const head = s('path', {
    d: `M${x2 + 6} ${y2}l-9 -4.5v9Z`,
    class: `edge-head ${sign}`,
  });
  return s(
    'g',
    {
      class: factorState.factor === null || chosen ? null : 'faded',
      tip: [`${factorName(i)} → ${factorName(j)}`, `weight ${signed(weight, 3)}`],
    },
    line,
    head,
  );
}

function factorNode(z, { x, y }) {
  return s(
    'g',
    {
      class: `factor-node${z === factorState.factor ? ' chosen' : ''}`,
      tabindex: 0,
      role: 'button',
      'aria-label': `factor ${z}: ${fewNames(z, 5)}`,
      tip: [`Factor ${z}`, fewNames(z, 12)],
      onclick: () => chooseFactor(z),
      onkeydown: (event) => {
        if (event.key === 'Enter' || event.key === ' ') {
          event.preventDefault();
          chooseFactor(z);
        }
      },
    },
    s('rect', { x, y, width: NODE.width, height: NODE.height, rx: 5 }),
    label(x + 8, y + 15, 'start', factorName(z), 'strong'),
    label(x + 8, y + 29, 'start', clipped(fewNames(z, 2), 16)),
  );
}

function chooseFactor(z) {
  factorState.factor = z;
  drawFactors();
}

function drawFactorGraph() {
  const { graph, edges: all } = factorMember();
  if (!graph.length) {
    put('factor-graph', h('p', { class: 'caption' }, 'No edge is above 0.005.'));
    put('factor-slider');
    put('factor-caption');
    return;
  }
  const count = Math.min(factorState.edges, graph.length);
  const shown = graph.slice(0, count);
  const least = Math.abs(shown[count - 1][2]);
  const most = Math.abs(shown[0][2]);
  const { at, width, height } = factorLayout(shown);
  const drawing = s('svg', {
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    role: 'img',
    class: 'factor-graph',
    'aria-label': `${count} strongest edges of the learned graph`,
  });
  const near = ([i, j]) => Number([i, j].includes(factorState.factor));
  const ordered = [...shown].sort((a, b) => near(a) - near(b));
  for (const edge of ordered) drawing.append(factorEdge(edge, at, most));
  for (const [z, place] of at) drawing.append(factorNode(z, place));
  put('factor-graph', drawing);
  const alone = usedFactors().filter((z) => !at.has(z)).length;
  put(
    'factor-caption',
    `${count} of ${all.toLocaleString('en')} edges, those with |weight| ≥ ${number(least, 3)}. `,
    'Solid blue adds, dashed orange takes away; width is the weight. ',
    alone ? `${plural(alone, 'used factor')} without such an edge ${alone === 1 ? 'is' : 'are'} not drawn. ` : '',
    'Point at a factor to see its perturbations; choose it for its gene sets.',
  );
}

function drawFactorSlider() {
  const { graph } = factorMember();
  if (!graph.length) return;
  const most = Math.min(MOST_DRAWN, graph.length);
  const said = h('output', {});
  const say = () => {
    const count = Math.min(factorState.edges, most);
    const least = Math.abs(graph[count - 1][2]);
    said.textContent = `${plural(count, 'edge')}, |weight| ≥ ${number(least, 3)}`;
  };
  const slider = h('input', {
    type: 'range',
    min: 1,
    max: most,
    value: Math.min(factorState.edges, most),
    'aria-label': 'number of edges, the strongest first',
    oninput: (event) => {
      factorState.edges = Number(event.target.value);
      say();
      drawFactorGraph();
    },
  });
  say();
  put('factor-slider', h('label', {}, 'Threshold', slider, said));
}

function drawFactorMenus() {
  const { members } = data.factors;
  const choose = (words, options, now, act) => {
    const select = h('select', { onchange: (event) => act(event.target.value) });
    for (const [value, text] of options) {
      select.append(h('option', { value, selected: value === now }, text));
    }
    return h('label', {}, words, select);
  };
  const used = usedFactors();
  const rest = Array.from({ length: factorMember().factors }, (_, z) => z).filter(
    (z) => !used.includes(z),
  );
  put(
    'factor-menus',
    members.length > 1
      ? choose(
          'Member',
          members.map((m, i) => [i, memberWords(m.member)]),
          factorState.member,
          (value) => {
            factorState.member = Number(value);
            factorState.factor = null;
            drawFactors();
          },
        )
      : null,
    choose(
      'Factor',
      [...used, ...rest].map((z) => [z, `${factorName(z)}: ${clipped(fewNames(z, 3), 40)}`]),
      factorState.factor,
      (value) => chooseFactor(Number(value)),
    ),
  );
}

const HEAT = { cell: 15, left: 44, top: 84 };

// Soft assignments: a row for each factor that has any, a column for each
// perturbation, those of one factor side by side.
function drawFactorHeat() {
  const { assigned } = factorMember();
  const rows = [...new Set(assigned.filter((a) => a[2] >= 0.02).map((a) => a[1]))];
  rows.sort((a, b) => a - b);
  const best = new Map();
  for (const [p, z, weight] of assigned) {
    if (!best.has(p) || weight > best.get(p)[1]) best.set(p, [z, weight]);
  }
  const columns = [...best.keys()].sort(
    (a, b) => best.get(a)[0] - best.get(b)[0] || best.get(b)[1] - best.get(a)[1] || a - b,
  );
  const { cell, left, top } = HEAT;
  const width = left + columns.length * cell + 40;
  const height = top + rows.length * cell + 4;
  const drawing = s('svg', {
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    role: 'img',
    'aria-label': `assignment of ${columns.length} perturbations to ${rows.length} factors`,
  });
  const column = new Map(columns.map((p, k) => [p, left + k * cell]));
  const row = new Map(rows.map((z, k) => [z, top + k * cell]));
  drawing.append(
    s('rect', {
      x: left,
      y: top,
      width: columns.length * cell,
      height: rows.length * cell,
      class: 'heat-ground',
    }),
  );
  for (const [z, y] of row) {
    const kind = z === factorState.factor ? 'strong' : null;
    drawing.append(label(left - 6, y + 11, 'end', factorName(z), kind));
  }
  for (const [p, x] of column) {
    drawing.append(
      s(
        'text',
        { x: 0, y: 0, transform: `translate(${x + 11} ${top - 5}) rotate(-60)` },
        clipped(perturbationName(p), 12),
      ),
    );
  }
  for (const [p, z, weight] of assigned) {
    if (!row.has(z)) continue;
    drawing.append(
      s('rect', {
        x: column.get(p) + 1,
        y: row.get(z) + 1,
        width: cell - 2,
        height: cell - 2,
        class: 'heat-cell',
        'fill-opacity': weight.toFixed(3),
        tip: [`${perturbationName(p)} → ${factorName(z)}`, `weight ${number(weight, 3)}`],
        onclick: () => chooseFactor(z),
      }),
    );
  }
  put('factor-heat', drawing);
}

function factorBars(found) {
  const most = Math.max(...found.map((x) => Math.abs(x[2])), 1e-12);
  return h(
    'table',
    { class: 'plain factor-bars' },
    h(
      'tbody',
      {},
      found.map(([k, weight, contribution]) => {
        const size = (46 * Math.abs(contribution)) / most;
        const minus = contribution < 0;
        return h(
          'tr',
          {
            tip: [
              data.factors.sets[k].filter((x) => x).join(' '),
              `weight ${signed(weight, 4)}`,
              `times its spread in control cells ${signed(contribution, 4)}`,
            ],
          },
          h('th', { scope: 'row' }, data.factors.sets[k][1] || data.factors.sets[k][0]),
          h(
            'td',
            { class: 'two-sided' },
            h('i', {
              class: minus ? 'minus' : 'plus',
              style: `width:${size.toFixed(2)}%;${minus ? 'right' : 'left'}:50%`,
            }),
          ),
          h('td', { class: 'n' }, signed(contribution, 3)),
        );
      }),
    ),
  );
}

function drawFactorPage() {
  const z = factorState.factor;
  const { feeds, graph, about } = factorMember();
  const rows = about.filter((row) => row.factor === z);
  const edges = graph.filter(([i, j]) => i === z || j === z).slice(0, 8);
  const words = (x, digits) => (known(x) ? number(x, digits) : '–');
  put(
    'factor-page',
    h('h3', {}, `Factor ${z}`),
    h(
      'div',
      { class: 'columns' },
      h(
        'div',
        {},
        h('p', { class: 'caption' }, 'Gene sets that feed it, by weight times spread in control cells.'),
        feeds[z] ? factorBars(feeds[z]) : h('p', {}, 'None.'),
      ),
      h(
        'div',
        {},
        h(
          'p',
          { class: 'caption' },
          rows.length ? `${plural(rows.length, 'condition')} at this factor.` : 'No perturbation goes to this factor.',
        ),
        rows.length
          ? h(
              'div',
              { class: 'scroll tall' },
              h(
                'table',
                { class: 'plain' },
                h(
                  'thead',
                  {},
                  h(
                    'tr',
                    {},
                    h('th', {}, 'Condition'),
                    h('th', { class: 'n' }, 'Shift'),
                    h('th', { class: 'n', tip: ['Entropy of the assignment', 'in nats; 0 is one factor alone'] }, 'Entropy'),
                    h('th', { class: 'n', tip: ['Differential activation ratio', 'of the gene’s own sets over the others'] }, 'DAR'),
                    h('th', { class: 'n', tip: ['DAR', 'without the perturbed gene’s own expression'] }, '…without own'),
                  ),
                ),
                h(
                  'tbody',
                  {},
                  rows.map((row) =>
                    h(
                      'tr',
                      {},
                      h('td', {}, row.condition),
                      h('td', { class: 'n' }, words(row.shift, 2)),
                      h('td', { class: 'n' }, words(row.entropy, 2)),
                      h('td', { class: 'n' }, words(row.dar, 2)),
                      h('td', { class: 'n' }, words(row.dar_without_own, 2)),
                    ),
                  ),
                ),
              ),
            )
          : null,
        h(
          'p',
          { class: 'caption' },
          edges.length ? 'Its strongest edges: ' : 'It has no edge above 0.005.',
          edges
            .map(([i, j, w]) => `${factorName(i)} → ${factorName(j)} ${signed(w, 2)}`)
            .join(', '),
        ),
      ),
    ),
  );
}

function drawFactorSummary() {
  put(
    'factor-summary',
    h(
      'table',
      { class: 'plain' },
      h(
        'thead',
        {},
        h(
          'tr',
          {},
          h('th', {}, 'Quantity'),
          h('th', { class: 'n' }, 'Mean of members'),
          h('th', { class: 'n wide' }, 'Least'),
          h('th', { class: 'n wide' }, 'Greatest'),
        ),
      ),
      h(
        'tbody',
        {},
        data.factors.summary.map(([name, ...values]) =>
          h(
            'tr',
            {},
            h('td', {}, name),
            values.map((x, k) => h('td', { class: k ? 'n wide' : 'n' }, number(x))),
          ),
        ),
      ),
    ),
  );
}

function drawFactors() {
  if (!slot('factor-graph') || !data.factors || !data.factors.members.length) return;
  const used = usedFactors();
  if (factorState.factor === null) {
    const most = (a, b) => perturbationsOf(b).length - perturbationsOf(a).length;
    factorState.factor = [...used].sort(most)[0] ?? 0;
  }
  const member = factorMember();
  put(
    'factor-lede',
    h('b', {}, `${used.length} of ${plural(member.factors, 'factor')}`),
    ` ${used.length === 1 ? 'has' : 'have'} a perturbation, in ${memberWords(member.member)}. `,
    'A cell’s gene sets feed the factors; a perturbation shifts one of them; the ',
    'graph carries the shift on. Numbers of factors mean nothing across members.',
  );
  drawFactorMenus();
  drawFactorSlider();
  drawFactorGraph();
  drawFactorHeat();
  drawFactorPage();
  drawFactorSummary();
}
