"""Wrong bodies for /predict, each with words that the message must have."""

import pickle


def row(text):
    return f'{{"features": [{text}]}}'.encode()


BAD = {
    "no numbers": (row(""), "holds no row"),
    "three": (row("6.1, 2.8, 4.7"), "got 3"),
    "five": (row("6.1, 2.8, 4.7, 1.2, 9"), "got 5"),
    "string": (row('6.1, "2.8", 4.7, 1.2'), "features[1] (sepal_width)"),
    "true": (row("true, 2.8, 4.7, 1.2"), "features[0] (sepal_length): must be a number, got true"),
    "null": (row("6.1, 2.8, 4.7, null"), "features[3] (petal_width): must be a number, got null"),
    "NaN": (row("6.1, 2.8, NaN, 1.2"), "features[2] (petal_length): must be a number, got NaN"),
    "Infinity": (row("6.1, Infinity, 4.7, 1.2"), "features[1]"),
    "-Infinity": (row("6.1, -Infinity, 4.7, 1.2"), "features[1]"),
    "1e400": (row("6.1, 2.8, 4.7, 1e400"), "features[3]"),
    "beyond float32": (row("3.4028235677973366e38, 2.8, 4.7, 1.2"), "features[0]"),
    "5,000 digits": (row("6.1, 2.8, 4.7, " + "9" * 5000), "features[3]"),
    "500,000 digits": (row("6.1, 2.8, 4.7, -" + "9" * 500_000), "features[3]"),
    "nested": (
        row("6.1, [2.8], 4.7, 1.2"),
        "features[1] (sepal_width): must be a number, got a list",
    ),
    "ragged": (row("[6.1, 2.8], [4.7]"), "features[1]: must hold 4 numbers"),
    "a batch of batches": (row("[[6.1, 2.8, 4.7, 1.2]]"), "features[0]: must be one flat list"),
    "a row and a number": (row("[6.1, 2.8, 4.7, 1.2], 5"), "features[1]: must be a list of 4"),
    "a name missing": (b'{"features": {"sepal_length": 6.1}}', "features.petal_width: is missing"),
    "a name misspelt": (b'{"features": {"petal-lenght": 6.1}}', "did you mean petal_length?"),
    "a name twice": (
        b'{"features": {"petal_width": 1, "petal_width": 1}}',
        "features.petal_width: appears more than once",
    ),
    "rows of objects": (row('{"petal_width": null}'), "features[0].petal_width: must be a number"),
    "detail as text": (b'{"features": [6.1, 2.8, 4.7, 1.2], "detail": "yes"}', "true or false"),
    "features null": (b'{"features": null}', "must be a list of 4 numbers, got null"),
    "features NaN": (b'{"features": NaN}', "must be a list of 4 numbers"),
    "unknown key": (b'{"features": [6.1, 2.8, 4.7, 1.2], "color": 1}', "unknown name"),
    "misspelt key": (b'{"feature": [6.1, 2.8, 4.7, 1.2]}', "did you mean"),
    "missing key": (b"{}", "is missing"),
    "key twice": (b'{"features": [1, 2, 3, 4], "features": [1, 2, 3, 4]}', "more than once"),
    "many keys, one twice": (
        b"{" + b",".join(b'"%d":1' % i for i in range(90_000)) + b',"1":1}',
        "more than once",
    ),
    "list": (b"[6.1, 2.8, 4.7, 1.2]", "must be an object"),
    "number": (b"6.1", "must be an object"),
    "null body": (b"null", "must be an object"),
    "a surrogate as key": (b'{"\\ud83c": 1}', "unknown name"),
    "a surrogate as value": (row('"\\ud83c", 2.8, 4.7, 1.2'), "got the string"),
    "a long string": (row('"' + "x" * 100_000 + '", 2.8, 4.7, 1.2'), "got the string"),
    "empty": (b"", "empty"),
    "white": (b" \n ", "empty"),
    "form": (b"features=6.1&features=2.8", "not JSON"),
    "cut": (b'{"features": [6.1, 2.8', "not JSON"),
    "two values": (row("6.1, 2.8, 4.7, 1.2") * 2, "not JSON"),
    "not UTF-8": (b'{"features": "\xff\xfe"}', "UTF-8"),
    "half a UTF-16": (b"\xff\xfe\xfa", "UTF-8"),
    "deep lists": (b"[" * 100_000, "nested too deeply"),
    "deep objects": (b'{"a":' * 100_000, "nested too deeply"),
    "pickle": (pickle.dumps([6.1, 2.8, 4.7, 1.2]), "not"),
}
GOOD = b'{"features": [6.1, 2.8, 4.7, 1.2]}'
EXAMPLE = {"features": [6.1, 2.8, 4.7, 1.2]}
