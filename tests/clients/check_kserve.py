"""Compare documents with the types of kserve's and Kubernetes' clients.

These are generated from the published schemas: check_kserve.py < lists.json > mistakes.json
"""

import json
import re
import sys

import kserve
from kubernetes import client as kubernetes

KINDS = {
    "ClusterServingRuntime": kserve.V1alpha1ClusterServingRuntime,
    "InferenceService": kserve.V1beta1InferenceService,
}
PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float)}


def mistakes(value, kind, path):
    """What is wrong with `value`, which should be of the type that is called `kind`."""
    if nested := re.fullmatch(r"(?:list\[|dict\(str, |dict\[str, )(.*)[\])]", kind):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inside in pairs:
            yield from mistakes(inside, nested[1], f"{path}.{key}")
        return
    found = getattr(kserve, kind, None) or getattr(kubernetes, kind, None)
    if found is None:
        if kind in PLAIN and not isinstance(value, PLAIN[kind]):
            yield f"{path}: not {kind}"
        return
    if not hasattr(found, "openapi_types") or not isinstance(value, dict):
        return
    names = {json_name: name for name, json_name in found.attribute_map.items()}
    for key, inside in value.items():
        if key in names:
            yield from mistakes(inside, found.openapi_types[names[key]], f"{path}.{key}")
        else:
            yield f"{path}.{key}: unknown"
    for key in {"V1beta1ModelSpec": ["modelFormat"], "V1Container": ["name"]}.get(kind, []):
        if key not in value:
            yield f"{path}.{key}: required"


def lines(documents):
    """What is wrong with each of the `documents`."""
    for document in documents:
        yield from mistakes(document, KINDS[document["kind"]].__name__, document["kind"])


json.dump([list(lines(documents)) for documents in json.load(sys.stdin)], sys.stdout)
