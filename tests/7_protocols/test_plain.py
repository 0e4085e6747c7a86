"""The short reader of plain questions: what it reads, the full reader reads as well.

`FUZZ_SEED` repeats a run.
"""

import json
import os
import random
import secrets
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from questions import ALL, INFER, JSON_LENGTH_HEADER, ROW

import iris_serve.protocols.infer as infer
from iris_serve.protocols.infer import infer_reply, output_names
from iris_serve.protocols.plain import plain_question
from iris_serve.service.bodies import Limits
from iris_serve.service.errors import TooManyRowsError
from iris_serve.testing import Ruler

SEED = int(os.environ.get("FUZZ_SEED") or secrets.randbelow(1 << 32))
LIMITS = Limits(rows=3)
MODEL = Ruler()
NUMBERS = st.sampled_from([0, 1, -1, 6.1, 1e22, 5e-324, 3.4e38, -3.5e38, 1e300, 2**53 + 1, 10**400])
ODD = st.sampled_from([None, True, "1", [], [1.0], {}])
VALUES = st.lists(NUMBERS | NUMBERS | ODD, max_size=12) | st.lists(NUMBERS, min_size=4, max_size=4)
NAMES = st.sampled_from(["label", "probabilities", "predict", "predict_proba", "lable", 1])
FLAG = st.sampled_from([True, False, None, 1])
OUTPUTS = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES},
        optional={
            "parameters": st.dictionaries(
                st.sampled_from(["binary_data", "classification", "x"]), FLAG | st.integers(0, 4)
            )
        },
    ),
    max_size=3,
)
TENSORS = st.fixed_dictionaries(
    {"name": st.sampled_from(["features", "features", "sepal_length", "", "x"])},
    optional={
        "shape": st.sampled_from(
            [[1, 4], [1, 4], [2, 4], [3, 4], [4, 4], [0, 4], [4], [1, -4], "x"]
        ),
        "datatype": st.sampled_from(["FP64", "FP64", "FP32", "INT64", "BYTES", "fp64", 1]),
        "data": VALUES,
        "parameters": st.fixed_dictionaries(
            {}, optional={"binary_data_size": st.sampled_from([32, 16, 0, "32", None, 1.0])}
        )
        | st.none(),
        "extra": st.just(1),
    },
)
TAILS = [b"", struct.pack("<4d", *ROW), struct.pack("<4f", *ROW), b"1234567"]
HEADS = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, min_size=1, max_size=2)},
    optional={
        "id": st.sampled_from(["42", "", "a:b", 'q"', "é\ud800", None, 42]),
        "outputs": OUTPUTS | st.none() | st.just({}),
        "parameters": st.dictionaries(st.just("binary_data_output"), FLAG) | st.none() | st.just(1),
        "model": st.just("iris"),
    },
)


def outcome(body, header):
    """What comes of a question: the reply, or the error with all that it says."""
    try:
        return infer_reply(body, MODEL, header, LIMITS)
    except (ValueError, TooManyRowsError) as error:
        return type(error), str(error), getattr(error, "issues", None)


def check_equal(body, header):
    """Raise unless the question has the same outcome with the short reader and without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infer, "new_id", lambda: "7")
        short = outcome(body, header)
        patch.setattr(infer, "plain_question", lambda *_: None)
        assert short == outcome(body, header)


@settings(max_examples=1500, deadline=None, print_blob=True)
@given(
    HEADS, st.sampled_from([b"", struct.pack("<4d", *ROW), struct.pack("<4f", *ROW), b"1234567"])
)
def test_any_question_has_the_same_outcome_with_the_short_reader(head, tail):
    text = json.dumps(head).encode()
    check_equal(text + tail, str(len(text)) if tail else None)


@settings(max_examples=300, deadline=None, print_blob=True)
@given(st.lists(st.floats(), min_size=4, max_size=4), st.sampled_from(["d", "f"]))
def test_any_bytes_have_the_same_outcome_with_the_short_reader(values, letter):
    raw = struct.pack("<4d", *values)[: 32 if letter == "d" else 16]
    tensor = {"name": "features", "shape": [1, 4], "datatype": {"d": "FP64", "f": "FP32"}[letter]}
    text = json.dumps(
        {"inputs": [tensor | {"parameters": {"binary_data_size": len(raw)}}]}
    ).encode()
    check_equal(text + raw, str(len(text)))


PIECES = [b"", *(b': " 0 1e , \xff null - { ]'.split()), b' "id": "1",']
SENT = [question for question in ALL if question.path == INFER]


@pytest.mark.parametrize("times", [3000, pytest.param(50_000, marks=pytest.mark.slow)])
def test_damaged_questions_have_the_same_outcome_with_the_short_reader(times):
    dice = random.Random(f"{SEED}/plain")  # noqa: S311
    for number in range(times):
        question = dice.choice(SENT)
        raw = bytearray(question.body)
        for _ in range(dice.choice([0, 1, 1, 2, 5])):
            place = dice.randrange(len(raw))
            raw[place : place + dice.choice([0, 1])] = dice.choice(PIECES)
        header = dict(question.headers).get(JSON_LENGTH_HEADER)
        try:
            check_equal(bytes(raw), header)
        except Exception as error:
            error.add_note(f"FUZZ_SEED={SEED}, question {number}: {bytes(raw)!r}")
            raise


def test_the_usual_questions_are_plain():
    table = {"name": "features", "shape": [1, 4], "datatype": "FP64"}
    text = json.dumps({"id": "42", "inputs": [table | {"data": ROW}], "outputs": None}).encode()
    assert plain_question(text, None, MODEL.contract, LIMITS).rows == [ROW]
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in output_names(MODEL)]
    sized = table | {"parameters": {"binary_data_size": 32}}
    head = json.dumps({"inputs": [sized], "outputs": wanted}).encode()
    raw = struct.pack("<4d", *ROW)
    assert plain_question(head + raw, str(len(head)), MODEL.contract, LIMITS).rows == [ROW]
