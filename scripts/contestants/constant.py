"""The server of the service with a constant reply: what is left if nothing is asked.

python constant.py MODEL PORT      BENCHMARK_SERVER holds the server's settings, as JSON
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces

BODY = b'{"prediction":1}'
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer without looking at the question."""
    start_response("200 OK", HEADERS)
    return [BODY]


def run(target: Callable[[], Any], port: int) -> None:
    """Serve what `target` returns, as the service is served."""
    options: dict[str, Any] = json.loads(os.environ["BENCHMARK_SERVER"])
    server = Granian(
        "contestant",
        address="127.0.0.1",
        port=port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        **options,
    )
    server.serve(target_loader=target, wrap_loader=False)


if __name__ == "__main__":
    run(lambda: application, int(sys.argv[2]))
