"""Read replies of a service by the types of two other servers: read_replies.py < replies.json

The replies are a list of [name of a type, JSON as text]; what is wrong with each is written as a
list of texts, empty for a reply that is right.
"""

import importlib
import json
import sys
from importlib.util import find_spec
from types import ModuleType

from kserve.protocol.rest import v2_datamodels
from pydantic import TypeAdapter, ValidationError

# The whole of mlserver cannot be imported here, because its web framework is not installed.
package = ModuleType("mlserver")
package.__path__ = find_spec("mlserver").submodule_search_locations
sys.modules["mlserver"] = package
types = importlib.import_module("mlserver.types")

READERS = {
    "server": [types.MetadataServerResponse, v2_datamodels.ServerMetadataResponse],
    "model": [types.MetadataModelResponse, v2_datamodels.ModelMetadataResponse],
    "model ready": [v2_datamodels.ModelReadyResponse],
    "models": [v2_datamodels.ListModelsResponse],
    "live": [v2_datamodels.ServerLiveResponse],
    "ready": [v2_datamodels.ServerReadyResponse],
    "inference": [types.InferenceResponse, v2_datamodels.InferenceResponse],
    "index": [types.RepositoryIndexResponse],
    "error": [types.InferenceErrorResponse],
}
FREE = {"live", "ready", "error"}  # what else these say is for other readers


def issues(kind, text):
    """What is wrong with one reply: it is not of its type, or the type knows another value."""
    for reader in READERS[kind]:
        try:
            read = TypeAdapter(reader).validate_json(text)
        except ValidationError as error:
            yield f"{reader.__module__}: {error}"
            continue
        known, sent = read.model_dump(exclude_unset=True), json.loads(text)
        if kind in FREE:
            sent = {name: sent.get(name) for name in reader.model_fields}
        if known != sent:
            yield f"{reader.__module__}: it reads {known} from {sent}"


json.dump([list(issues(*one)) for one in json.load(sys.stdin)], sys.stdout)
