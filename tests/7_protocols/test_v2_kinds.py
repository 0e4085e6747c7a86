"""The Open Inference Protocol for models with booleans, categories, missing values and numbers."""

import json
import struct
import tracemalloc

import numpy as np
import pytest
from coded import CONTRACTS, EXAMPLE, FEATURES, NAMES, ROWS, encoded, mixed_app, predictor
from cost import least_cost
from hypothesis import given, settings
from hypothesis import strategies as st
from questions import BINARY_OUTPUT

from iris_serve.data.contract import Feature
from iris_serve.protocols.datatypes import DATATYPES, feature_datatypes
from iris_serve.protocols.framing import JSON_LENGTH_HEADER
from iris_serve.protocols.tensors import Output, TensorError, read_tensor, write_output

INFER = "/v2/models/iris/infer"
USUAL = ["FP64", "FP64", "BOOL", "BYTES", "BYTES", "INT64", "FP64", "BYTES"]
COLUMNS = dict(zip(NAMES, map(list, zip(*ROWS, strict=True)), strict=True))


@pytest.fixture(scope="module")
def ask(trained):
    """A function that asks a model by its name, and returns the response."""
    clients = {name: mixed_app(name, trained).test_client() for name in CONTRACTS}

    def ask(name, inputs, raw=b"", **more):
        front = json.dumps({"inputs": inputs, **more}).encode()
        headers = {JSON_LENGTH_HEADER: str(len(front))} if raw else {}
        return clients[name].post(INFER, data=front + raw, headers=headers)

    ask.get = lambda name: clients[name].get("/v2/models/iris").json
    return ask


def column(name, data, datatype, shape=None):
    return {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data}


def columns(**changes):
    """The rows as one tensor for each feature; `changes` are pairs of a datatype and the data."""
    given = {name: (kind, COLUMNS[name]) for name, kind in zip(NAMES, USUAL, strict=True)}
    given["smokes"] = ("BYTES", ["No", "Yes", "Yes", "No", "Yes"])
    return [column(name, data, kind) for name, (kind, data) in (given | changes).items()]


def one_row(**changes):
    """The example as tensors; `changes` are pairs of a datatype and the value."""
    given = dict(zip(NAMES, zip(USUAL, EXAMPLE, strict=True), strict=True)) | changes
    return [column(name, [value], kind) for name, (kind, value) in given.items()]


def as_bytes(inputs):
    """The heads of the `inputs`, and their data behind the JSON."""
    heads, raws = [], []
    for each in inputs:
        if each["datatype"] == "BYTES":
            texts = [value.encode() for value in each["data"]]
            raw = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        else:
            raw = np.array(each["data"], DATATYPES.get(each["datatype"], np.dtype("?"))).tobytes()
        head = {key: value for key, value in each.items() if key != "data"}
        heads.append(head | {"parameters": {"binary_data_size": len(raw)}})
        raws.append(raw)
    return heads, b"".join(raws)


def data_of(answer):
    assert answer.status_code == 200, answer.data
    return {output["name"]: output["data"] for output in answer.json["outputs"]}


def assert_refused(answer, words, field=None):
    assert answer.status_code == 400, answer.data
    assert words in answer.json["error"]
    if field:
        assert field in [error.get("field") for error in answer.json["errors"]]
    assert len(answer.data) < 40_000


def expected(name, rows=ROWS):
    codes = encoded(rows, CONTRACTS[name])
    answers = predictor(name).predict(codes)
    if name.endswith("number"):
        return {"prediction": answers}
    return {
        "label": answers,
        "probabilities": np.ravel(predictor(name).predict_proba(codes)).tolist(),
    }


MIXED = [name for name, contract in CONTRACTS.items() if not contract.numeric]


# What is announced


@pytest.mark.parametrize("name", MIXED)
def test_a_mixed_model_announces_one_input_for_each_feature(ask, name):
    inputs = [{"name": n, "datatype": t, "shape": [-1]} for n, t in zip(NAMES, USUAL, strict=True)]
    assert ask.get(name)["inputs"] == inputs


def test_numbers_with_gaps_are_one_input(ask):
    for name in ("gaps", "gaps, number"):
        (table,) = ask.get(name)["inputs"]
        assert table == {"name": "features", "datatype": "FP64", "shape": [-1, 4]}


@pytest.mark.parametrize(
    ("name", "datatype"), [("texts", "BYTES"), ("booleans", "BOOL"), ("floats", "FP64")]
)
def test_the_label_has_the_datatype_of_the_classes(ask, name, datatype):
    label, probabilities = ask.get(name)["outputs"]
    assert label == {"name": "label", "datatype": datatype, "shape": [-1]}
    assert probabilities["shape"] == [-1, len(CONTRACTS[name].classes)]


def test_a_number_is_the_only_output(ask):
    assert ask.get("number")["outputs"] == [
        {"name": "prediction", "datatype": "FP64", "shape": [-1]}
    ]


@pytest.mark.parametrize("name", CONTRACTS)
def test_outputs_are_what_the_metadata_announce(ask, name):
    inputs = columns() if name in MIXED else [table([[1, 2, 3, 4]] * 5)]
    answer = ask(name, inputs).json["outputs"]
    for output, announced in zip(answer, ask.get(name)["outputs"], strict=True):
        assert (output["name"], output["datatype"]) == (announced["name"], announced["datatype"])
        assert output["shape"] == [5 if size == -1 else size for size in announced["shape"]]


# What is accepted


@pytest.mark.parametrize("name", MIXED)
def test_columns_of_all_kinds_are_answered_as_the_model_answers_their_codes(ask, name):
    answer = data_of(ask(name, columns()))
    assert answer == expected(name)
    assert data_of(ask(name, columns()[::-1])) == answer
    nested = [
        each | {"shape": [5, 1], "data": [[value] for value in each["data"]]} for each in columns()
    ]
    assert data_of(ask(name, nested)) == answer


@pytest.mark.parametrize("name", MIXED)
def test_the_same_rows_as_bytes_get_the_same_answer(ask, name):
    whole = [row for row in ROWS if None not in row]
    given = dict(
        zip(NAMES, zip(USUAL, map(list, zip(*whole, strict=True)), strict=True), strict=True)
    )
    given["smokes"] = ("BYTES", ["No", "No", "Yes"])
    inputs = [column(n, data, kind) for n, (kind, data) in given.items()]
    heads, raw = as_bytes(inputs)
    assert data_of(ask(name, heads, raw)) == data_of(ask(name, inputs)) == expected(name, whole)


SAME = {
    "a boolean in the table's spelling": {"smokes": ("BYTES", "No")},
    "a spelled boolean as a boolean": {"smokes": ("BOOL", False)},
    "a boolean as text": {"alone": ("BYTES", "true")},
    "a category with another number of blanks": {"port": ("BYTES", " Cork ")},
    "a numeric category as a float": {"class": ("FP64", 3.0)},
    "a numeric category as a short integer": {"class": ("UINT8", 3)},
    "a numeric category as text": {"class": ("BYTES", "3")},
    "a fraction of 32 bits": {"dose": ("FP32", 0.1)},
    "a fraction of 16 bits": {"dose": ("FP16", 0.1)},
    "a number of 32 bits": {"age": ("FP32", 28), "fare": ("FP16", 32.5)},
    "a number as an integer": {"age": ("INT16", 28)},
}


@pytest.mark.parametrize("what", SAME)
def test_a_value_may_come_in_several_datatypes(ask, what):
    answer = expected("texts", [EXAMPLE])
    inputs = one_row(**SAME[what])
    assert data_of(ask("texts", inputs)) == answer
    assert data_of(ask("texts", *as_bytes(inputs))) == answer


def test_every_datatype_that_a_feature_has_is_accepted(ask):
    for feature, usual in zip(FEATURES, EXAMPLE, strict=True):
        for datatype in feature_datatypes(feature):
            value = {"fare": 32, "dose": 3}.get(feature.name, usual)
            if datatype == "BYTES":
                value = str(value).lower() if isinstance(value, bool) else str(value)
            if datatype == "BOOL":
                value = True
            answer = ask("texts", one_row(**{feature.name: (datatype, value)}))
            assert answer.status_code == 200, (feature.name, datatype, answer.json)


@pytest.mark.parametrize("kind", ["FP16", "FP32", "FP64"])
def test_nan_among_bytes_means_a_missing_value(ask, kind):
    row = [None, *EXAMPLE[1:6], None, "A"]
    inputs = one_row(age=(kind, np.nan), dose=(kind, np.nan))
    assert data_of(ask("texts", *as_bytes(inputs))) == expected("texts", [row])
    assert data_of(ask("texts", inputs)) == expected("texts", [row])  # as tritonclient writes it
    inputs = one_row(age=(kind, None), dose=(kind, None))
    assert data_of(ask("texts", inputs)) == expected("texts", [row])


def test_null_may_stand_in_every_json_tensor_of_a_feature_that_may_be_missing(ask):
    for feature in FEATURES:
        for datatype in feature_datatypes(feature):
            answer = ask("texts", one_row(**{feature.name: (datatype, None)}))
            assert (answer.status_code == 200) is feature.missing, (feature.name, datatype)
            if feature.missing:
                row = [
                    None if n == feature.name else v for n, v in zip(NAMES, EXAMPLE, strict=True)
                ]
                assert data_of(answer) == expected("texts", [row])


def table(rows, datatype="FP64", **more):
    shape = [len(rows), len(rows[0])]
    return {"name": "features", "shape": shape, "datatype": datatype, "data": rows} | more


GAPS = [[1.5, None, 3.0, 4.0], [None, None, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0]]


@pytest.mark.parametrize("name", ["gaps", "gaps, number"])
def test_a_table_of_numbers_may_have_gaps(ask, name):
    answer = expected(name, GAPS)
    assert data_of(ask(name, [table(GAPS)])) == answer
    flat = [value for row in GAPS for value in row]
    assert data_of(ask(name, [table(GAPS) | {"data": flat}])) == answer
    nan = [[np.nan if value is None else value for value in row] for row in GAPS]
    assert data_of(ask(name, [table(nan)])) == answer
    assert data_of(ask(name, *as_bytes([table(nan)]))) == answer
    assert data_of(ask(name, *as_bytes([table(nan, "FP32")]))) == answer
    each = [
        column(f"x{i}", list(values), "FP64") for i, values in enumerate(zip(*GAPS, strict=True))
    ]
    assert data_of(ask(name, each)) == answer


def test_a_gap_where_none_may_be_is_refused_with_its_place(ask):
    answer = ask("gaps", [table([GAPS[0], [None, None, None, np.nan]])])
    words = "inputs[0].data[1][2] (x2): must be a number, got null; inputs[0].data[1][3] (x3): must"
    assert_refused(answer, words)
    raw = as_bytes([table([[np.nan] * 4])])
    assert_refused(
        ask("gaps", *raw), "value 2 of its bytes must be a number, got NaN; inputs[0]: v"
    )


def test_a_mistake_behind_thousands_of_gaps_is_found(ask):
    answer = ask("gaps", [table([[None, None, 1, 2]] * 4000 + [[None, "x", 1, 2]])])
    assert_refused(answer, 'inputs[0].data[4000][1] (x1): must be a number, got the string "x"')


def test_no_rows_get_empty_outputs(ask):
    empty = [each | {"shape": [0], "data": []} for each in one_row()]
    assert data_of(ask("texts", empty)) == {"label": [], "probabilities": []}
    assert data_of(ask("number", empty)) == {"prediction": []}
    heads = [{**each, "parameters": {"binary_data_size": 0}} for each in empty]
    for head in heads:
        del head["data"]
    assert data_of(ask("texts", heads)) == {"label": [], "probabilities": []}


# What comes back


@pytest.mark.parametrize(
    ("name", "dtype"), [("booleans", "?"), ("floats", "<f8"), ("number", "<f8")]
)
def test_answers_as_bytes_hold_the_same_values(ask, name, dtype):
    answer = ask(name, columns(), **BINARY_OUTPUT)
    size = int(answer.headers[JSON_LENGTH_HEADER])
    first = json.loads(answer.data[:size])["outputs"][0]
    length = first["parameters"]["binary_data_size"]
    found = np.frombuffer(answer.data[size : size + length], dtype).tolist()
    assert found == next(iter(expected(name).values()))


def test_true_and_false_come_back_as_such(ask):
    labels = data_of(ask("booleans", columns()))["label"]
    assert {type(label) for label in labels} == {bool}


def test_a_classification_of_booleans_names_them(ask):
    best = {"name": "probabilities", "parameters": {"classification": 1}}
    (answer,) = data_of(ask("booleans", one_row(), outputs=[best])).values()
    assert answer[0].split(":")[2] in ("false", "true")


def test_a_number_is_asked_for_by_its_name(ask):
    assert data_of(ask("number", columns(), outputs=[{"name": "prediction"}])) == expected("number")


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"name": "label"}, "must be an output of this model, prediction"),
        ({"name": "probabilities"}, "must be an output of this model, prediction"),
        (
            {"name": "prediction", "parameters": {"classification": 2}},
            "this model has none, it predicts a number",
        ),
    ],
)
def test_a_number_has_no_label_and_no_classification(ask, output, words):
    assert_refused(ask("number", one_row(), outputs=[output]), words)


def test_a_classifier_has_no_prediction(ask):
    answer = ask("texts", one_row(), outputs=[{"name": "prediction"}])
    assert_refused(answer, "must be an output of this model, label and probabilities")


# What is refused


@pytest.mark.parametrize("name", ["features", "input-0", "x", ""])
def test_a_table_is_refused_with_the_names_of_the_inputs(ask, name):
    answer = ask("texts", [table([[1.0] * 8]) | {"name": name}])
    assert_refused(
        answer, "takes a tensor for each of its features, not a table: age FP64, fare FP64"
    )
    assert "port BYTES, class INT64, dose FP64, boat BYTES" in answer.json["error"]
    assert [each["name"] for each in answer.json["example"]["inputs"]] == NAMES
    assert ask("texts", answer.json["example"]["inputs"]).status_code == 200


WRONG = {
    "an unknown category": ({"port": ("BYTES", "Crok")}, "did you mean Cork?"),
    "a number as a text": (
        {"fare": ("BYTES", "7")},
        "BYTES holds strings, and a feature is a number",
    ),
    "a boolean as a number": ({"alone": ("INT8", 1)}, "this feature is true or false; use BOOL"),
    "a spelled boolean as a number": ({"smokes": ("FP64", 1)}, "true or false; use BYTES"),
    "a category as a number": ({"port": ("FP64", 1)}, "this feature is a category; use BYTES"),
    "a numeric category as a boolean": ({"class": ("BOOL", True)}, "is a category; use INT64"),
    "1 as BOOL": ({"alone": ("BOOL", 1)}, "inputs[2].data[0] (alone): must be true or false"),
    "a string as BOOL": ({"alone": ("BOOL", "true")}, "must be true or false, got the string"),
    "a number as BYTES": ({"port": ("BYTES", 1)}, "must be a string, got a number"),
    "true as BYTES": ({"smokes": ("BYTES", True)}, "must be a string, got true"),
    "an unknown numeric category": ({"class": ("INT64", 4)}, "inputs[5].data[0] (class): must be"),
    "half a numeric category": ({"class": ("FP64", 2.5)}, "inputs[5].data[0] (class): must be"),
    "a text for a numeric category": (
        {"class": ("BYTES", "IV")},
        "inputs[5].data[0] (class): must",
    ),
    "null where none may be": ({"class": ("INT64", None)}, "got null"),
    "a fraction of 64 bits that is none": ({"dose": ("FP64", 0.1000000015)}, "(dose): must be"),
    "an empty string": ({"port": ("BYTES", "")}, "(port): must be"),
    "a list": ({"port": ("BYTES", [["Cork"]])}, "inputs[4].data[0]: must be"),
    "an unknown datatype": ({"port": ("STRING", "Cork")}, "must be one of FP16"),
    "a number for a float of 16 bits": ({"fare": ("FP16", 70000)}, "the range of FP16"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_value_is_a_400_that_says_what_and_where(ask, what):
    change, words = WRONG[what]
    assert_refused(ask("texts", one_row(**change)), words)


def test_all_mistakes_are_reported_at_once(ask):
    wrong = one_row(port=("BYTES", "Crok"), alone=("BOOL", 1), fare=("FP64", "7"), boat=("INT8", 1))
    answer = ask("texts", [*wrong, column("bote", ["A"], "BYTES")][:-1], outputs=[{"name": "x"}])
    assert [error["pointer"] for error in answer.json["errors"]] == [
        "#/outputs/0/name",
        "#/inputs/1/data/0",
        "#/inputs/2/data/0",
        "#/inputs/4/data/0",
        "#/inputs/7/datatype",
    ]


def test_an_unknown_and_a_missing_column_are_reported_together(ask):
    inputs = [*one_row()[:-1], column("bote", ["A"], "BYTES")]
    answer = ask("texts", inputs)
    assert_refused(
        answer, "inputs[7].name: is the name of no feature; did you mean boat?; inputs (bo"
    )


def test_a_value_of_an_unknown_datatype_is_checked_as_the_announced_one(ask):
    answer = ask("texts", one_row(port=("text", "Crok")))
    assert [error["pointer"] for error in answer.json["errors"]] == [
        "#/inputs/4/datatype",
        "#/inputs/4/data/0",
    ]


# Bytes


@pytest.mark.parametrize("text", ["", "None", "nan", "Nowhere"])
def test_a_string_among_bytes_cannot_say_that_it_is_missing(ask, text):
    answer = ask("texts", *as_bytes(one_row(port=("BYTES", text))))
    assert_refused(answer, "inputs[4]: value 0 of its bytes must be a value seen in training")
    assert (
        "BYTES as bytes cannot say that a value is missing: send null in JSON"
        in answer.json["error"]
    )


def test_an_integer_among_bytes_cannot_say_that_it_is_missing_and_a_float_can(ask):
    answer = ask("texts", *as_bytes(one_row(dose=("INT64", 7))))
    assert_refused(answer, "cannot say that a value is missing: send null in JSON or NaN in FP64")


def test_a_boolean_among_bytes_is_0_or_1(ask):
    heads, raw = as_bytes(one_row())
    place = 16  # behind two FP64
    assert_refused(
        ask("texts", heads, raw[:place] + b"\x02" + raw[place + 1 :]), "inputs[2]: value 0"
    )


BAD_STRINGS = {
    "a length beyond the end": (b"\xff\xff\xff\xff", "is longer than what is left"),
    "half a length": (b"\x00\x00", "needs at least 4"),
    "half a string": (b"\x04\x00\x00\x00Cor", "is longer than what is left"),
    "too much": (b"\x04\x00\x00\x00Corks", "is the last, and 1 more follow"),
    "two strings": (b"\x04\x00\x00\x00Cork" * 2, "is the last, and 8 more follow"),
    "no UTF-8": (b"\x01\x00\x00\x00\xff", "is no UTF-8"),
    "half a surrogate": (b"\x03\x00\x00\x00\xed\xa0\x80", "is no UTF-8"),
    "a long string": (b"\x00\x80\x00\x00" + b"x" * (1 << 15), "got"),
}


@pytest.mark.parametrize("what", BAD_STRINGS)
def test_bad_strings_among_bytes_are_refused(ask, what):
    raw, words = BAD_STRINGS[what]
    inputs = one_row()
    inputs[4] = {
        "name": "port",
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(raw)},
    }
    assert_refused(ask("texts", inputs, raw), words)


@pytest.mark.parametrize("shape", [[2**31 - 1], [2**31 - 1] * 2, [5, 2**20]])
def test_a_huge_shape_of_strings_is_refused_before_memory_is_allocated(ask, shape):
    inputs = one_row()
    inputs[4] = {
        "name": "port",
        "shape": shape,
        "datatype": "BYTES",
        "parameters": {"binary_data_size": 8},
    }
    ask("texts", inputs, b"\x04\x00\x00\x00Cork")
    tracemalloc.start()
    try:
        answer = ask("texts", inputs, b"\x04\x00\x00\x00Cork")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert_refused(answer, "8 bytes are given, but the shape")


def test_strings_of_more_rows_than_allowed_are_not_parsed(ask):
    raw = struct.pack("<I", 0) * 20_000
    head = {"name": "port", "shape": [20_000], "datatype": "BYTES"}
    head["parameters"] = {"binary_data_size": len(raw)}
    assert ask("texts", [head, *one_row()[:1]], raw).status_code == 413


@pytest.mark.parametrize(
    "values", [["{}"], ["Cork{}"], ["{}", "Cork"]], ids=["new", "close", "half"]
)
@pytest.mark.parametrize("packed", [True, False], ids=["bytes", "JSON"])
def test_a_body_full_of_unknown_categories_costs_little(ask, values, packed):
    data = [values[i % len(values)].format(i) for i in range(9000)]
    inputs = [column(name, data, "BYTES") for name in ("port", "smokes", "boat", "class")]
    heads, raw = as_bytes(inputs) if packed else (inputs, b"")
    cost, answer = least_cost(lambda: ask("texts", heads, raw))
    assert cost < 1
    assert_refused(answer, "must be")


def test_a_feature_with_many_categories_costs_little(ask):
    feature = Feature(
        "city", "", 0, 4999, "category", tuple(sorted(f"city {i:04}" for i in range(5000)))
    )
    data = [f"city {i % 5000:04}" for i in range(9000)]
    head = {"name": "city", "shape": [9000], "datatype": "BYTES"}

    def read():
        assert read_tensor(head | {"data": data}, columns=[feature]).values == data
        with pytest.raises(TensorError, match="did you mean city"):
            read_tensor(head | {"data": [f"{text}x" for text in data]}, columns=[feature])

    cost, _ = least_cost(read)
    assert cost < 1


@settings(max_examples=300, deadline=None, print_blob=True)
@given(st.lists(st.text(max_size=20), max_size=20))
def test_any_strings_are_read_as_they_were_written(texts):
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    output = Output("x", "BYTES", (len(texts),), texts)
    for binary in (True, False):
        head, raw = write_output(output, binary)
        assert read_tensor(json.loads(head), raw if binary else None).values == texts


@settings(max_examples=500, deadline=None, print_blob=True)
@given(st.binary(max_size=60), st.integers(0, 12))
def test_any_bytes_are_strings_or_refused(raw, count):
    head = {"name": "x", "shape": [count], "datatype": "BYTES"}
    try:
        texts = read_tensor(head, raw).values
    except TensorError:
        return
    assert b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts) == raw


@pytest.mark.parametrize("name", ["texts", "number"])
@pytest.mark.parametrize("examples", [100, pytest.param(5_000, marks=pytest.mark.slow)])
def test_any_column_is_answered_or_refused_with_a_reason(ask, examples, name):
    json_values = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9)
    known = st.sampled_from([value for row in ROWS for value in row])
    kinds = st.sampled_from(["FP64", "FP32", "INT64", "UINT8", "BOOL", "BYTES", "x"])

    @settings(max_examples=examples, deadline=None, print_blob=True, database=None)
    @given(st.dictionaries(st.sampled_from(NAMES), st.tuples(kinds, json_values | known)))
    def check(changes):
        answer = ask(name, one_row(**changes))
        if answer.status_code != 200:
            assert_refused(answer, "inputs[")

    check()
