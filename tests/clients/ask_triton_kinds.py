"""Ask a model with features of all kinds by tritonclient, knowing only its metadata.

ask_triton_kinds.py URL < question.json > results.json
"""

import json
import sys

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

question = json.load(sys.stdin)
model, columns = question["model"], question["columns"]
client = InferenceServerClient(sys.argv[1].removeprefix("http://"))
metadata = client.get_model_metadata(model)
OUTPUTS = [output["name"] for output in metadata["outputs"]]


def array_of(values, datatype):
    """The values as an array of the type that tritonclient wants; null is NaN."""
    return np.array(values, np.object_ if datatype == "BYTES" else triton_to_np_dtype(datatype))


def tensors(binary, shape=(-1,), **changes):
    """One tensor for each input that the metadata name, of the datatype that they name."""
    found = []
    for each in metadata["inputs"]:
        datatype, values = changes.get(each["name"], (each["datatype"], columns[each["name"]]))
        array = array_of(values, datatype).reshape(shape)
        found.append(InferInput(each["name"], list(array.shape), datatype))
        found[-1].set_data_from_numpy(array, binary_data=binary)
    return found


def infer(inputs, binary=True):
    """What the service answers, with each output as a flat list."""
    wanted = [InferRequestedOutput(name, binary_data=binary) for name in OUTPUTS]
    result = client.infer(model, inputs, outputs=wanted)
    found = {}
    for output in result.get_response()["outputs"]:
        values = result.as_numpy(output["name"]).ravel().tolist()
        texts = [value.decode() if isinstance(value, bytes) else value for value in values]
        found[output["name"]] = {"data": texts, "binary": "data" not in output}
        found[output["name"]]["datatype"] = output["datatype"]
    return found


def refusal(ask):
    try:
        return {"answered": ask()}
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}


def features():
    """All columns as one tensor, which a mixed model refuses."""
    array = np.zeros((1, len(columns)))
    table = InferInput("features", list(array.shape), "FP64")
    table.set_data_from_numpy(array)
    return [table]


others = {name: tuple(change) for name, change in question["others"].items()}
results = {
    "metadata": metadata,
    "answers": {
        f"{'binary' if given else 'JSON'} in, {'binary' if wanted else 'JSON'} out": infer(
            tensors(given), wanted
        )
        for given in (True, False)
        for wanted in (True, False)
    },
    "shape [n, 1]": infer(tensors(True, (-1, 1))),
    "other datatypes": infer(tensors(True, **others)),
    "other datatypes, JSON": infer(tensors(False, **others)),
    "a table": refusal(lambda: infer(features())),
    "None in BYTES": refusal(lambda: infer(tensors(True, port=("BYTES", [None] * 3)))),
    "after the errors": infer(tensors(True)),
}
client.close()
json.dump(results, sys.stdout)
