"""A toy dataset and a server that misbehaves with it."""

import h5py
import misbehaving_server
import numpy as np
import pytest
from toy_dataset import make_entry


def _h5(path, seed):
  values = np.random.default_rng(seed).integers(0, 255, 300_000, np.uint8)
  with h5py.File(path, 'w') as file:
    file['X'] = values
  return path.read_bytes()


@pytest.fixture(scope='module')
def payload(tmp_path_factory):
  return _h5(tmp_path_factory.mktemp('payload') / 'a.h5ad', seed=0)


@pytest.fixture(scope='module')
def other(tmp_path_factory):
  return _h5(tmp_path_factory.mktemp('payload') / 'b.h5ad', seed=1)


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  with misbehaving_server.running() as running:
    yield running


@pytest.fixture
def entry(server, payload):
  server.files['/a.h5ad'] = payload
  return make_entry(url=server.url('/a.h5ad'))
