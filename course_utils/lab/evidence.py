"""What the book's pages show: verdict boxes, tables and figures made from the records, for a cell's last line.

Everything here works with no records, some or all of them: what was not run says so. Tables are
`Html`, which a notebook draws; figures come closed, so that a notebook draws them once.
"""

import functools
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping
from html import escape
from statistics import fmean, stdev

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils import plots
from course_utils.lab import machine, published, recipes, records, verdicts
from course_utils.lab.claims import CLAIMS, Claim
from course_utils.lessons import Recipe
from course_utils.lab.verdicts import NOT_RUN, Part, runs_of

NBSP = "\u00a0"  # a space at which no line breaks
MINUS = "\u2212"  # as wide as a plus, and not taken for a hyphen


class Html(str):
    """Text that a notebook shows as HTML."""

    def _repr_html_(self) -> str:
        return str(self)


# ---- one number ----


def accuracy(name: str) -> str:
    """Test accuracy of a recipe as text: "51.00 ± 0.30 % (3 seeds)", or "not run yet"."""
    return spread(verdicts.percents(name)) or NOT_RUN


def spread(percents: list[float]) -> str:
    """Mean ± standard deviation over seeds; the latter only where there are two or more."""
    if not percents:
        return ""
    width = f" ± {stdev(percents):.2f}" if len(percents) > 1 else ""
    seeds = f"{len(percents)} seeds" if len(percents) > 1 else "1 seed"
    return f"{fmean(percents):.2f}{width}{NBSP}% ({seeds})"


def minutes(name: str) -> str:
    """Minutes that a run takes, as a mean over the recipe's runs; for each machine, if there are several."""
    paces = [fmean(map(records.minutes, runs)) for runs in records.by_machine(runs_of(name)).values()]
    return " and ".join(f"{pace:.1f}" for pace in paces) + " min" if paces else ""


# ---- verdicts ----

PART_HEAD = ("What is compared", "The source", "Here")


def measured(part: Part) -> str:
    """What was measured of a part: its value, interval and basis, or "not run yet"."""
    found = part.quantity.estimate()
    return f"{value(part)} ({found.basis})" if found else NOT_RUN


def value(part: Part) -> str:
    """What was measured of a part, with an interval unless a single run has none."""
    found, unit = part.quantity.estimate(), part.quantity.unit
    if math.isinf(found.value):  # a first epoch that a run never comes to
        return "never" if math.isinf(found.low) else f"not in every run, first at {number(found.low, unit)}"
    text = f"{number(found.value, unit)}{NBSP}{unit}".strip()
    if found.low < found.high and found.basis != verdicts.SINGLE_RUN:
        text += f", {number(found.low, unit)} to {number(found.high, unit)}"
    return text


def number(value: float, unit: str) -> str:
    return (f"{value:+.1f}" if unit == "points" else f"{value:.3g}").replace("-", MINUS)


def span(part: Part) -> str:
    """The range in which a part holds, in words."""
    unit = part.quantity.unit
    low, high = number(part.low, unit), number(part.high, unit)
    if math.isinf(part.high):
        return f"{low} {unit} or more"
    if math.isinf(part.low) or (part.low <= 0 and part.quantity.neutral == 1):
        return f"{high} {unit} or less"
    return f"{low} to {high} {unit}".strip()


def part_row(part: Part) -> str:
    verdict = part.judge()
    show = run_and_accuracy if part.quantity.unit in ("%", "points") else "<code>{}</code>".format
    made_by = "<br>".join(map(show, part.quantity.recipes)) or "the speed table"
    here = f"<strong>{verdict.word}</strong>"
    if verdict.word != NOT_RUN:
        here += f"<br>{escape(measured(part))}<br><small>{verdict.reason}</small>"
    says = f"{escape(part.says)}<br><small>{made_by}</small>"
    return row(says, f"{unbroken(part.figure)}<br><small>holds at {span(part)}</small>", here)


def unbroken(words: str) -> str:
    """`words` as HTML, in which no line breaks between a number and its per cent sign."""
    return escape(words).replace(" %", f"{NBSP}%")


def run_and_accuracy(name: str) -> str:
    return f"<code>{name}</code> {spread(verdicts.percents(name))}".strip()


def claim(*ids: str) -> Html:
    """A box for each claim: what the source says, what was measured, and the verdict. For pages one folder down."""
    return Html("".join(box(CLAIMS[one]) for one in ids))


def box(one: Claim) -> str:
    """A claim and a line for each part; the ranges, the runs and the reasons are folded away below them."""
    parts = "".join(map(part_line, one.parts))
    untested = f"<p>Not tested: {escape(one.untested)}</p>" if one.untested else ""
    details = table(PART_HEAD, map(part_row, one.parts), f"Claim {one.id}")
    ledger = f'<a href="../claims.html#{one.id.lower()}">All claims, and the rule behind the verdicts</a>'
    return (
        f'<div class="admonition note"><p class="admonition-title">Claim {one.id}: {one.headline()}</p>'
        f"<p>{escape(one.says)}</p><ul>{parts}</ul>{untested}"
        f"<details><summary>Ranges, runs and reasons</summary>{details}<p>{ledger}</p></details></div>"
    )


def part_line(part: Part) -> str:
    word = part.judge().word
    here = "" if word == NOT_RUN else f"; here: {escape(value(part))}"
    return f"<li>{escape(part.says)} (source: {unbroken(part.figure)}{here}): <strong>{word}</strong></li>"


def ledger() -> Html:
    """Every claim with its verdict, and below it a row for each of its parts. For a page in book/ itself."""
    rows = [row for one in CLAIMS.values() for row in (claim_row(one), *map(part_row, one.parts))]
    return Html(table(PART_HEAD, rows, "All claims"))


def claim_row(one: Claim) -> str:
    untested = f"<br><small>Not tested: {escape(one.untested)}</small>" if one.untested else ""
    return (
        f'<tr><th colspan="{len(PART_HEAD)}" scope="rowgroup" id="{one.id.lower()}">{one.id}: {one.headline()}'
        f'<br><span style="font-weight: normal">{escape(one.says)} '
        f'<a href="{one.page}.html">Discussion of {one.id}</a>{untested}</span></th></tr>'
    )


def tally() -> Html:
    """How many claims there are of each verdict, how many parts, and for how many of those the runs cannot tell."""
    words = [one.verdict() for one in CLAIMS.values()]
    parts = [part.judge() for one in CLAIMS.values() for part in one.parts]
    rows = []
    for kind in (verdicts.CONFIRMED, verdicts.QUALIFIED, verdicts.REFUTED, NOT_RUN):
        of_kind = [part for part in parts if part.word == kind]
        open_still = sum(part.reason == verdicts.CANNOT_TELL for part in of_kind)
        note = f" ({open_still} because the runs cannot tell)" if open_still else ""
        rows.append(row(kind, words.count(kind), f"{len(of_kind)}{note}"))
    return Html(table(("Verdict", "Claims", "Their parts"), rows, "Claims by verdict"))


# ---- tables ----

BUDGET = 1_000_000  # weights, Session 1's
RUN_HEAD = ("Run", "Test accuracy", "Weights", "Time")


def table(head: Iterable[str], rows: Iterable[str], name: str) -> str:
    """An HTML table that scrolls in its own frame where the page is narrow."""
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    return (
        f'<div class="pst-scrollable-table-container" tabindex="0" role="region" aria-label="{escape(name)}">'
        f'<table class="table"><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def row(*cells: object) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def runs(names: Mapping[str, str]) -> Html:
    """A row for each of `{label: recipe}`: test accuracy over seeds, weights, time on each machine."""
    several = any(len(records.by_machine(runs_of(name))) > 1 for name in names.values())
    note = "<p>Where a row has two times, they are those of two computers, which the leaderboard names.</p>"
    found = table(RUN_HEAD, [run_row(label, name) for label, name in names.items()], "Runs")
    return Html(found + (note if several else ""))


def run_row(label: str, name: str, more: str = "") -> str:
    recorded = runs_of(name)
    weights = f"{recorded[0]['parameters']:,}" if recorded else NOT_RUN
    title = f"{escape(label)}<br>" if label else ""
    below = f"<br><small>{more}</small>" if more else ""
    time = ", ".join(filter(None, [f"{recipes.get(name).epochs} epochs", minutes(name)]))
    return row(f"{title}<code>{name}</code>{below}", accuracy(name), weights, time)


def leaderboard(data: str) -> Html:
    """Runs on `data` ("cifar10" or "cifar100") by accuracy, headlines first where not run, then others' results."""
    ours = sorted(competing(data), key=lambda recipe: -fmean(verdicts.percents(recipe.name) or [math.inf]))
    machines = list(
        dict.fromkeys(where for recipe in ours for where in records.by_machine(runs_of(recipe.name)))
    )
    rows = [run_row("", recipe.name, made_on(recipe.name, machines)) for recipe in ours]
    others = [one for one in published.SOURCES + published.REFERENCES if one.data == data]
    for one in sorted(others, key=lambda one: -one.percent):
        weights = f"{one.weights:,}" if one.weights else "not stated"
        rows.append(row(f"{one.name}<br><small>published</small>", f"{one.percent:.2f} %", weights, one.cost))
    notes = "".join(f"<p>Machine {k}: {escape(where)}</p>" for k, where in enumerate(machines, 1))
    return Html(table(RUN_HEAD, rows, f"Leaderboard on {data}") + notes)


def competing(data: str) -> list[Recipe]:
    """The recipes on `data` that belong on its board: those recorded, and the headlines even if they are not.

    Session 1's budget holds on CIFAR-100, and nobody starts from weights that were trained elsewhere.
    """
    return [
        recipe
        for recipe in recipes.RECIPES.values()
        if recipe.data == data
        and recipe.epochs
        and recipe.network != "TransferNet"
        and (verdicts.percents(recipe.name) or recipe in recipes.HEADLINES)
        and (data != "cifar100" or all(run["parameters"] <= BUDGET for run in runs_of(recipe.name)))
    ]


def made_on(name: str, machines: list[str]) -> str:
    """The machines that a recipe ran on, by their numbers, with the date of the last run on each."""
    found = records.by_machine(runs_of(name)).items()
    return "<br>".join(f"machine {machines.index(where) + 1}, {runs[-1]['date']}" for where, runs in found)


def bench() -> Html:
    """The recorded speed table with its machine, or the word that there is none."""
    recorded = verdicts.bench_table()
    if not recorded:
        return Html(f"<p>Speed table: <strong>{NOT_RUN}</strong>.</p>")
    rows = [
        row(escape(one["what"]), escape(one["bound"]), f"{one['value']:#.4g}") for one in recorded["rows"]
    ]
    note = f"{machine.in_words(recorded['machine'], recorded['precision'])}, torch {recorded['machine']['torch']}"
    return Html(table(("What", "Bound", "Measured"), rows, "Speed table") + f"<p>{escape(note)}</p>")


# ---- figures ----


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in the course's style, and close the figure: what a cell ends with, a notebook draws anyway."""

    @functools.wraps(draw)
    def closed(*args, **kwargs) -> Figure:
        plt.draw_if_interactive()  # loads the backend, which must not happen inside the context
        with plt.style.context(["default", plots.STYLE]):
            figure = draw(*args, **kwargs)
        plt.close(figure)
        return figure

    return closed


@styled
def accuracies(names: Mapping[str, str], mark: tuple[str, float] | None = None, title: str = "") -> Figure:
    """A row for each of `{label: recipe}`: a dot a run, a bar at their mean; `mark` is (label, %), a vertical."""
    figure, axes = plt.subplots(figsize=(plots.WIDTH, 1.3 + 0.46 * len(names)), layout="constrained")
    draw_accuracies(axes, names, mark)
    figure.suptitle(title)
    return figure


def draw_accuracies(axes: Axes, names: Mapping[str, str], mark: tuple[str, float] | None) -> None:
    across = axes.get_yaxis_transform()
    clear = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # of the marked vertical
    for height, name in enumerate(names.values()):
        percents = verdicts.percents(name)
        if not percents:
            axes.text(0.02, height, NOT_RUN, transform=across, va="center", color="0.35", bbox=clear)
            continue
        axes.plot(percents, [height] * len(percents), "o", color=plots.BLUE, alpha=0.6, markersize=6)
        axes.plot(fmean(percents), height, "|", color="black", markersize=18, markeredgewidth=2)
        beside = {"xytext": (8, 0), "textcoords": "offset points", "va": "center", "bbox": clear}
        axes.annotate(f"{fmean(percents):.1f}", (max(percents), height), **beside)
    if mark:
        axes.axvline(mark[1], color=plots.VERMILION, linestyle="--", label=f"{mark[0]}: {mark[1]:g} %")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
    axes.set_yticks(range(len(names)), [textwrap.fill(label, 16) for label in names])
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel="test accuracy (%)")
    axes.locator_params(axis="x", nbins=5)
    if mark or any(verdicts.percents(name) for name in names.values()):
        axes.margins(x=0.15)
        widen(axes)
    else:
        axes.set(xlim=(0, 100))


LEAST_SPAN = 4  # points across a figure of accuracies: on a narrower one chance looks like an effect


def widen(axes: Axes) -> None:
    """Make the x axis at least `LEAST_SPAN` wide, around what it shows."""
    low, high = axes.get_xlim()
    more = max(0, LEAST_SPAN - (high - low)) / 2
    axes.set_xlim(low - more, high + more)


SESSIONS = {
    "cifar100": {
        "the project's plan": "smallnet-source",
        "another plan": "smallnet-best",
        "another network": "budgetnet",
    },
    "cifar10": {
        "as assigned": "resnet-assignment",
        "with weight decay": "resnet-assignment-decay-0.01",
        "7 epochs": "resnet-fast",
        "another plan": "resnet-best",
    },
}


@styled
def headlines() -> Figure:
    """Both sessions at a glance: the headline recipes that were run, beside the project's own result."""
    shown = {
        data: {label: name for label, name in names.items() if verdicts.percents(name)} or names
        for data, names in SESSIONS.items()
    }
    rows = [1.6 + len(names) for names in shown.values()]
    figure, panels = plt.subplots(
        2, 1, figsize=(plots.WIDTH, 0.6 + 0.46 * sum(rows)), height_ratios=rows, layout="constrained"
    )
    projects = {one.data: one.percent for one in published.SOURCES}
    for session, axes, (data, names) in zip((1, 2), panels, shown.items(), strict=True):
        draw_accuracies(axes, names, ("the project", projects[data]))
        axes.set_title(f"Session {session}: {data.upper().replace('R', 'R-')}", pad=26, weight="bold")
    panels[0].set_xlabel("")
    figure.get_layout_engine().set(h_pad=0.12)  # inches: a title belongs to the panel below it
    return figure


def curves(names: Mapping[str, str], quantity: str = "validation_accuracy", title: str = "") -> Figure | Html:
    """A line for each of `{label: recipe}`, the mean over its seeds, which are thin lines behind it.

    A note says where none is recorded.

    A recipe that holds nothing out has no validation curve: it is left out like one that was not run.
    """
    histories = {label: records.mean_history(runs_of(name)) for label, name in names.items() if runs_of(name)}
    found = {label: run for label, run in histories.items() if not np.isnan(getattr(run, quantity)).any()}
    missing = [label for label in names if label not in found]
    if not found:
        return Html(f"<p>Curves: <strong>{NOT_RUN}</strong> ({escape(', '.join(names.values()))}).</p>")
    note = f"\n{NOT_RUN}: {', '.join(missing)}" if missing else ""
    figure = plots.compare_histories(found, quantity, title + note)
    draw_seeds(figure.axes[0], names, quantity)
    plt.close(figure)
    return figure


def draw_seeds(axes: Axes, names: Mapping[str, str], quantity: str) -> None:
    """A thin line for each run behind a mean of several: a mean may be like none of them."""
    _, factor = plots.QUANTITIES[quantity]
    means = {line.get_label(): line for line in axes.lines if line.get_label() in names}
    for label, mean in means.items():
        seeds = [factor * np.array(run["history"][quantity]) for run in runs_of(names[label])]
        for values in seeds if len(seeds) > 1 else []:
            thin = {"color": mean.get_color(), "linestyle": "-", "linewidth": 0.8, "alpha": 0.5, "zorder": 1}
            axes.plot(np.arange(1, len(values) + 1), values, **thin)


def range_test(name: str) -> Figure | Html:
    """The first recorded range test of a recipe, its suggestion marked."""
    recorded = runs_of(name)
    if not recorded:
        return Html(f"<p>Range test: <strong>{NOT_RUN}</strong> (<code>{name}</code>).</p>")
    history = recorded[0]["history"]
    suggested = verdicts.suggestion(recorded[0])
    figure = plots.range_test(history["learning_rate"], history["train_loss"], suggested)
    plt.close(figure)
    return figure


@styled
def against_published(names: Mapping[str, str]) -> Figure:
    """Session 2's published test curve, and those recorded of `{label: recipe}` beside it, drawn as in `curves`."""
    figure, axes = plt.subplots(figsize=(plots.WIDTH, 4), layout="constrained")
    axes.plot(range(1, 25), published.RESNET_CURVE, "--", color="0.35", label="published")
    for (label, name), colour in zip(names.items(), plots.COLOURS, strict=False):
        if runs_of(name):
            ours = records.mean_history(runs_of(name)).validation_accuracy
            axes.plot(range(1, len(ours) + 1), 100 * ours, color=colour, label=label)
        else:
            axes.plot([], [], color=colour, label=f"{label}: {NOT_RUN}")
    axes.axhline(90, color="black", linewidth=1, linestyle=":", label="the bar")
    draw_seeds(axes, names, "validation_accuracy")
    axes.set(xlabel="epoch", ylabel="test accuracy (%)", xticks=[1, 6, 12, 18, 24])
    axes.legend(loc="lower right")
    return figure


@styled
def landscape(data: str, title: str = "") -> Figure:
    """Accuracy against number of weights: recorded headlines, the sources, and published references by name."""
    figure, axes = plt.subplots(figsize=(plots.WIDTH, 4.8), layout="constrained")
    others = [one for one in published.REFERENCES if one.data == data and one.weights]
    for k, one in enumerate(sorted(others, key=lambda one: one.percent)):
        name_point(
            axes, one.name, one.weights / 1e6, one.percent, "^", "0.35", "below left" if k % 2 else "above"
        )
    for one in published.SOURCES:
        if one.data == data:
            name_point(axes, one.name, one.weights / 1e6, one.percent, "s", plots.VERMILION, "below")
    ours = recorded_headlines(data)
    for name in ours:
        weights = runs_of(name)[0]["parameters"] / 1e6
        name_point(axes, name, weights, fmean(verdicts.percents(name)), "o", plots.BLUE, "right")
    note = "" if ours else f"\nour own: {NOT_RUN}"
    axes.set(xlabel="weights (millions)", ylabel="test accuracy (%)", title=title + note)
    axes.margins(x=0.4, y=0.15)
    return figure


@styled
def pace(data: str, title: str = "") -> Figure:
    """Accuracy against minutes of training: recorded headlines, and the references that state a time."""
    figure, axes = plt.subplots(figsize=(plots.WIDTH, 4.2), layout="constrained")
    for one in published.REFERENCES:
        if one.data == data and one.minutes:
            name_point(axes, one.name, one.minutes, one.percent, "^", "0.35", "above")
    ours = recorded_headlines(data)
    for name in ours:
        here = next(iter(records.by_machine(runs_of(name)).values()))  # the machine of the first seed
        minutes = fmean(map(records.minutes, here))
        name_point(axes, name, minutes, fmean(verdicts.percents(name)), "o", plots.BLUE, "below")
    note = "" if ours else f"\nour own: {NOT_RUN}"
    axes.set(xscale="log", xlabel="minutes of training", ylabel="test accuracy (%)", title=title + note)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.2, y=0.15)
    return figure


def recorded_headlines(data: str) -> list[str]:
    headlines = [recipe.name for recipe in recipes.HEADLINES if recipe.data == data]
    return [name for name in headlines if verdicts.percents(name)]


PLACES = {
    "above": {"xytext": (0, 7), "ha": "center"},
    "below": {"xytext": (0, -15), "ha": "center"},
    "below left": {"xytext": (6, -15), "ha": "right"},
    "right": {"xytext": (8, 0), "ha": "left", "va": "center"},
}


def name_point(axes, name: str, x: float, y: float, marker: str, colour: str, place: str) -> None:
    axes.plot(x, y, marker, color=colour)
    axes.annotate(name, (x, y), textcoords="offset points", size=plots.SMALL_LETTERS, **PLACES[place])
