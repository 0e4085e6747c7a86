"""Ask a service by tritonclient: ask_triton.py URL < question.json > results.json"""

import json
import sys

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

OUTPUTS = ("label", "probabilities")
question = json.load(sys.stdin)
model, version = question["model"], question["version"]
rows = np.array(question["rows"], dtype=np.float64)
client = InferenceServerClient(sys.argv[1].removeprefix("http://"))


def tensor(values, binary=True, name="features", datatype="FP64"):
    given = InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def to_json(array):
    """The values of an output; tritonclient gives texts as bytes or as text, as they came."""
    return [text.decode() if isinstance(text, bytes) else text for text in array.ravel().tolist()]


def infer(inputs, **options):
    """What the service answers, each output flat, with its shape."""
    result = client.infer(model, inputs, **options)
    said = result.get_response()
    found = {"model": said["model_name"], "version": said["model_version"], "id": said.get("id")}
    for output in said["outputs"]:
        array = result.as_numpy(output["name"])
        found[output["name"]] = {"shape": list(array.shape), "data": to_json(array)}
        found[output["name"]]["binary"] = "data" not in output
    return found


def refusal(ask):
    try:
        return {"answered": ask()}
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}


def requested(binary):
    return [InferRequestedOutput(name, binary_data=binary) for name in OUTPUTS]


def classes(binary):
    return [InferRequestedOutput("probabilities", binary_data=binary, class_count=2)]


columns = [tensor(rows[:, i].copy(), name=name) for i, name in enumerate(question["features"])]
results = {
    "live": client.is_server_live(),
    "ready": client.is_server_ready(),
    "model ready": client.is_model_ready(model),
    "version ready": client.is_model_ready(model, version),
    "other model ready": client.is_model_ready("nobody"),
    "other version ready": client.is_model_ready(model, "999"),
    "server": client.get_server_metadata(),
    "metadata": client.get_model_metadata(model),
    "metadata of version": client.get_model_metadata(model, version),
    "index": client.get_model_repository_index(),
    "answers": {
        "default": infer([tensor(rows)]),
        "default, version named": infer([tensor(rows)], model_version=version),
        "binary in, JSON out": infer([tensor(rows)], outputs=requested(False)),
        "JSON in, binary out": infer([tensor(rows, False)], outputs=requested(True)),
        "JSON in, JSON out": infer([tensor(rows, False)], outputs=requested(False)),
        "gzip": infer([tensor(rows)], request_compression_algorithm="gzip"),
        "deflate": infer([tensor(rows)], request_compression_algorithm="deflate"),
        "gzip, JSON": infer([tensor(rows, False)], request_compression_algorithm="gzip"),
        "gzip back": infer([tensor(rows)], response_compression_algorithm="gzip"),
        "deflate back": infer([tensor(rows)], response_compression_algorithm="deflate"),
        "a tensor for each feature": infer(columns[::-1]),
    },
    "single": infer([tensor(rows.astype(np.float32), datatype="FP32")]),
    "id": infer([tensor(rows)], request_id="4711 ü")["id"],
    "classes": infer([tensor(rows)], outputs=classes(True)),
    "classes in JSON": infer([tensor(rows)], outputs=classes(False)),
    "wrong shape": refusal(lambda: infer([tensor(rows[:, :-1].copy())])),
    "wrong model": refusal(lambda: client.infer("nobody", [tensor(rows)])),
    "wrong version": refusal(lambda: infer([tensor(rows)], model_version="999")),
    "after the errors": infer([tensor(rows)]),
}
client.close()
json.dump(results, sys.stdout)
