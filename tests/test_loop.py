"""The loop over chunks: what it writes of them."""

import io
import json

import handmade
import jax.numpy as jnp
import numpy as np
import pytest

from pertjax import config as config_lib
from pertjax import record, train, types, writers


def _two_players():
  """A model of two numbers, each with an optimiser of its own."""

  def player(name, goal):
    def loss(params, key, batch, consts, step):
      del key, consts, step
      value = (params[name] - goal) ** 2 + 0.0 * jnp.sum(batch.weight)
      return value, types.Aux({'at': params[name]})

    return loss

  return types.Model(
    init=lambda key, consts: {'a': jnp.zeros(()), 'b': jnp.zeros(())},
    losses={'first': player('a', 1.0), 'second': player('b', 2.0)},
    predict=lambda params, key, source, condition, consts: source,
    labels=lambda params: {'a': 'first', 'b': 'second'},
  )


@pytest.mark.parametrize(
  ('phases', 'playing'),
  [
    ((), (('first', 'second'),) * 2),
    (((3, ('second',)), (3, ('first', 'second', 'second'))),
     (('second',), ('first', 'second'))),
  ],
)  # fmt: skip
def test_the_train_loss_of_several_players_is_their_sum(
  phases, playing, tmp_path
):
  config = config_lib.default('decoder_only')
  config.num_seeds = 2
  config.train.update(steps=6, chunk=3, batch_size=4, phases=phases)
  config.log.tensorboard = False
  said = io.StringIO()
  run = record.Run(
    config, tmp_path, *handmade.screen(), _two_players(), writers.Console(said)
  )
  train.train_fleet(run, config_lib.members(config))
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  assert [(r['step'], r['seed']) for r in records] == [
    (3, 0), (3, 1), (6, 0), (6, 1),
  ]  # fmt: skip
  for number, found in enumerate(records):
    parts = [found[f'{player}_loss'] for player in playing[number // 2]]
    assert found['train_loss'] == pytest.approx(sum(parts))
    assert min(parts) > 0.5
    absent = {'first', 'second'} - set(playing[number // 2])
    assert not any(f'{player}_loss' in found for player in absent)
  assert np.isfinite([r['val_loss'] for r in records]).all()
