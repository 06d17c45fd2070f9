"""The command line: `python -m course_utils VERB`. Each verb's modules are imported only when it is called."""

import argparse
import errno
import os
import pkgutil
import sys
from pathlib import Path


def list_recipes() -> None:
    from course_utils.lab.recipes import RECIPES

    for recipe in RECIPES.values():
        print(f"{recipe.name:24s} {recipe.epochs:3d} epochs  {recipe.about}")


def run(recipe: str, seed: int, root: Path | None) -> None:
    from course_utils.lab import processes, recipes, sweeps

    sweeps.run(recipes.get(recipe), seed, root)
    processes.stop()


def standalone(out: Path) -> None:
    from course_utils.authoring import standalone

    print(*standalone.write(out), sep="\n")


def sync(notebook: Path | None) -> None:
    from course_utils.authoring import in_full, sync

    if notebook:
        sync.take_over(notebook)
    sync.sync()
    in_full.update()


def execute() -> None:
    from course_utils.authoring import sync as notebooks

    sync(None)
    notebooks.execute()


def exercises() -> None:
    from course_utils.authoring import exercises, sync

    sync.update(exercises.made(sync.NOTEBOOKS))


def seed(text: str) -> int:
    if not text.isdecimal():
        found = f"{text!r}: several have blanks between them, and a pattern comes before them"
        raise argparse.ArgumentTypeError(f"seeds are 0 or more, found {found}")
    return int(text)


def path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # the shell leaves the ~ of --root=~/data alone


# The arguments, then the verbs: what each calls, in which order of arguments, and what the help says of it.
NAMES = ("names", {"nargs": "+", "metavar": "NAME", "help": "cifar10 or cifar100"})
RECIPE = ("recipe", {"metavar": "RECIPE", "help": "its name; `list` shows them all"})
PATTERN = ("pattern", {"nargs": "?", "default": "*", "help": 'recipes, e.g. "smallnet-*" (default: all)'})
ROOT = ("--root", {"type": path, "help": "folder of the data sets (default: $COURSE_DATA, then ./data)"})
SEED = ("--seed", {"type": seed, "default": 0, "help": "of weights, batches and split (default: 0)"})
SEEDS = ("--seeds", {"type": seed, "nargs": "+", "default": [0, 1, 2], "help": "default: 0 1 2"})
JSON = ("--json", {"type": path, "metavar": "FILE", "help": "write the table to FILE as well"})
OUT = ("--out", {"type": path, "metavar": "DIR", "default": Path("_build", "standalone"), "help": "where to"})
LESSON = ("lesson", {"metavar": "LESSON", "help": "01_smallnet or 02_resnet"})
TAKE = ("--from-notebook", {"type": path, "metavar": "FILE", "help": "first take an .ipynb into its .py"})

STUDENTS = {
    "list": (list_recipes, "the named recipes"),
    "fetch": ("datasets.cifar:fetch", "download and verify data sets, for use offline", NAMES, ROOT),
    "run": (run, "train one recipe and record the run", RECIPE, SEED, ROOT),
    "table": ("lab.records:table", "the recorded runs: test accuracy over seeds, weights, minutes", PATTERN),
    "verify": ("lab.sweeps:verify", "test saved weights again, compare with their records", PATTERN, ROOT),
    "bench": ("lab.bench:main", "measure how fast this machine's processor trains, as ratios", JSON),
    "standalone": (standalone, "write each notebook with the package inside, to open anywhere", OUT),
}
AUTHORS = {
    "sweep": ("lab.sweeps:sweep", "run many recipes and seeds; skip what is recorded", PATTERN, SEEDS, ROOT),
    "examine": ("lab.diagnostics:examine", "store what saved networks get wrong", PATTERN, ROOT),
    "gallery": ("authoring.gallery:write", "store the pictures of CIFAR that the book shows", ROOT),
    "curves": ("authoring.curves:write", "bring the recorded curves of Turn the knobs up to date"),
    "live": ("authoring.live:write", "write what See it think and Turn the knobs run on"),
    "sync": (sync, "bring the notebooks up to their sources", TAKE),
    "exercises": (exercises, "bring the exercises up to their solutions"),
    "execute": (execute, "sync, then run every notebook but the exercises, in the quick profile"),
    "execute-full": ("authoring.in_full:run", "run a lesson on CIFAR and store it for the book", LESSON),
}


def parser() -> argparse.ArgumentParser:
    about = "Train, record and compare the course's networks; write its notebooks."
    for title, group in {"for students": STUDENTS, "for authors": AUTHORS}.items():
        about += f"\n\n{title}:\n" + "\n".join(f"    {verb:14s}{what[1]}" for verb, what in group.items())
    top = argparse.ArgumentParser(
        prog="python -m course_utils",
        usage="%(prog)s VERB …    (VERB --help says more)",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(metavar="VERB", required=True, help=argparse.SUPPRESS)
    for verb, (function, what, *arguments) in (STUDENTS | AUTHORS).items():
        sub = verbs.add_parser(verb, prog=f"{top.prog} {verb}", description=what)
        given = [sub.add_argument(flag, **options).dest for flag, options in arguments]
        sub.set_defaults(function=function, given=given)
    return top


def main() -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal that knows no ± shows a ?
    try:
        try:
            args = parser().parse_args()
            verb = args.function
            verb = pkgutil.resolve_name(f"course_utils.{verb}") if isinstance(verb, str) else verb
            if isinstance(said := verb(*(getattr(args, name) for name in args.given)), str):
                print(said)
        finally:
            sys.stdout.flush()  # here, where a broken pipe can be caught
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        # Nobody reads on, as behind `| head`. Windows says the same as of a file's bad name, which it names.
        unread = getattr(error, "errno", None) == errno.EINVAL and error.filename is None
        if isinstance(error, BrokenPipeError) or (sys.platform == "win32" and unread):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
