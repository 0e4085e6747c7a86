"""What the tests share: a clean environment, and models that were trained once."""

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

from iris_serve.registry.registry import Registry, promote
from iris_serve.training.retrain import Parameters, train

# The machine is shared: how long an example takes says nothing. A failure prints how to repeat it.
settings.register_profile(
    "checks", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("checks")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch, tmp_path):
    for name in [n for n in os.environ if n.startswith(("IRIS_SERVE_", "IRIS_RETRAIN_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A models directory with one promoted version; nobody writes to it."""
    folder = tmp_path_factory.mktemp("trained") / "models"
    train(folder, Parameters(n_estimators=10))
    return folder


@pytest.fixture
def models(trained, tmp_path):
    """A copy of `trained` for one test."""
    return shutil.copytree(trained, tmp_path / "models")


@pytest.fixture
def registry(models):
    return Registry(models)


@pytest.fixture(scope="session")
def three_trained(tmp_path_factory):
    """A models directory with three versions that disagree on some rows; nobody writes to it."""
    folder = tmp_path_factory.mktemp("three") / "models"
    for trees, seed in ((1, 0), (2, 1), (3, 2)):
        train(folder, Parameters(n_estimators=trees, seed=seed, max_depth=2, promote="never"))
    promote(Registry(folder), 1, "the first")
    return folder


@pytest.fixture
def three(three_trained, tmp_path):
    """A copy of `three_trained` for one test."""
    return shutil.copytree(three_trained, tmp_path / "three")


@pytest.fixture(scope="session")
def canary(tmp_path_factory):
    """A models directory with version 1 in service and 2 as the canary; nobody writes to it."""
    folder = tmp_path_factory.mktemp("canary") / "models"
    train(folder, Parameters(n_estimators=5))
    train(folder, Parameters(n_estimators=1, max_depth=1, promote="never"))
    promote(Registry(folder), 2, "to be tried first", alias="canary")
    return folder


class Trap:
    """A pickle of this writes the file `marker` when it is opened."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.fixture
def trap(tmp_path):
    return Trap(tmp_path / "the-trap-has-run")
