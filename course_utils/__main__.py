"""The command line: `python -m course_utils VERB`. Each verb's module is imported only when it is called."""

import argparse
import sys
from pathlib import Path


def fetch(args) -> None:
    from course_utils.datasets import cifar

    cifar.fetch(args.names, args.root)


def list_recipes(args) -> None:
    from course_utils.lab.recipes import RECIPES

    for recipe in RECIPES.values():
        print(f"{recipe.name:24s} {recipe.epochs:3d} epochs  {recipe.about}")


def run(args) -> None:
    from course_utils.lab import parallel, recipes, sweeps

    sweeps.run(recipes.get(args.recipe), args.seed, args.root)
    parallel.stop()


def sweep(args) -> None:
    from course_utils.lab import parallel, sweeps

    sweeps.sweep(args.pattern, args.seeds, args.root)
    parallel.stop()


def verify(args) -> None:
    from course_utils.lab import sweeps

    sweeps.verify(args.pattern, args.root)


def examine(args) -> None:
    from course_utils.lab import diagnostics

    diagnostics.examine(args.pattern, args.root)


def table(args) -> None:
    from course_utils.lab import records

    print(records.table(args.pattern))


def bench(args) -> None:
    from course_utils.lab import bench

    bench.main(args.json)


def sync(args) -> None:
    from course_utils.authoring import sync as authoring

    authoring.sync()


def exercises(args) -> None:
    from course_utils.authoring import exercises

    exercises.write()


def execute(args) -> None:
    from course_utils.authoring import sync as authoring

    authoring.execute()


def standalone(args) -> None:
    from course_utils.authoring import standalone

    for path in standalone.write(args.out):
        print(path)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m course_utils", description=__doc__.splitlines()[0])
    verbs = top.add_subparsers(metavar="VERB", required=True)

    root = {"type": Path, "help": "folder of the data sets (default: $COURSE_DATA, then ./data)"}
    pattern = {"nargs": "?", "default": "*", "help": "which recipes, e.g. 'smallnet-*' (default: all)"}

    def verb(function, name: str, about: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=about, description=about)
        sub.set_defaults(function=function)
        return sub

    sub = verb(fetch, "fetch", "download and verify data sets, so that later no network is needed")
    sub.add_argument("names", nargs="+", metavar="NAME", help="cifar10 or cifar100")
    sub.add_argument("--root", **root)

    verb(list_recipes, "list", "the named recipes")

    sub = verb(run, "run", "train one recipe and record the run")
    sub.add_argument("recipe", metavar="RECIPE")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--root", **root)

    sub = verb(
        sweep, "sweep", "run many recipes with several seeds; skips what is recorded, resumes what is not"
    )
    sub.add_argument("pattern", **pattern)
    sub.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    sub.add_argument("--root", **root)

    sub = verb(verify, "verify", "evaluate the kept weights again and compare with their records")
    sub.add_argument("pattern", **pattern)
    sub.add_argument("--root", **root)

    sub = verb(examine, "examine", "store how the kept networks do on the test set: confusion, calibration")
    sub.add_argument("pattern", **pattern)
    sub.add_argument("--root", **root)

    sub = verb(table, "table", "the recorded runs: test accuracy over seeds, weights, minutes")
    sub.add_argument("pattern", **pattern)

    sub = verb(bench, "bench", "measure how fast this machine's processor trains, as ratios")
    sub.add_argument("--json", type=Path, metavar="FILE", help="write the table to FILE as well")

    verb(sync, "sync", "bring the notebooks up to their .py twins")
    verb(exercises, "exercises", "write the exercise notebooks from their solutions")
    verb(execute, "execute", "sync, then run every notebook in the quick profile and store its outputs")

    sub = verb(standalone, "standalone", "write each notebook with the package inside, to open anywhere")
    sub.add_argument("--out", type=Path, metavar="DIR", default=Path("_build", "standalone"))
    return top


def main() -> int:
    args = parser().parse_args()
    try:
        args.function(args)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
