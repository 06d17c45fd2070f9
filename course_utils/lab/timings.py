"""How long the notebooks take: kept by `authoring.execute` in one small file, and shown to teachers as a table."""

import json
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

from course_utils import training
from course_utils.lab import machine, recipes, records, verdicts
from course_utils.lab.evidence import Html, row, table
from course_utils.lab.verdicts import NOT_RUN

FILE = records.RECORDED / "notebooks.json"
FIELDS = {"seconds": int, "date": str, "precision": str, "machine": dict}

TITLES = {
    "01_smallnet": "Session 1",
    "01_smallnet_solutions": "Session 1, the exercises solved",
    "02_resnet": "Session 2",
    "02_resnet_solutions": "Session 2, the exercises solved",
    "03_failures": "A gallery of failures",
}
# What a notebook trains in the full profile: a lesson's recipe, and how often; then the recorded runs, the likest
# first, whose pace it is reckoned at. The notebooks that are not here do the same in both profiles.
FULL = {
    "01_smallnet": ("smallnet", 3, ("smallnet-source",)),
    "02_resnet": ("resnet", 1, ("resnet-assignment", "resnet-fast")),
}


def read(path: Path = FILE) -> dict[str, dict[str, Any]]:
    """{notebook: seconds, date, precision, machine} as last executed; a ValueError if the file has anything else."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, entry in kept.items():
        found = {field: type(value) for field, value in entry.items()}
        if name not in TITLES or found != FIELDS:
            raise ValueError(
                f"{path}, {name}: expected a notebook in {list(TITLES)} with {FIELDS}, found {found}"
            )
    return kept


def keep(seconds: dict[str, float], path: Path = FILE) -> None:
    """Note what these notebooks took just now, on this machine; what is known of the others stays."""
    now = {
        "date": date.today().isoformat(),
        "precision": str(training.pick_precision(training.pick_device())).removeprefix("torch."),
        "machine": machine.describe(),
    }
    kept = read(path) | {name: {"seconds": round(taken), **now} for name, taken in seconds.items()}
    path.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n", encoding="utf-8")


def teachers_table() -> Html:
    """A row for each notebook: its seconds in the quick profile, its minutes in the full one, and the machines."""
    kept = read()
    rows = [row(title, quick(kept.get(name)), full(name)) for name, title in TITLES.items()]
    machines = dict.fromkeys(
        machine.in_words(entry["machine"], entry["precision"]) for entry in kept.values()
    )
    note = f"<p>Quick: measured on {'; '.join(machines)}.</p>" if machines else ""
    return Html(table(("Notebook", "Quick profile", "Full profile"), rows, "Time of the notebooks") + note)


def quick(entry: dict[str, Any] | None) -> str:
    return f"{entry['seconds']} s" if entry else NOT_RUN


def full(notebook: str) -> str:
    """The minutes that the full profile trains, at the pace of a recorded run."""
    if notebook not in FULL:
        return "the same"
    lesson, times, alike = FULL[notebook]
    epochs = times * lessons.LESSONS[lesson]["full"].epochs
    for name in alike:
        if recorded := records.by_machine(verdicts.runs_of(name)):
            where, here = next(iter(recorded.items()))  # the machine of the first seed
            pace = fmean(records.minutes(run) / len(run["history"]["seconds"]) for run in here)
            return (
                f"{epochs * pace:.0f} min of training<br>"
                f"<small>{epochs} epochs at the pace of <code>{name}</code> ({where})</small>"
            )
    return NOT_RUN
