"""Two models are compared on rows that neither has learned from, each in its own codes."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import mixed_file

from iris_serve.data.contract import Contract, Feature
from iris_serve.data.split import held_out
from iris_serve.data.table import data_frame
from iris_serve.data.tables import read_table
from iris_serve.model.card import read_card
from iris_serve.registry.registry import Registry
from iris_serve.training.common_rows import (
    UnknownRowsError,
    kept_data,
    kept_name,
    learned_from,
    recode,
    recorded_table,
)
from iris_serve.training.parameters import Parameters
from iris_serve.training.retrain import train

WORDS = ["a", "b", "A", "nan", "None", "ü", "x,y", "1", "1.0"]


def category(values, **more):
    values = tuple(sorted(values))
    return Feature("c", "", 0, len(values) - 1, kind="category", values=values, **more)


def of(feature):
    return Contract((feature, Feature("n", "", 0, 1, missing=True)), (0, 1), ("0", "1"), ("a", 0.5))


@settings(print_blob=True, deadline=None)
@given(
    old=st.sets(st.sampled_from(WORDS), min_size=1),
    new=st.sets(st.sampled_from(WORDS), min_size=1),
    missing=st.tuples(st.booleans(), st.booleans()),
    unknown=st.sampled_from(["refuse", "missing"]),
    seed=st.integers(0, 100),
)
def test_a_recoded_row_has_the_same_values_and_is_accepted_only_if_the_contract_knows_them(
    old, new, missing, unknown, seed
):
    rng = np.random.default_rng(seed)
    before = of(category(old, missing=missing[0]))
    after = of(category(new, missing=missing[1], unknown=unknown))
    X = np.column_stack([rng.integers(len(old), size=20).astype(float), rng.normal(size=20)])
    if missing[0]:
        X[::3, 0] = np.nan
    X[::4, 1] = np.nan
    rows, accepted = recode(X, before, after)
    then, now = data_frame(X, before), data_frame(rows, after)
    assert then["n"].equals(now["n"])
    for i, (was, code) in enumerate(zip(then["c"], X[:, 0], strict=True)):
        if np.isnan(code):
            assert accepted[i] == missing[1]
        elif was in new:
            assert accepted[i]
            assert now["c"][i] == was
        else:
            assert accepted[i] == (unknown == "missing")
            assert not accepted[i] or np.isnan(rows[i, 0])


@pytest.mark.parametrize(
    ("file", "kept"),
    [
        ("wine.csv", "data.csv"),
        ("wine.v2.CSV", "data.csv"),
        ("wine.tsv", "data.tsv"),
        ("wine.csv.gz", "data.csv.gz"),
        ("wine.2024.csv.gz", "data.csv.gz"),
        ("wine.pq", "data.pq"),
        ("wine.parquet", "data.parquet"),
        ("wine.parquet.gzip", "data.parquet.gzip"),
    ],
)
def test_the_copy_of_a_file_keeps_the_end_of_its_name_and_is_found_again(tmp_path, file, kept):
    assert kept_name(file) == kept
    (tmp_path / kept).write_bytes(b"")
    (tmp_path / "data").mkdir()
    assert kept_data(tmp_path) == tmp_path / kept


def few_kinds(path, more=0):
    """A table of few different rows, like the passengers of a ship."""
    rng = np.random.default_rng(0)
    lines = ["class,sex,survived"]
    for _ in range(600):
        kind, sex = rng.choice(["first", "second", "crew"]), rng.choice(["man", "woman"])
        lines.append(
            f"{kind},{sex},{'yes' if rng.random() < (sex == 'woman') * 0.6 + 0.2 else 'no'}"
        )
    lines += lines[1 : more + 1]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_where_few_rows_differ_the_held_out_rows_of_the_same_table_are_unseen(tmp_path):
    file = few_kinds(tmp_path / "ship.csv")
    told = Parameters(name="ship", data=str(file), target="survived", n_estimators=3)
    train(tmp_path / "m", told)
    path = Registry(tmp_path / "m", "ship").path(1)
    card = read_card(path)
    own = recorded_table(path, card)
    assert card.data.split == "fair"
    unseen = ~learned_from(own, card, own)
    assert unseen.sum() == card.metrics.rows
    grown = read_table(few_kinds(tmp_path / "grown.csv", 50), "survived")
    later = ~learned_from(grown, card, own)
    assert (later[:600] == unseen).all()
    assert later[600:].all()
    with pytest.raises(
        UnknownRowsError, match=r"the table ship\.csv that it was made from is gone"
    ):
        learned_from(grown, card, None)


def test_models_of_a_table_of_few_kinds_of_rows_are_compared(tmp_path):
    file = few_kinds(tmp_path / "ship.csv")
    told = Parameters(name="ship", data=str(file), target="survived", n_estimators=3)
    for data in (file, few_kinds(tmp_path / "grown.csv", 50)):
        run = train(tmp_path / "m", msgspec.structs.replace(told, data=str(data)))
    tables = [exam["table"] for exam in run.verdict["exams"]]
    assert tables == ["grown.csv", "ship.csv"]
    assert all(exam["rows"] > 50 for exam in run.verdict["exams"])
    (Registry(tmp_path / "m", "ship").path(1) / "data.csv").unlink()
    (Registry(tmp_path / "m", "ship").path(2) / "data.csv").unlink()
    run = train(tmp_path / "m", told)
    assert not run.promoted
    assert "the rows that the current version learned from are not known" in run.why


def test_by_content_the_rows_are_known_without_the_table(tmp_path):
    file = mixed_file(tmp_path / "pets.csv")
    told = Parameters(name="pets", data=str(file), target="kind", n_estimators=3, split="content")
    train(tmp_path / "m", told)
    path = Registry(tmp_path / "m", "pets").path(1)
    card, table = read_card(path), read_table(file, "kind")
    assert (~learned_from(table, card, None) == held_out(table, 0.2)).all()
    shifted = replace(table, X=table.X[::-1], y=table.y[::-1])
    assert (learned_from(shifted, card, None)[::-1] == learned_from(table, card, None)).all()
