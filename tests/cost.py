"""What a call costs the processor, as quietly measured as a shared machine allows."""

import gc
import time


def least_cost(call, tries=3):
    """The least processor time of this thread, in seconds, that `call` took, and its answer.

    A quadratic reading is slow each time; a machine with other work to do is not.
    """
    costs = []
    for _ in range(tries):
        gc.collect()
        began = time.thread_time()
        answer = call()
        costs.append(time.thread_time() - began)
    return min(costs), answer
