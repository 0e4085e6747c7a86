"""Contracts with features of all kinds, and rows that they accept, for property tests."""

from dataclasses import dataclass

from hypothesis import strategies as st

from iris_serve.data.contract import FLOAT32_LIMIT, Contract, Feature

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ODD = st.sampled_from(["", " ", "NA", "?", "null", "true", "1", "1.0", " a", "a", "A", "a,b", '"'])
NUMBERS = st.floats(-FLOAT32_LIMIT, FLOAT32_LIMIT, exclude_min=True, exclude_max=True)
SPELLINGS = (("No", "Yes"), ("n", "y"), ("F", "M"), ("false", "true"), ("0 no", "1 yes"))
MARKS = ("NA", "?")


@st.composite
def features(draw, name):
    """A feature called `name` of any kind."""
    kind = draw(st.sampled_from(["number", "boolean", "category"]))
    missing = draw(st.booleans())
    if kind == "number":
        return Feature(name, "", -1.0, 1.0, missing=missing)
    if kind == "boolean":
        values = draw(st.sampled_from([(False, True), *SPELLINGS]))
        return Feature(name, "", 0.0, 1.0, "boolean", values, missing)
    values = st.lists(TEXTS | ODD, min_size=1, max_size=12, unique=True)
    values |= st.lists(NUMBERS, min_size=1, max_size=12, unique=True)
    found = tuple(sorted(draw(values)))
    unknown = draw(st.sampled_from(["refuse", "missing"]))
    return Feature(name, "", 0.0, len(found) - 1.0, "category", found, missing, unknown)


def values(feature):
    """The values of `feature` as a table has them, and None if one may be missing."""
    known = NUMBERS if feature.kind == "number" else st.sampled_from(feature.values)
    return st.none() | known if feature.missing else known


@st.composite
def contracts(draw, task=None):
    """A contract of 1 to 6 features, for classes or for a number."""
    odd = st.sampled_from(["a", "b", " c", "d e", "1", "true", "é", "features"])
    names = draw(st.lists(odd | TEXTS.filter(bool), min_size=1, max_size=6, unique=True))
    found = tuple(draw(features(name)) for name in names)
    classes = draw(st.sampled_from([(), (0, 1), (False, True), ("a", "b")]))
    example = tuple(0.0 if f.kind == "number" else f.values[0] for f in found)
    labels = tuple(map(str, classes))
    return Contract(found, classes, labels, example, unit="" if classes else "g", marks=MARKS)


def rows(contract):
    """Rows that `contract` accepts, as lists."""
    return st.tuples(*map(values, contract.features)).map(list)


@dataclass(frozen=True)
class Recorder:
    """A predictor that keeps the rows that it was asked for."""

    contract: Contract
    asked: list
    name: str = "mixed"
    version: int = 1
    has_proba: bool = False

    def predict(self, rows):
        self.asked.append(rows)
        classes = self.contract.classes or (0.5, 1.5)
        return [classes[i % 2] for i in range(len(rows))]
