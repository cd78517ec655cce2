"""Other tools' scorers, timed by their own interpreter.

Run by bench_metrics with a Python that has the tool: it reads two h5ad files,
then a task a line from its input, and writes the seconds that each took. The
tool's own progress and tables go to a folder that is thrown away.
"""

import contextlib
import dataclasses
import io
import sys
import tempfile
import time
import warnings

import anndata


def cell_eval_full(real, predicted, folder):
  """cell-eval, profile full: both sides' tests and all columns."""
  from cell_eval import MetricsEvaluator

  evaluator = MetricsEvaluator(
    adata_pred=predicted,
    adata_real=real,
    control_pert='ctrl',
    pert_col='target',
    num_threads=2,
    outdir=folder,
  )
  evaluator.compute(profile='full', break_on_error=False)


def cell_eval2_vcc2026(real, predicted, folder):
  """cell-eval2, the preset of the challenge of 2026."""
  del folder
  from cell_eval2 import EvalConfig, aggregate_metrics, compute_metrics

  config = EvalConfig.from_preset('vcc2026')
  config = dataclasses.replace(
    config,
    pert_col='target',
    control='ctrl',
    num_threads=2,
    de=dataclasses.replace(config.de, backend='pdex'),
  )
  aggregate_metrics(compute_metrics(predicted, real, config=config))


def pdex_one_side(real, predicted, folder):
  """pdex, the tests behind cell-eval, of one side."""
  del predicted, folder
  import pdex

  pdex.pdex(
    real,
    groupby='target',
    mode='ref',
    is_log1p=True,
    threads=2,
    reference='ctrl',
  )


TASKS = {
  'cell-eval full': cell_eval_full,
  'cell-eval2 vcc2026': cell_eval2_vcc2026,
  'pdex one side': pdex_one_side,
}


def main():
  """Serves tasks until its input ends."""
  warnings.simplefilter('ignore')
  sides = [anndata.read_h5ad(path) for path in sys.argv[1:3]]
  for line in sys.stdin:
    with tempfile.TemporaryDirectory() as folder:
      silent = io.StringIO()
      copies = [side.copy() for side in sides]
      began = time.perf_counter()
      try:
        with (
          contextlib.redirect_stdout(silent),
          contextlib.redirect_stderr(silent),
        ):
          TASKS[line.strip()](*copies, folder)
        answer = f'{time.perf_counter() - began:.4f}'
      except Exception as error:
        answer = f'failed: {type(error).__name__}: {error}'.replace('\n', ' ')
    print(answer, flush=True)


if __name__ == '__main__':
  main()
