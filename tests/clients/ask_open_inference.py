"""Ask a service by a generated client: ask_open_inference.py URL < question.json > results.json"""

import json
import sys

from open_inference.openapi import InferenceRequest, RequestInput, RequestOutput
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.core.api_error import ApiError

question = json.load(sys.stdin)
model, version, rows = question["model"], question["version"], question["rows"]
client = OpenInferenceClient(base_url=sys.argv[1])


def request(values, datatype="FP64", **options):
    shape = [len(values), len(values[0])]
    data = [number for row in values for number in row]
    given = RequestInput(name="features", shape=shape, datatype=datatype, data=data)
    return InferenceRequest(inputs=[given], **options)


def to_json(answer):
    found = {"model": answer.model_name, "version": answer.model_version, "id": answer.id}
    for output in answer.outputs:
        found[output.name] = {"shape": output.shape, "data": output.data.__root__}
    return found


def refusal(ask, *words, **named):
    """The refusal of a question, by the class that the client has for it."""
    try:
        return {"answered": str(ask(*words, **named))}
    except ApiError as error:
        kind = type(error).__name__
        return {"kind": kind, "status": error.status_code, "message": error.body["error"]}


whole = [[round(number) for number in row] for row in rows]
named = request(rows, id="4711 ü", outputs=[RequestOutput(name="label")])
results = {
    "health": [
        client.check_server_liveness(),
        client.check_server_readiness(),
        client.check_model_readiness(model),
        client.check_model_version_readiness(model, version),
    ],
    "server": client.read_server_metadata().dict(),
    "metadata": client.read_model_metadata(model).dict(),
    "metadata of version": client.read_model_version_metadata(model, version).dict(),
    "answers": {
        "default": to_json(client.model_infer(model, request=request(rows))),
        "version": to_json(client.model_version_infer(model, version, request=request(rows))),
    },
    "whole": {
        "values": whole,
        "answer": to_json(client.model_infer(model, request=request(whole, "INT64"))),
    },
    "id and label": to_json(client.model_infer(model, request=named)),
    "wrong shape": refusal(client.model_infer, model, request=request([row[:-1] for row in rows])),
    "wrong model": refusal(client.model_infer, "nobody", request=request(rows)),
    "wrong model ready": refusal(client.check_model_readiness, "nobody"),
    "wrong version ready": refusal(client.check_model_version_readiness, model, "999"),
    "after the errors": to_json(client.model_infer(model, request=request(rows))),
}
json.dump(results, sys.stdout)
