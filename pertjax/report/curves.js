// Learning curves of every member.

// With more members than this, colours tell nothing apart.
const MANY = 8;
const CURVE = { width: 340, height: 250, left: 48, right: 328, floor: 214 };
const curveState = { other: null, only: null };

const memberOf = (member) => data.members.find((m) => m.member === member);

function memberWords(member) {
  const seed = memberOf(member)?.seed;
  return `member ${member}${known(seed) ? ` (seed ${seed})` : ''}`;
}

function curveMembers() {
  const all = Object.values(data.curves.series).flat();
  return [...new Set(all.map((curve) => curve.member))].sort((a, b) => a - b);
}

function curveClass(member) {
  const members = curveMembers();
  const kind = members.length > MANY ? 'many' : `k${members.indexOf(member)}`;
  const dim = curveState.only !== null && curveState.only !== member;
  return kind + (dim ? ' dim' : '');
}

// A log axis where everything is positive and spans more than a decade.
function wantsLog(values) {
  const least = Math.min(...values);
  return least > 0 && Math.max(...values) / least > 10;
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(low); power <= high; power++) {
    for (const m of high - low > 2.5 ? [1] : [1, 2, 5]) {
      const at = power + Math.log10(m);
      if (at >= low && at <= high) found.push(at);
    }
  }
  return found;
}

function logText(at) {
  const value = 10 ** at;
  if (value >= 0.001 && value < 10000) {
    return String(Number(value.toPrecision(1)));
  }
  const [digit, power] = value.toExponential(0).split('e');
  return `${digit}e${power.replace('+', '').replace('-', '−')}`;
}

function stepText(x, all) {
  return x >= 10000 && all.every((t) => t % 1000 === 0)
    ? `${(x / 1000).toLocaleString('en')}k`
    : x.toLocaleString('en');
}

function curveAxes(x, y, steps, [low, high], log) {
  const { left, right, floor } = CURVE;
  const parts = [];
  const rows = log ? logTicks(low, high) : ticks(low, high, 5);
  for (const tick of rows) {
    const words = log ? logText(tick) : tickText(tick, rows);
    parts.push(
      line(left, y(tick), right, y(tick), 'grid'),
      label(left - 6, y(tick) + 4, 'end', words),
    );
  }
  const columns = ticks(0, steps, 4).filter(Number.isInteger);
  for (const tick of columns) {
    parts.push(label(x(tick), floor + 16, 'middle', stepText(tick, columns)));
  }
  parts.push(
    line(left, floor, right, floor, 'axis'),
    label((left + right) / 2, CURVE.height - 3, 'middle', 'step'),
  );
  return parts;
}

function nearest(curve, step) {
  let best = 0;
  curve.steps.forEach((at, i) => {
    if (Math.abs(at - step) < Math.abs(curve.steps[best] - step)) best = i;
  });
  return best;
}

// The cross where a curve breaks off and the ring at the step that was kept.
function curveMarks(name, curve, x, y) {
  const kind = curveClass(curve.member);
  const marks = [];
  const status = memberOf(curve.member)?.status;
  if (status && status.startsWith('failed')) {
    const last = curve.steps.length - 1;
    const [px, py] = [x(curve.steps[last]), y(curve.values[last])];
    const lines = [memberWords(curve.member), status];
    const d = `M${px - 5} ${py - 5}l10 10m0 -10l-10 10`;
    marks.push(s('path', { d, class: `broken ${kind}`, tip: lines }));
  }
  const best = memberOf(curve.member)?.best_step;
  if (name === 'val_loss' && known(best)) {
    const i = nearest(curve, best);
    const lines = [
      memberWords(curve.member),
      `best step ${best.toLocaleString('en')}`,
      `${name} ${number(curve.values[i])}`,
    ];
    const place = { cx: x(curve.steps[i]), cy: y(curve.values[i]), r: 4 };
    marks.push(s('circle', { ...place, class: `best-step ${kind}`, tip: lines }));
  }
  return marks;
}

// Anywhere over a panel, the nearest curve answers.
function curveTip(drawing, name, curves, x, y, steps) {
  drawing.addEventListener('pointermove', (event) => {
    if (event.target !== drawing && event.target.tip) return;
    const box = drawing.getBoundingClientRect();
    const px = ((event.clientX - box.left) / box.width) * CURVE.width;
    const py = ((event.clientY - box.top) / box.height) * CURVE.height;
    const step = ((px - x(0)) / (x(steps) - x(0))) * steps;
    const [found] = curves
      .map((curve) => ({ curve, i: nearest(curve, step) }))
      .map((hit) => ({ ...hit, away: Math.abs(y(hit.curve.values[hit.i]) - py) }))
      .sort((a, b) => a.away - b.away);
    drawing.tip = null;
    if (found.away > 30) return;
    const { curve, i } = found;
    drawing.tip = [
      memberWords(curve.member),
      `step ${curve.steps[i].toLocaleString('en')}`,
      `${name} ${number(curve.values[i])}`,
    ];
  });
}

function curvePanel(name, head) {
  const curves = (data.curves.series[name] || []).filter((c) => c.steps.length);
  const values = curves.flatMap((curve) => curve.values);
  const caption = h('figcaption', {}, head);
  if (!values.length) {
    const words = `metrics.jsonl has no finite ${name}.`;
    return h('figure', {}, caption, h('p', { class: 'absent' }, words));
  }
  const log = wantsLog(values);
  if (log) caption.append(h('small', {}, 'log scale'));
  const map = log ? Math.log10 : (v) => v;
  const [low, high] = padded(values.map(map));
  const steps = Math.max(...curves.map((c) => c.steps[c.steps.length - 1]), 1);
  const x = scale(0, steps, CURVE.left, CURVE.right);
  const level = scale(low, high, CURVE.floor, 8);
  const y = (value) => level(map(value));
  const drawing = picture(CURVE.width, CURVE.height, name);
  drawing.append(...curveAxes(x, level, steps, [low, high], log));
  for (const curve of curves) {
    const points = curve.steps.map(
      (step, i) => `${x(step).toFixed(1)} ${y(curve.values[i]).toFixed(1)}`,
    );
    const kind = `curve ${curveClass(curve.member)}`;
    drawing.append(s('path', { d: `M${points.join('L')}`, class: kind }));
  }
  drawing.append(...curves.flatMap((curve) => curveMarks(name, curve, x, y)));
  curveTip(drawing, name, curves, x, y, steps);
  return h('figure', {}, caption, drawing);
}

function drawCurvePanels() {
  const names = Object.keys(data.curves.series);
  const others = names.filter((n) => n !== 'train_loss' && n !== 'val_loss');
  if (curveState.other === null) {
    const usual = others.includes('grad_norm') ? 'grad_norm' : others[0];
    curveState.other = usual;
  }
  const onchange = (event) => {
    curveState.other = event.target.value;
    drawCurvePanels();
  };
  const options = others.map((n) => option(n, n, n === curveState.other));
  const choice = h('select', { 'aria-label': 'Another series', onchange }, options);
  put(
    'curves',
    curvePanel('train_loss', h('b', {}, 'Training loss')),
    curvePanel('val_loss', h('b', {}, 'Validation loss')),
    others.length ? curvePanel(curveState.other, choice) : [],
  );
}

function curveLegend(member) {
  const focus = (only) => () => {
    curveState.only = only;
    drawCurvePanels();
  };
  const status = memberOf(member)?.status;
  const stroke = line(0, 5, 18, 5, `broken ${curveClass(member)}`);
  return h(
    'span',
    { onpointerenter: focus(member), onpointerleave: focus(null) },
    s('svg', { width: 18, height: 10, 'aria-hidden': true }, stroke),
    memberWords(member),
    status && status !== 'ok'
      ? h('b', { class: status.split(' ')[0] }, status)
      : null,
  );
}

function drawCurves() {
  if (!slot('curves') || !data.curves) return;
  const members = curveMembers();
  const failed = data.members.some((m) => m.status?.startsWith('failed'));
  put(
    'curves-lede',
    `${plural(members.length, 'member')} of the fleet. A ring marks the step `,
    'whose parameters were kept',
    failed ? '; a cross, where a member failed.' : '.',
  );
  put('curves-legend', members.length > MANY ? [] : members.map(curveLegend));
  drawCurvePanels();
}
