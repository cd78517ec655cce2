// Data, names, numbers and the few marks that every chart is made of.

const data = JSON.parse(document.getElementById('data').textContent);
// Taken from the page, so that it holds no address at all.
const SVG = document.getElementById('svg').namespaceURI;

const TYPES = {
  float32: Float32Array,
  int16: Int16Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
};
const unpacked = new Map();

function unpack(packed) {
  if (!unpacked.has(packed)) {
    const text = atob(packed.data);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    unpacked.set(packed, new TYPES[packed.dtype](bytes.buffer));
  }
  return unpacked.get(packed);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === 'tip') node.tip = value;
    else if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(key, value === true ? '' : value);
    }
  }
  node.append(...children.flat(Infinity).filter((x) => x !== null && x !== undefined));
  return node;
}

function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

const line = (x1, y1, x2, y2, kind) => s('line', { x1, y1, x2, y2, class: kind });

function label(x, y, anchor, words, kind) {
  return s('text', { x, y, 'text-anchor': anchor, class: kind }, words);
}

function picture(width, height, title) {
  return s('svg', {
    viewBox: `0 0 ${width} ${height}`,
    role: 'img',
    'aria-label': title,
  });
}

function slot(name) {
  return document.querySelector(`[data-fill="${name}"]`);
}

function put(name, ...children) {
  const place = slot(name);
  if (place) place.replaceChildren(...children.flat(Infinity));
}

// Words

const METRICS = {
  pearson: 'Pearson r',
  cosine: 'Cosine',
  r2: 'R²',
  rmse: 'RMSE',
  mse: 'MSE',
  mae: 'MAE',
  top_k_recall: 'Top-k recall',
};
const AGGREGATES = {
  delta: 'change from control',
  logfc: 'log fold change',
  average: 'mean expression',
};

// Names come from files: only a table's own keys are words.
const own = (table, key) => (Object.hasOwn(table, key) ? table[key] : key);

function metricWords(metric) {
  const base = metric.replace(/_rank$/, '');
  return own(METRICS, base) + (base === metric ? '' : ' rank');
}

const aggregateWords = (name) => own(AGGREGATES, name);

function genesWords(name) {
  if (name === 'all') return 'all genes';
  return name.replace(/^top(\d+)$/, 'top $1 genes');
}

function comboWords([aggregate, genes, metric]) {
  return [metricWords(metric), aggregateWords(aggregate), genesWords(genes)]
    .filter((x) => x)
    .join(', ');
}

function plural(count, word) {
  return `${count.toLocaleString('en')} ${word}${count === 1 ? '' : 's'}`;
}

// Numbers

const known = (x) => typeof x === 'number' && Number.isFinite(x);

function decimals(scale) {
  if (!(scale > 0)) return 2;
  return Math.min(6, Math.max(0, 2 - Math.floor(Math.log10(scale))));
}

function number(x, digits) {
  if (!known(x)) return '–';
  let text = x.toFixed(digits === undefined ? decimals(Math.abs(x)) : digits);
  if (Number(text) === 0) text = text.replace('-', '');
  return text.replace('-', '−');
}

function signed(x, digits) {
  return (x > 0 ? '+' : '') + number(x, digits);
}

function quantile(sorted, q) {
  const at = (sorted.length - 1) * q;
  const low = Math.floor(at);
  const high = Math.ceil(at);
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}

function ticks(low, high, count) {
  const raw = (high - low) / Math.max(count, 1);
  if (!(raw > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((m) => m * power >= raw * 0.999) * power;
  const found = [];
  const last = high + step * 1e-9;
  for (let i = Math.ceil(low / step - 1e-9); i * step <= last; i++) {
    found.push(i * step + 0); // No negative zero.
  }
  return found;
}

function tickText(x, all) {
  const step = all.length > 1 ? Math.abs(all[1] - all[0]) : Math.abs(x);
  if (step >= 1000) return x.toLocaleString('en').replace('-', '−');
  const digits = step > 0 ? -Math.floor(Math.log10(step) + 1e-9) : 0;
  return number(x, Math.max(0, digits));
}

function scale(low, high, from, to) {
  const span = high - low || 1;
  return (x) => from + ((x - low) / span) * (to - from);
}

// The ends of some values with room around them.
function padded(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = (high - low || Math.abs(high) || 1) * 0.05;
  return [low - room, high + room];
}

// A domain that a few far values cannot stretch: they are drawn at its edge.
function domain(values) {
  const sorted = values.filter(known).sort((a, b) => a - b);
  if (!sorted.length) return [0, 1];
  const middle = quantile(sorted, 0.85) - quantile(sorted, 0.15);
  let low = sorted[0];
  let high = sorted[sorted.length - 1];
  if (middle > 0) {
    low = Math.max(low, quantile(sorted, 0.15) - 2.5 * middle);
    high = Math.min(high, quantile(sorted, 0.85) + 2.5 * middle);
  }
  const pad = (high - low || Math.abs(high) || 1) * 0.04;
  return [low - pad, high + pad];
}

// Marks: the kind of a model is told by shape and filling, then by colour.

function kindOf(m) {
  const model = data.models[m];
  return model.primary ? 'own' : model.kind;
}

function mark(kind, x, y, size = 5) {
  const inner = {
    own: () => s('circle', { r: size + 0.5 }),
    trained: () => s('circle', { r: size }),
    baseline: () => s('circle', { r: size - 0.5 }),
    ceiling: () =>
      s('path', { d: `M0 ${-size}L${size} 0L0 ${size}L${-size} 0Z` }),
  }[kind]();
  inner.setAttribute('class', `mark c-${kind}`);
  return s('svg', { x, y, overflow: 'visible' }, inner);
}

function icon(kind) {
  return s('svg', { width: 14, height: 14, 'aria-hidden': true }, mark(kind, 7, 7));
}

const percent = (x) => `${x.toFixed(3)}%`;

// Tooltip: any element with a `tip`, lines of text, the first one bold.

const tip = document.getElementById('tip');

function showTip(event) {
  let node = event.target;
  while (node && !node.tip) node = node.parentNode;
  if (!node) {
    tip.hidden = true;
    return;
  }
  const lines = typeof node.tip === 'function' ? node.tip() : node.tip;
  tip.replaceChildren(
    ...lines.map((line, i) => h(i ? 'div' : 'b', {}, line)),
  );
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, window.innerWidth - box.width - 8);
  let top = event.clientY + 16;
  if (top + box.height > window.innerHeight) {
    top = event.clientY - box.height - 12;
  }
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, top)}px`;
}

document.addEventListener('pointermove', showTip);
document.addEventListener('pointerdown', showTip);
document.addEventListener('scroll', () => (tip.hidden = true), { passive: true });
