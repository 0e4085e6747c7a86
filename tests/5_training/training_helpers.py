"""What the tests of training share: tables in files, and runs of the retraining notebook."""

import json
import os
import subprocess
import sys

import numpy as np

import iris_serve.training.retrain
from iris_serve.model.card import CARD_FILE, retraining_notebook
from iris_serve.model.save import MODEL_FILE
from iris_serve.training.parameters import Parameters
from iris_serve.training.retrain import retrain

SMALL = Parameters(seed=7, n_estimators=10)


def files(path):
    """The bytes of the model file and of the card of the version in `path`."""
    return [(path / name).read_bytes() for name in (MODEL_FILE, CARD_FILE)]


def table_file(folder, loader, name):
    """A CSV of one of scikit-learn's tables, its classes as words in the column `kind`."""
    bunch = loader(as_frame=True)
    frame = bunch.frame.rename(columns={"target": "kind"})
    names = {i: str(word) for i, word in enumerate(bunch.target_names)}
    frame["kind"] = frame["kind"].map(names)
    frame.to_csv(folder / name, index=False)
    return folder / name


def of_wine(data, **more):
    """Parameters for a small model of wine, from the file `data`."""
    return Parameters(name="wine", data=str(data), target="kind", n_estimators=5, **more)


def retrain_ending_with(models, source, monkeypatch):
    """Run a copy of the retraining notebook whose last cell is `source`."""
    notebook = json.loads(retraining_notebook().read_text())
    notebook["cells"][-1]["source"] = source
    (models.parent / "changed.ipynb").write_text(json.dumps(notebook))
    monkeypatch.setattr(
        iris_serve.training.retrain, "retraining_notebook", lambda: models.parent / "changed.ipynb"
    )
    return retrain(models, SMALL)


def papermill(models, out, *parameters):
    """Run the retraining notebook by bare papermill."""
    command = [sys.executable, "-m", "papermill", retraining_notebook(), out, "-k", "python3"]
    environment = os.environ | {"IRIS_SERVE_MODELS": str(models)}
    return subprocess.run(
        [*command, *parameters], env=environment, capture_output=True, text=True, check=False
    )


def mixed_file(path, islands=("north", "south"), rows=300, number=False, seed=0):
    """A CSV with a category, a boolean and gaps; `kind` is a class, or a number, to predict."""
    rng = np.random.default_rng(seed)
    lines = ["island,weight,tame,kind"]
    for i in range(rows):
        island, tame = islands[i % len(islands)], rng.random() < 0.5
        weight = round(float(rng.normal(10 + 5 * tame, 2)), 2)
        kind = round(weight * 3 + islands.index(island), 3) if number else "cat" if tame else "dog"
        lines.append(f"{island},{'' if i % 10 == 3 else weight},{str(tame).lower()},{kind}")
    path.write_text("\n".join(lines) + "\n")
    return path
