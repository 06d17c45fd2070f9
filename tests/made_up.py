"""Made-up records, for the tests of what is judged and shown of them."""

from course_utils.lab import records
from course_utils.lab.recipes import RECIPES

HERE = {"device": "cpu", "name": "a processor", "threads": 2}


def record(name: str, seed: int, percent: float, curve=(), seconds=10.0, machine=None, **changes) -> dict:
    """A record as the recipe `name` would leave it; `changes` are entries of the record, or of its recipe."""
    curve = list(curve) or [0.1, 0.2, percent / 100]
    made = {
        "schema": records.SCHEMA,
        "recipe": RECIPES[name].plain(),
        "seed": seed,
        "data": {},
        "date": "2026-01-01",
        "machine": machine or HERE,
        "precision": "bfloat16",
        "parameters": 996_376,
        "history": {
            "validation_accuracy": curve,
            "train_accuracy": [0.5] * len(curve),
            "train_loss": [3.0] * len(curve),
            "validation_loss": [4 - (value or 0) for value in curve],
            "learning_rate": [0.1] * len(curve),
            "seconds": [1000.0] + [seconds] * (len(curve) - 1),  # a pause in the first epoch
        },
        "seconds": 1.0,
        "validation_accuracy": None,
        "test_accuracy": percent / 100,
        "weights": None,
    }
    of_record = {key: value for key, value in changes.items() if key in made}
    made["recipe"] |= {key: value for key, value in changes.items() if key not in made}
    return made | of_record


def write(name: str, *percents: float, first_seed: int = 0, **changes) -> None:
    """Write a record for each of `percents`; see `record`."""
    for seed, percent in enumerate(percents, first_seed):
        records.write(record(name, seed, percent, **changes), records.path_of(name, seed))
