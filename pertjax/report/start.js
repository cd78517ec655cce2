// Draws the page.

function update() {
  drawToolbar();
  drawBoard();
  drawMatrix();
  drawCertificate();
  if (data.profiles) drawPicker();
  drawStrip();
  drawExtremes();
  drawScatter();
}

function begin() {
  const c = current();
  const first = data.models.findIndex((model) => model.primary);
  const trained = data.models.findIndex((model) => model.kind === 'trained');
  state.model = [first, trained, 0].find((m) => m >= 0);
  if (data.profiles && !profileModels().includes(state.model)) {
    state.model = profileModels()[0];
  }
  const rival = c < 0 || !data.scores ? -1 : bestBaseline(c);
  const usable = (m) =>
    m !== state.model && (!data.profiles || profileModels().includes(m));
  state.rival = rival >= 0 && usable(rival) ? rival : models().findIndex(usable);
  update();
  drawCurves();
  drawFactors();
}

try {
  begin();
  document.documentElement.dataset.ready = 'yes';
} catch (error) {
  const box = document.getElementById('failure');
  box.textContent = `A part of this page could not be drawn: ${error.message}`;
  box.hidden = false;
  throw error;
}
