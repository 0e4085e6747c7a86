"""Ask a service by kserve's client: ask_kserve.py URL v1|v2 < question.json > results.json"""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

question = json.load(sys.stdin)
(url, protocol), model = sys.argv[1:], question["model"]
rows = np.array(question["rows"], dtype=np.float64)
OUTPUTS = ("label", "probabilities")


def request(values, binary=None, **options):
    """Values as kserve's examples give them, lists; or set from an array, binary or not."""
    given = InferInput("features", list(values.shape), "FP64")
    if binary is None:
        given.data = values.tolist()
    else:
        given.set_data_from_numpy(values, binary_data=binary)
    return InferRequest(model, [given], **options)


def requested(binary):
    return [RequestedOutput(name, {"binary_data": binary}) for name in OUTPUTS]


def to_json(array):
    return [text.decode() if isinstance(text, bytes) else text for text in array.ravel().tolist()]


async def refusal(asked):
    try:
        return {"answered": str(await asked)}
    except httpx.HTTPStatusError as error:
        return {"status": error.response.status_code, "message": str(error)}


async def second_protocol(client):

    async def infer(asked):
        headers = {}
        answer = await client.infer(url, asked, model_name=model, response_headers=headers)
        found = {"model": answer.model_name, "id": [asked.id, answer.id]}
        for output in answer.outputs:
            array = output.as_numpy()
            found[output.name] = {"shape": list(array.shape), "data": to_json(array)}
            found[output.name]["binary"] = "inference-header-content-length" in headers
        return found

    return {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model ready": await client.is_model_ready(url, model),
        "other model ready": await client.is_model_ready(url, "nobody"),
        "answers": {
            "lists": await infer(request(rows)),
            "flat": await infer(request(rows, binary=False)),
            "binary in": await infer(request(rows, binary=True)),
            "binary in and out": await infer(
                request(rows, True, parameters={"binary_data_output": True})
            ),
            "lists in, binary out": await infer(request(rows, request_outputs=requested(True))),
            "binary in, JSON out": await infer(
                request(rows, True, request_outputs=requested(False))
            ),
            "an id": await infer(request(rows, request_id="4711 ü")),
        },
        "wrong shape": await refusal(client.infer(url, request(rows[:, :-1]), model_name=model)),
        "wrong model": await refusal(client.infer(url, request(rows), model_name="nobody")),
        "after the errors": await infer(request(rows)),
    }


async def first_protocol(client):
    wrong = {"instances": rows[:, :-1].tolist()}
    return {
        "predictions": await client.infer(url, {"instances": rows.tolist()}, model_name=model),
        "model ready": await client.is_model_ready(url, model),
        "wrong shape": await refusal(client.infer(url, wrong, model_name=model)),
    }


async def main():
    client = InferenceRESTClient(RESTConfig(protocol=protocol))
    return await {"v1": first_protocol, "v2": second_protocol}[protocol](client)


json.dump(asyncio.run(main()), sys.stdout)
