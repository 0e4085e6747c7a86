"""The gate: nothing that proved worse is promoted, and the record says why."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from math import comb

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import mixed_file

import iris_serve.training.gate
import iris_serve.training.retrain
from iris_serve.data.split import held_out, split
from iris_serve.data.table import iris
from iris_serve.model.atomic import to_json
from iris_serve.model.card import CARD_FILE, Card, make_card, read_card
from iris_serve.model.save import FOREST_FILE, write_artifact
from iris_serve.model.scores import score
from iris_serve.model.train import Params, fit, make_estimator
from iris_serve.registry.records import read_run
from iris_serve.registry.registry import Registry, current, history, stage
from iris_serve.training.common_rows import learned_from
from iris_serve.training.gate import (
    MAX_FLIPS,
    TOLERANCE,
    Asked,
    Comparison,
    Verdict,
    compare,
    describe_comparison,
    judge,
    mcnemar_p,
    passed,
    wilcoxon_p,
)
from iris_serve.training.parameters import Parameters
from iris_serve.training.retrain import train

STUMP = Parameters(n_estimators=1, max_depth=1)


def make_one(staged, table, **choices):
    params = Params(**{"n_estimators": 10} | choices)
    learn, examine = split(table, params.test_size)
    estimator = fit(make_estimator(params, table.contract), learn)
    card = make_card("iris", params, table, score(estimator, examine, learn), estimator)
    return write_artifact(staged, estimator, card)


def verdict_on(registry, table, wishes=None, **choices):
    with stage(registry) as staged:
        make_one(staged, table, **choices)
        return judge(registry, staged, table, **(wishes or {}))


def shuffled(table, seed):
    order = np.random.default_rng(seed).permutation(len(table))
    return replace(table, y=table.y[order], source="shuffled.csv")


def counted_p(gained, lost):
    """The exact p-value, by counting in whole numbers the ways in which coins can fall."""
    ways = sum(comb(gained + lost, k) for k in range(min(gained, lost) + 1))
    return min(1.0, float(Fraction(2 * ways, 2 ** (gained + lost))))


@settings(deadline=None)  # the first call imports scipy
@given(gained=st.integers(0, 300), lost=st.integers(0, 300))
def test_the_p_value_is_the_one_that_counting_gives_to_twelve_digits(gained, lost):
    assert mcnemar_p(gained, lost) == pytest.approx(counted_p(gained, lost), rel=1e-12)
    assert mcnemar_p(gained, lost) == mcnemar_p(lost, gained) <= 1
    assert type(mcnemar_p(gained, lost)) is float


def test_very_many_rows_have_a_p_value():
    assert mcnemar_p(3_000, 3_100) == pytest.approx(counted_p(3_000, 3_100), rel=1e-11)


@pytest.mark.parametrize("seed", range(4))
def test_a_model_of_shuffled_labels_is_not_promoted(registry, seed):
    verdict = verdict_on(registry, shuffled(iris(), seed))
    assert not verdict.promoted
    assert "worse than the current version" in verdict.why
    assert [exam.table for exam in verdict.exams] == ["shuffled.csv", iris().source]


def test_the_flipped_rows_are_listed_with_their_true_class_and_both_answers(models, registry):
    train(models, STUMP)
    (exam,) = read_run(registry.path(2)).verdict["exams"]
    table, card = iris(), read_card(registry.path(1))
    assert exam["flipped"] == len(exam["flips"]) > 0
    for flip in exam["flips"]:
        row = flip["row"] - 1
        assert held_out(table, card.parameters.test_size)[row]
        assert table.y[row] == flip["truth"]
        assert flip["now"] != flip["then"]
    wrong_now = sum(f["now"] != f["truth"] == f["then"] for f in exam["flips"])
    assert (exam["lost"], exam["weak"]) == (wrong_now, True)


class Always:
    """A model that has one answer."""

    def __init__(self, answer):
        self.answer = answer

    def predict(self, rows):
        return np.full(len(rows), self.answer)


def compared(new, old, share):
    """Two models on the rows of iris that are held out at `share`."""
    table = iris()
    new, old = (Asked(model, table.contract) for model in (new, old))
    return compare(new, old, table, held_out(table, share))


def test_the_list_of_flips_is_bounded():
    exam = compared(Always(0), Always(1), 0.99)
    assert exam.flipped == exam.rows > MAX_FLIPS
    assert len(exam.flips) == MAX_FLIPS


def test_both_are_asked_only_rows_that_neither_has_learned_from(registry):
    verdict = verdict_on(registry, iris(), test_size=0.5)
    (exam,) = verdict.exams
    assert exam.rows == held_out(iris(), 0.2).sum() < verdict.rows


def without_common_rows(table):
    seen = ~held_out(table, 0.2)
    return replace(table, X=table.X[seen], y=table.y[seen], source="few.csv")


def test_a_comparison_without_rows_does_not_count(registry):
    verdict = verdict_on(registry, without_common_rows(iris()), test_size=0.5)
    # The table of the current version is at hand, so there still is one exam.
    assert [exam.table for exam in verdict.exams] == [iris().source]


def test_without_a_common_row_nothing_is_promoted(registry, monkeypatch):
    monkeypatch.setattr(iris_serve.training.gate, "recorded_table", lambda path, card: None)
    verdict = verdict_on(registry, without_common_rows(iris()), test_size=0.5)
    assert (verdict.promoted, verdict.exams) == (False, ())
    assert verdict.why == "there is no row that neither has learned from"


@pytest.mark.parametrize("stranger", [0, 1])
def test_a_model_fitted_elsewhere_may_have_learned_from_every_row(registry, stranger):
    cards, table = [read_card(registry.path(1))] * 2, iris()
    cards[stranger] = msgspec.structs.replace(cards[stranger], parameters=None)
    seen = [learned_from(table, card, table) for card in cards]
    assert (seen[0] | seen[1]).all()
    assert not seen[1 - stranger].all()


def test_answers_of_another_kind_are_wrong_and_not_an_error():
    exam = compared(Always("setosa"), Always(0), 0.2)
    assert (exam.right_now, exam.flipped, exam.gained) == (0, exam.rows, 0)
    assert exam.lost == exam.right_then > 0


@pytest.mark.parametrize(("lost", "good"), [(0, True), (10, True), (11, False)])
def test_the_tolerance_is_a_share_of_the_rows(lost, good):
    exam = compared(Always(0), Always(0), 0.2)
    exam = msgspec.structs.replace(exam, rows=1000, right_then=900, right_now=900 - lost)
    assert TOLERANCE == 0.01
    assert passed(exam) is good


@pytest.mark.parametrize("least", [0.99, 1.0])
def test_below_the_minimum_not_even_the_first_version_is_promoted(tmp_path, least):
    run = train(tmp_path, msgspec.structs.replace(STUMP, min_score=least))
    assert not run.promoted
    assert f"below the minimum of {least:g}" in run.why
    assert (run.verdict["min_score"], history(Registry(tmp_path))) == (least, [])


def test_the_minimum_itself_is_enough(tmp_path):
    score = train(tmp_path, STUMP).verdict["score"]
    assert train(tmp_path, msgspec.structs.replace(STUMP, min_score=score)).promoted


def test_always_skips_the_scores_and_says_so(models):
    run = train(models, msgspec.structs.replace(STUMP, min_score=1.0, promote="always"))
    assert (run.promoted, run.why) == (True, "promote is 'always'")
    assert run.verdict["exams"][0]["lost"] > 0


def test_another_contract_is_never_promoted_by_auto(registry):
    table = iris()
    features = (msgspec.structs.replace(f, name=f"{f.name}_2") for f in table.contract.features)
    other = msgspec.structs.replace(table.contract, features=tuple(features))
    verdict = verdict_on(registry, replace(table, contract=other))
    assert not verdict.promoted
    assert "sepal_length (cm)" in verdict.why
    assert "sepal_length_2 (cm)" in verdict.why
    assert "no longer among the features" in verdict.why
    assert verdict_on(registry, replace(table, contract=other), {"promote": "always"}).promoted


def lie(card: Card) -> bytes:
    answers = tuple((a + 1) % 3 for a in card.golden.answers)
    golden = msgspec.structs.replace(card.golden, answers=answers)
    return to_json(msgspec.structs.replace(card, golden=golden))


@pytest.mark.parametrize("promote", ["auto", "always"])
@pytest.mark.parametrize("broken", ["golden", "forest"])
def test_a_candidate_that_fails_its_own_check_is_never_promoted(tmp_path, promote, broken):
    registry = Registry(tmp_path)
    with stage(registry) as staged:
        card = make_one(staged, iris())
        if broken == "golden":
            (staged / CARD_FILE).write_bytes(lie(card))
        else:
            (staged / FOREST_FILE).write_bytes(b"\0" * 100)
        verdict = judge(registry, staged, iris(), promote)
    assert not verdict.promoted
    assert "does not pass its own check" in verdict.why
    assert str(tmp_path) not in verdict.why


def test_a_current_version_that_cannot_be_opened_needs_a_person(models, registry):
    (registry.path(1) / FOREST_FILE).write_bytes(b"")
    run = train(models, Parameters(n_estimators=10))
    assert not run.promoted
    assert "the current version cannot be asked" in run.why
    assert str(models) not in run.why


def test_a_current_version_that_was_removed_needs_a_person(models, registry):
    shutil.rmtree(registry.path(1))
    run = train(models, Parameters(n_estimators=10))
    assert not run.promoted
    assert "the current version cannot be asked (iris has no version 1" in run.why
    assert run.why.endswith("promote by hand")


def test_a_model_fitted_elsewhere_is_not_promoted_over_another_by_auto(registry):
    with stage(registry) as staged:
        card = make_one(staged, iris())
        stranger = msgspec.structs.replace(card, parameters=None)
        (staged / CARD_FILE).write_bytes(to_json(stranger))
        verdict = judge(registry, staged, iris())
    assert not verdict.promoted
    assert "fitted elsewhere" in verdict.why


def test_a_run_that_was_overtaken_is_judged_again(tmp_path, monkeypatch):
    train(tmp_path, STUMP)
    real, better = judge, Parameters(n_estimators=10)

    def judged_while_another_is_promoted(*given):
        verdict = real(*given)
        monkeypatch.setattr(iris_serve.training.retrain, "judge", real)
        train(tmp_path, better)
        return verdict

    monkeypatch.setattr(iris_serve.training.retrain, "judge", judged_while_another_is_promoted)
    run, registry = train(tmp_path, STUMP), Registry(tmp_path)
    assert (run.promoted, run.verdict["current"]) == (False, current(registry).version)
    assert read_card(registry.path(current(registry).version)).metrics.accuracy > 0.9
    kept = read_run(registry.path(run.version))
    assert kept == msgspec.structs.replace(run, card=kept.card)
    assert "worse than the current version" in kept.why
    assert len(history(registry)) == 2


def test_runs_at_once_never_promote_the_worse_one_last(tmp_path):
    choices = [STUMP, Parameters(n_estimators=10), STUMP, Parameters(n_estimators=11)]
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda choice: train(tmp_path, choice), choices))
    registry = Registry(tmp_path)
    assert registry.versions() == [1, 2, 3, 4]
    promoted = [event.version for event in history(registry)]
    assert sorted(promoted) == sorted(run.version for run in runs if run.promoted)
    scores = [read_card(registry.path(v)).metrics.accuracy for v in promoted]
    assert scores == sorted(scores)
    assert scores[-1] > 0.9


def test_the_verdict_is_in_the_run_record_and_can_be_read_back(models, registry):
    train(models, Parameters(n_estimators=10))
    kept = json.loads((registry.path(2) / "run.json").read_bytes())["verdict"]
    verdict = msgspec.convert(kept, Verdict)
    assert verdict.promoted
    assert (verdict.current, verdict.tolerance) == (1, TOLERANCE)


# Numbers


def of_pets(file, **more):
    return Parameters(name="pets", data=str(file), target="kind", **{"n_estimators": 10} | more)


def test_of_two_models_of_a_number_the_one_with_larger_errors_is_not_promoted(tmp_path):
    told = of_pets(mixed_file(tmp_path / "pets.csv", number=True))
    good = train(tmp_path / "m", told)
    stump = train(tmp_path / "m", msgspec.structs.replace(told, n_estimators=1, max_depth=1))
    again = train(tmp_path / "m", told)
    assert [run.promoted for run in (good, stump, again)] == [True, False, True]
    assert "worse than the current version: a mean absolute error of " in stump.why
    assert (stump.verdict["metric"], stump.verdict["baseline"] > 5) == ("mae", True)
    (exam,) = stump.verdict["exams"]
    assert exam["mae_now"] > 2 * exam["mae_then"]
    assert exam["gained"] + exam["lost"] <= exam["rows"] == good.verdict["rows"]
    assert exam["p_value"] < 0.01
    gaps = [abs(abs(f["now"] - f["truth"]) - abs(f["then"] - f["truth"])) for f in exam["flips"]]
    assert gaps == sorted(gaps, reverse=True)
    assert again.verdict["exams"][0]["p_value"] == 1.0


@pytest.mark.parametrize(
    ("now", "then", "good"),
    [(1.0, 1.0, True), (1.01, 1.0, True), (1.02, 1.0, False), (0.1, 0, False)],
)
def test_the_tolerance_of_errors_is_relative(now, then, good):
    exam = Comparison(
        **{"table": "a.csv", "rows": 50, "gained": 10, "lost": 20, "p_value": 0.1, "weak": True},
        **{"flipped": 30, "flips": (), "mae_now": now, "mae_then": then},
    )
    assert passed(exam) is good
    assert ("worse than" in describe_comparison(exam)) is (now > then)


@settings(deadline=None, print_blob=True)
@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=1, max_size=60))
def test_the_test_of_errors_has_a_p_value_and_knows_no_sides(pairs):
    now, then = np.array(pairs).T
    p = wilcoxon_p(now, then)
    assert 0 <= p <= 1
    assert p == pytest.approx(wilcoxon_p(then, now))
    assert wilcoxon_p(now, now) == 1.0


def test_a_comparison_of_an_earlier_record_is_read():
    old = {"table": "a", "rows": 3, "right_now": 1, "right_then": 2, "gained": 0, "lost": 1}
    old |= {"p_value": 1.0, "weak": True, "flipped": 1, "flips": [[1, "a", "b"]]}
    old["flips"] = [{"row": 1, "truth": "a", "then": "a", "now": "b"}]
    verdict = {"promoted": True, "why": "", "promote": "auto", "score": 1.0, "rows": 3}
    found = msgspec.convert(verdict | {"current": 1, "exams": [old]}, Verdict)
    assert (found.metric, found.baseline, found.exams[0].mae_now) == ("accuracy", None, None)


# Baselines and minima


def noise(path, seed=0):
    """A table from which nothing can be learned, with a frequent class."""
    rng = np.random.default_rng(seed)
    rows = [f"{rng.normal():.3f},{rng.normal():.3f}" for _ in range(200)]
    kinds = ["often" if rng.random() < 0.7 else "seldom" for _ in rows]
    lines = [f"{row},{kind}" for row, kind in zip(rows, kinds, strict=True)]
    path.write_text("a,b,kind\n" + "\n".join(lines) + "\n")
    return path


def test_the_first_version_below_its_baseline_is_promoted_and_says_so_and_no_later_one(tmp_path):
    told = of_pets(noise(tmp_path / "noise.csv"))
    first, later = (train(tmp_path / "m", told) for _ in range(2))
    assert first.verdict["score"] < first.verdict["baseline"]
    assert first.promoted
    assert first.why.startswith("the first version, although below its baseline: accuracy 0.")
    assert not later.promoted
    assert later.why.startswith("below its baseline: accuracy 0.")
    always = train(tmp_path / "m", msgspec.structs.replace(told, promote="always"))
    assert always.promoted


@pytest.mark.parametrize(
    ("asked", "promoted"),
    [
        ("balanced_accuracy 0.9", True),
        ("log_loss 0.5", True),
        ("log_loss 0.00001", False),
        ("accuracy 1.01", False),
        (0.5, True),
    ],
)
def test_a_minimum_may_name_its_metric_and_an_error_is_a_most(tmp_path, asked, promoted):
    run = train(tmp_path, Parameters(n_estimators=10, min_score=asked))
    assert (run.promoted, run.verdict["min_score"]) == (promoted, asked)
    assert promoted or "held-out rows, " in run.why


@pytest.mark.parametrize(
    ("asked", "promoted"),
    [("mae 3", True), ("mae 0.01", False), ("rmse 9", True), (0.5, True), (1, False)],
)
def test_a_minimum_of_a_number_is_r2_or_an_error(tmp_path, asked, promoted):
    told = of_pets(mixed_file(tmp_path / "pets.csv", number=True), min_score=asked)
    assert train(tmp_path / "m", told).promoted is promoted


# Contracts that grow


def test_a_new_category_can_be_compared_and_a_removed_one_is_another_question(tmp_path):
    two, three = ("north", "south"), ("east", "north", "south")
    small = of_pets(mixed_file(tmp_path / "two.csv", two))
    large = of_pets(mixed_file(tmp_path / "three.csv", three, seed=1))
    first, grown, shrunk = (train(tmp_path / "m", told) for told in (small, large, small))
    assert first.promoted
    tables = {exam["table"]: exam for exam in grown.verdict["exams"]}
    assert set(tables) == {"two.csv", "three.csv"}
    assert tables["three.csv"]["refused"] > 0
    assert tables["two.csv"]["refused"] == 0
    assert (grown.promoted, shrunk.promoted) == (True, False)
    assert grown.why.endswith("; newly accepted: island east")
    assert "no longer accepted: island east" in shrunk.why


def test_another_task_is_another_question(tmp_path):
    train(tmp_path / "m", of_pets(mixed_file(tmp_path / "a.csv")))
    run = train(tmp_path / "m", of_pets(mixed_file(tmp_path / "b.csv", number=True)))
    assert not run.promoted
    assert "the answer is a number" in run.why
