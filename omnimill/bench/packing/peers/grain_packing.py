"""grain's first-fit packing as a program of its own: no part of omnimill is imported here.

Called with JSON on the command line: a file of costs (int64 [budgets, n], .npy), the budgets, and the number of bins.
It prints, as JSON, the sequences that were emitted and the seconds of processor time.
"""

from __future__ import annotations

import json
import sys
import time

import grain
import numpy as np
from grain.experimental import FirstFitPackIterDataset


def main() -> None:
    settings = json.loads(sys.argv[1])
    costs = np.load(settings["costs"])
    names = [f"budget_{number}" for number in range(len(costs))]
    longest = np.zeros(int(costs.max()), np.int32)
    examples = [{name: longest[:cost] for name, cost in zip(names, own, strict=True)} for own in costs.T.tolist()]
    dataset = FirstFitPackIterDataset(
        grain.MapDataset.source(examples).to_iter_dataset(grain.ReadOptions(num_threads=0)),
        length_struct=dict(zip(names, settings["limits"], strict=True)),
        num_packing_bins=settings["bins"],
        shuffle_bins=False,
    )
    started = time.process_time()
    sequences = sum(1 for _ in dataset)
    print(json.dumps({"sequences": sequences, "seconds": time.process_time() - started}))


if __name__ == "__main__":
    main()
