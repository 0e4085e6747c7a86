"""Flask's hello world on the server of the service.

It imports NumPy, as the service does, so that the starts can be compared.

python flask_hello.py MODEL PORT
"""

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import numpy  # noqa: F401
from constant import run
from flask import Flask


def make() -> Flask:
    """An application that says the same to everybody."""
    app = Flask("hello")

    @app.post("/predict")
    def predict() -> dict[str, Any]:
        return {"prediction": 1}

    return app


if __name__ == "__main__":
    run(make, int(sys.argv[2]))
