"""BentoML: a class with an API, without batching, as its first pages say.

python on_bentoml.py MODEL PORT
"""

import os
import sys
from pathlib import Path

SERVICE = """
import bentoml
import joblib

@bentoml.service(workers=1)
class Iris:
    def __init__(self) -> None:
        self.model = joblib.load({model!r})

    @bentoml.api
    def predict(self, features: list[list[float]]) -> list[int]:
        return self.model.predict(features).tolist()
"""

if __name__ == "__main__":
    Path("service.py").write_text(SERVICE.format(model=sys.argv[1]))
    program = Path(sys.executable).with_name("bentoml")
    where = ["--host", "127.0.0.1", "--port", sys.argv[2]]
    os.execv(program, [str(program), "serve", "service:Iris", *where])  # noqa: S606
