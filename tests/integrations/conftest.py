"""A storage of Optuna's in memory."""

import optuna
import pytest


@pytest.fixture
def storage():
    return optuna.storages.InMemoryStorage()
