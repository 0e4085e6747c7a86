"""MLServer with its scikit-learn runtime: two files of settings, and no code.

`parallel_workers` is 0: the model is asked in the process of the server.

python on_mlserver.py MODEL          write the settings into this directory
python on_mlserver.py MODEL PORT     serve
"""

import json
import os
import socket
import sys
from pathlib import Path


def free_port() -> int:
    """A port on the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


MODEL = {
    "name": "iris",
    "implementation": "mlserver_sklearn.SKLearnModel",
    "parameters": {"uri": "./model.joblib", "version": "1"},
}
SERVER = {"debug": False, "host": "127.0.0.1", "parallel_workers": 0}

if len(sys.argv) == 2:
    Path("model.joblib").write_bytes(Path(sys.argv[1]).read_bytes())
    Path("model-settings.json").write_text(json.dumps(MODEL))
else:
    ports = {"http_port": int(sys.argv[2])}
    ports |= {name: free_port() for name in ("grpc_port", "metrics_port")}
    Path("settings.json").write_text(json.dumps(SERVER | ports))
    program = Path(sys.executable).with_name("mlserver")
    os.execv(program, [str(program), "start", "."])  # noqa: S606
