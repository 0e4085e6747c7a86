"""LitServe: a class with four methods, without batching, as its first pages say.

python on_litserve.py MODEL PORT
"""

import sys

import joblib
import litserve as ls


class Iris(ls.LitAPI):
    def setup(self, device):
        self.model = joblib.load(sys.argv[1])

    def decode_request(self, request):
        return request["input"]

    def predict(self, rows):
        return self.model.predict(rows)

    def encode_response(self, output):
        return {"output": output.tolist()}


if __name__ == "__main__":
    server = ls.LitServer(Iris(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
