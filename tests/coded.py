"""Models with features of all kinds, made by hand, and the whole application in front of one."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from iris_serve.cli.settings import Settings
from iris_serve.data.contract import Contract, Feature
from iris_serve.data.kinds import encode_value
from iris_serve.wsgi import make_app

PORTS = (" Bristol", "Cork", "Łódź, by rail", 'the "old" port')
FEATURES = (
    Feature("age", "years", 0.0, 80.0, missing=True),
    Feature("fare", "£", 0.0, 500.0),
    Feature("alone", "", 0.0, 1.0, "boolean", (False, True), missing=True),
    Feature("smokes", "", 0.0, 1.0, "boolean", ("No", "Yes")),
    Feature("port", "", 0.0, 3.0, "category", PORTS, missing=True),
    Feature("class", "", 0.0, 2.0, "category", (1, 2, 3)),
    Feature("dose", "g", 0.0, 2.0, "category", (0.1, 0.25, 3.0), missing=True),
    Feature("boat", "", 0.0, 1.0, "category", ("A", "B"), missing=True, unknown="missing"),
)
EXAMPLE = (28.0, 32.5, True, "No", "Cork", 3.0, 0.1, "A")
NAMES = [feature.name for feature in FEATURES]
# Rows as JSON has them, one value for each feature.
ROWS = [
    [28, 32.5, True, "No", "Cork", 3, 0.1, "A"],
    [None, 7.25, None, "Yes", "Łódź, by rail", 1, None, "B"],
    [61.5, 80, False, True, None, 2, 0.25, None],
    [4, 500, True, False, " Bristol", 1, 3, "Z"],
    [80, 0, False, "Yes", 'the "old" port', 2, 0.1, "A"],
]
NUMBERS = tuple(Feature(f"x{i}", "cm", 0.0, 80.0, missing=i < 2) for i in range(4))


def classes(*names: Any) -> dict[str, Any]:
    return {"classes": names, "labels": tuple(str(name).lower() for name in names)}


TARGETS = {
    "texts": classes("alive", "lost", "unknown"),
    "booleans": classes(False, True),
    "floats": classes(0.5, 1.0, 1.5),
    "number": {"classes": (), "labels": (), "target": "price", "unit": "£"},
}
CONTRACTS = {name: Contract(FEATURES, example=EXAMPLE, **what) for name, what in TARGETS.items()}
CONTRACTS["gaps"] = Contract(NUMBERS, example=(1.0, 2.0, 3.0, 4.0), **TARGETS["texts"])
CONTRACTS["gaps, number"] = Contract(NUMBERS, example=(1.0, 2.0, 3.0, 4.0), **TARGETS["number"])


def encoded(rows, contract):
    """The `rows` as a model reads them."""
    return [
        [
            encode_value(value, feature)
            for value, feature in zip(row, contract.features, strict=True)
        ]
        for row in rows
    ]


@dataclass(frozen=True)
class Coded:
    """A forest of scikit-learn that is asked by the codes, which it has learned at random."""

    contract: Contract
    forest: Any
    name: str = "iris"
    version: int = 1

    @property
    def has_proba(self):
        return self.contract.task == "classes"

    def predict(self, rows):
        answers = self.forest.predict(np.array(rows)).tolist()
        kind = self.contract.classes
        return [kind[int(answer)] for answer in answers] if kind else answers

    def spread(self, rows):
        return np.std([tree.predict(np.array(rows)) for tree in self.forest.estimators_], axis=0)

    def predict_proba(self, rows):
        return self.forest.predict_proba(np.array(rows)).tolist()


@cache
def predictor(name):
    """A predictor for the contract `name`."""
    contract, rng = CONTRACTS[name], np.random.default_rng(7)
    high = [feature.high for feature in contract.features]
    codes = rng.uniform(0, 1, (300, len(high))) * high
    for i, feature in enumerate(contract.features):
        if feature.kind != "number":
            codes[:, i] = codes[:, i].round()
        if feature.missing:
            codes[rng.random(300) < 0.2, i] = np.nan
    kinds = len(contract.classes)
    answers = rng.integers(kinds, size=300) if kinds else rng.normal(size=300)
    forest = RandomForestClassifier if kinds else RandomForestRegressor
    return Coded(contract, forest(5, random_state=0).fit(codes, answers))


def mixed_app(name, models):
    """The application with every route for the model `name`, in front of the registry `models`."""
    app = make_app(Settings(models=str(models), access_log="off"))
    live = app.extensions["live"]
    live.now, live.follow = predictor(name), lambda: None
    return app
