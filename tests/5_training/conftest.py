"""A table in a file, and versions that were made from it once."""

import os
import shutil
from pathlib import Path

import pytest
from training_helpers import of_wine, table_file

from iris_serve.training.retrain import retrain


@pytest.fixture(scope="session")
def wine(tmp_path_factory):
    from sklearn.datasets import load_wine

    return table_file(tmp_path_factory.mktemp("wine"), load_wine, "wine.csv")


@pytest.fixture(scope="session")
def cellar(wine, tmp_path_factory):
    """A models directory with one version of wine, made by the notebook; not to be written to."""
    folder = tmp_path_factory.mktemp("cellar") / "models"
    here = Path.cwd()
    os.chdir(wine.parent)
    try:
        retrain(folder, of_wine("wine.csv", cv=3))
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def wines(cellar, tmp_path):
    """A copy of `cellar` for one test."""
    return shutil.copytree(cellar, tmp_path / "wines")
