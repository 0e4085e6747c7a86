"""Opens changed forests, and reports those that are neither refused nor answer as they should.

python -W error fuzz_forest.py FOLDER KIND COUNT SEED

FOLDER holds whole forests. With KIND `raw` their bytes are changed; with `rebuilt` their arrays
are, and the digest is right again. The last line tells how many were refused and how many answered.
"""

import base64
import contextlib
import json
import resource
import signal
import sys
import traceback
import warnings
from pathlib import Path
from unittest import mock

import msgspec
import numpy as np
import safetensors.numpy

from iris_serve.data.contract import FLOAT32_LIMIT
from iris_serve.forest import Forest
from iris_serve.forest.checks import node_samples
from iris_serve.forest.format import (
    FileHead,
    OldHead,
    as_tensors,
    decode,
    encode,
    from_tensors,
    make_head,
)
from iris_serve.forest.trees import HIGHEST, Arrays, ForestError

MEMORY, PATIENCE = 5 << 29, 60  # bytes, and seconds for one file
INTS = [-(2**31), -2, -1, 0, 1, 2, 3, 7, 2**31 - 1]
FLOATS = [np.nan, np.inf, -np.inf, -0.0, 0.0, 5e-324, 1 / 3, 0.5, 1.0, -1.0, 1e308, -1e308]
FLOATS += [HIGHEST, -HIGHEST, FLOAT32_LIMIT, -FLOAT32_LIMIT]
TYPES = ["<f2", "<f4", "<f8", "<i2", "<i4", "<i8", "|u1", "<u4", "|b1"]
FEATURES = [-1, 0, 1, 2, 3, 5, 31, 32, 33, 63, 64, 65, 300, 10**5 + 1, 2**63, 10**30]
FEATURES += [True, None, "4", 4.0, 1.5]
CLASSES = [
    [],
    [0],
    [0, 0],
    [0, 1],
    [0, 1, 2],
    [2, 1, 0],
    [0.5, 1.5, 2.5],
    [0, 1.0, 2],
    ["a", "b", "c"],
    ["a", "b", 3],
    ["", "\0", "\u00e9"],
    ["x" * 10_000, "y", "z"],
    [True, False],
    [True, 1, 2],
    [None, 1],
    [[0], [1]],
    [-(2**63), 0, 2**64 - 1],
    [2**64, 2**70, -(2**90)],
    [1e308, -1e308, 5e-324],
    list(range(1000)),
]
CATEGORIES = [
    [],
    [[]],
    [["a"]],
    [["a", "a"]],
    [["a", 1]],
    [["no", "yes"], [], [], []],
    [[False, True], [1.0, 2.0], [], ["x" * 10_000]],
    [[], [], [], []],
    [[0.0, -0.0], [], [], []],
    [[None], [], [], []],
    [[[]], [], [], []],
    [[2**64], [], [], []],
    ["abc", [], [], []],
]


def change_bytes(rng, data, files):
    """`data` with some of its bytes changed in one way, often at its beginning."""
    size = len(data)
    at = int(rng.integers(min(size, 450) if rng.random() < 0.5 else size)) if size else 0
    span = int(rng.integers(1, 40))
    match rng.integers(7):
        case 0 if size:
            return data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]
        case 1:
            return data[:at] + rng.bytes(span) + data[at + span :]
        case 2:
            return data[:at]
        case 3:
            return data[:at] + rng.bytes(span) + data[at:]
        case 4:
            return data[:at] + data[at + span :]
        case 5:
            other = files[rng.integers(len(files))]
            return data[:at] + other[int(rng.integers(len(other))) if rng.random() < 0.5 else at :]
    digit = bytes([int(rng.choice(list(b'0123456789{}[],:"-')))])
    return data[:at] + digit + data[at + 1 :]


def changed_file(rng, files):
    """One of `files` with its bytes changed."""
    data = files[rng.integers(len(files))]
    for _ in range(rng.integers(1, 4)):
        data = change_bytes(rng, data, files)
    return data


def invented(rng):
    """A forest that was never fitted: its trees may ask what they already know."""
    numbers_wanted = rng.random() < 0.3
    n_features, classes = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    nodes = []
    for _ in range(rng.integers(1, 5)):
        open_ends = 1
        while open_ends:
            inner = rng.random() < 0.48 and len(nodes) < 200
            nodes.append(int(rng.integers(1, 30)) if inner else -1)
            open_ends += 1 if inner else -1
    used, numbers = np.unique([n for n in nodes if n > 0], return_inverse=True)
    whose = np.sort(rng.integers(n_features, size=len(used)))
    array = np.array(nodes)
    array[array > 0] = numbers
    leaves = int((array < 0).sum())
    values = rng.dirichlet(np.ones(classes), leaves)
    if numbers_wanted:
        values, classes = rng.normal(size=(leaves, 1)) * 10.0 ** rng.integers(-9, 9), 0
    cuts = np.sort(rng.choice(np.arange(100), len(used), replace=False) / 8 - 3)
    return Arrays(
        array.astype(np.int32),
        cuts.astype(np.float64),
        whose.astype(np.int32),
        values,
        n_features,
        tuple(range(classes)),
        (rng.random(len(array)) < 0.5) & (array >= 0) if rng.random() < 0.5 else None,
        rng.integers(1, 99, leaves).astype(np.int32) if rng.random() < 0.5 else None,
    )


def change_array(rng, array, other):
    """`array` changed in one way."""
    array = np.array(array, order="C")
    if not array.size:
        return other
    place = np.unravel_index(rng.integers(array.size), array.shape)
    match rng.integers(9):
        case 0:
            array.reshape(-1).view(np.uint8)[rng.integers(array.nbytes)] ^= 1 << rng.integers(8)
        case 1 | 2:
            special = FLOATS if array.dtype.kind == "f" else [*INTS, len(array) - 1, len(array)]
            with contextlib.suppress(OverflowError), np.errstate(all="ignore"):
                array[place] = special[rng.integers(len(special))]
        case 3:
            there = np.unravel_index(rng.integers(array.size), array.shape)
            array[place], array[there] = array[there], array[place]
        case 4:
            array = array[: rng.integers(len(array))] if array.ndim else array
        case 5:
            sizes = [array.size, array.size * 2, array.size + 1, 1, 1000]
            shape = (int(rng.choice(sizes)), *array.shape[1:])
            array = np.resize(array, shape)
        case 6:
            shapes = [(-1,), (1, -1), (-1, 1), (array.size, 1, 1), (0,)]
            shape = shapes[rng.integers(len(shapes))]
            array = array.reshape(shape) if 0 not in shape else np.zeros(shape, array.dtype)
        case 7:
            with np.errstate(all="ignore"):
                array = array.astype(TYPES[rng.integers(len(TYPES))])
        case 8:
            array = other
    return array


def build(tensors, said, rng):
    """The file of these `tensors` and of a head that says so, with the right digest if possible."""
    head = {"format": 1 if rng.random() < 0.2 else 2, **said, "sha256": ""}
    if head["format"] == 1:
        del head["categories"]
        tensors = {n: t for n, t in tensors.items() if n not in ("missing", "samples")}
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        parsed = msgspec.convert(head, OldHead | FileHead)
        arrays = from_tensors(dict(tensors), parsed)
        head = msgspec.to_builtins(make_head(arrays, head["format"] == 1))
    if rng.random() < 0.02:
        head[str(rng.choice(list(head)))] = [None, 3, 1, "", -1, {}][rng.integers(6)]
    if rng.random() < 0.01:
        del head[str(rng.choice(list(head)))]
    if rng.random() < 0.01:
        tensors = tensors | {"more": np.zeros(1)}
    text = np.frombuffer(json.dumps(head).encode(), np.uint8)
    whole = {name: np.array(array, order="C") for name, array in tensors.items()}
    return safetensors.numpy.save({**whole, "head": text})


def rebuilt_file(rng, files):
    """A file with the right digest, of arrays that were changed or invented."""
    base, spare = (decode(files[place]) for place in rng.integers(len(files), size=2))
    base = invented(rng) if rng.random() < 0.3 else base
    tensors, others = as_tensors(base), as_tensors(spare)
    said = {
        "n_features": base.n_features,
        "classes": list(base.classes),
        "categories": [list(values) for values in base.categories],
    }
    for _ in range(rng.integers(4)):
        match rng.integers(9):
            case 0:
                said["n_features"] = FEATURES[rng.integers(len(FEATURES))]
                if rng.random() < 0.002:
                    said["n_features"] = 10**5
            case 1:
                said["classes"] = CLASSES[rng.integers(len(CLASSES))]
            case 2:
                said["categories"] = CATEGORIES[rng.integers(len(CATEGORIES))]
            case 3:
                name = str(rng.choice(list(others)))
                tensors[name] = others[name]
            case 4 if rng.random() < 0.3:
                del tensors[str(rng.choice(list(tensors)))]
            case _ if tensors:
                name = str(rng.choice(list(tensors)))
                tensors[name] = change_array(rng, tensors[name], others.get(name, np.zeros(2)))
    return build(tensors, said, rng)


def examine(forest, rng):
    """Ask a `forest` in every way, and raise `AssertionError` at a strange answer."""
    near = np.concatenate([forest.arrays.cuts, [0.0, HIGHEST, -HIGHEST, 1.0]])
    near = np.clip(np.concatenate([near, np.nextafter(near, np.inf)]), -HIGHEST, HIGHEST)
    rows = rng.choice(near, (20, forest.arrays.n_features))
    if forest.arrays.missing is not None:
        rows[rng.random(rows.shape) < 0.3] = np.nan
    many = forest.answers(rows)
    one = np.concatenate([forest.answers([row]) for row in rows[:3].tolist()])
    assert many.shape == (20, len(forest.classes) or 1)
    assert np.isfinite(many).all()
    assert one.tobytes() == many[:3].tobytes()
    if forest.task == "classes":
        assert (many >= 0).all()
        assert np.abs(many.sum(axis=1) - 1).max() < 1e-5
        assert forest.predict(rows).tolist() == forest.classes[many.argmax(axis=1)].tolist()
    else:
        assert forest.predict(rows).tobytes() == many.tobytes()
        spread = forest.spread(rows)
        assert np.isfinite(spread).all()
        assert (spread >= 0).all()
        assert forest.spread(rows[:1]).tobytes() == spread[:1].tobytes()
    assert (node_samples(forest.arrays, forest.batch.plan) >= 0).all() if has_samples(forest) else 1
    assert encode(decode(encode(forest.arrays))) == encode(forest.arrays)


def has_samples(forest):
    return forest.arrays.samples is not None


def open_one(kind, data, originals, rng):
    """True if the forest in `data` answers rightly, False if it is refused."""
    with (
        mock.patch("iris_serve.forest.leaves.ROWS_PER_CELL", [1 / 64, 1e-9][rng.integers(2)]),
        mock.patch("iris_serve.forest.leaves.MASK_BYTES", [1 << 25, 0][rng.integers(2)]),
        mock.patch("iris_serve.forest.SLICED_ROWS", [256, 1][rng.integers(2)]),
    ):
        try:
            forest = Forest(decode(data))
        except ForestError:
            return False
        if kind == "raw":
            old = not data.count(b'{"format":2')
            assert encode(forest.arrays, old=old) in originals
        examine(forest, rng)
    return True


def give_up(*_):
    raise TimeoutError(f"more than {PATIENCE} s")


def main(folder, kind, count, seed):
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, give_up)
    files = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    make, found, answered = {"raw": changed_file, "rebuilt": rebuilt_file}[kind], {}, 0
    for turn in range(count):
        rng = np.random.default_rng([seed, turn])
        data = make(rng, files)
        signal.alarm(PATIENCE)
        try:
            answered += open_one(kind, data, files, rng)
        except Exception as error:
            *_, where = frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if "iris_serve" in Path(frame.filename).parts]
            here = (ours or frames)[-1]
            place = f"{Path(here.filename).name}, {here.name}, line {here.lineno}: {here.line}"
            key = f"{type(error).__name__}: {str(error)[:150]} in {place} ({where.name})"
            found.setdefault((type(error), place), (turn, key, data))
        finally:
            signal.alarm(0)
    for turn, key, data in found.values():
        print(f"turn {turn} of seed {seed}: {key}\n  {base64.b64encode(data[:4000]).decode()}")
    print(json.dumps({"refused": count - answered, "answered": answered, "faults": len(found)}))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
