"""Learns the priors of task regression's parameters from databases at hand.

    python scripts/learn_priors.py [--databases hyperrec bundled] [--output FILE]

From each database (training run 0) come `--draws` random halves of the tasks, to each of which the
model is fitted under the priors that its fields declare. A parameter's prior is normal on its
unconstrained values. Its mean is that over databases of their means. Its deviation is `--widen`
times the root of the variance between databases plus that within them (of halves, and of the
elements of an array), but at least `--least`: two databases say little of a third. The file has the
numbers beside their origin, and is what `amt.inference.priors.learned_priors` reads.
"""

import argparse
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from amt.compilation import use_compilation_cache
from amt.databases import load
from amt.files import write_json
from amt.gp.grid import CurveGrid
from amt.gp.task_regression.model import TaskRegression
from amt.inference.priors import LEARNED
from amt.inference.task_regression import fit_task_regression
from amt.parameters import learned, stack
from amt.search.fitting import as_modelled, source_grid

Values = dict[str, np.ndarray]


def values_of_halves(name: str, draws: int, seed: int) -> tuple[Values, dict[str, str]]:
    """The unconstrained parameters of fits to random halves of a database's tasks, and fields."""
    curves = as_modelled(load(name).repeat(0), "task_regression")
    grid = source_grid(curves, "task_regression")
    rng = np.random.default_rng(seed)
    size = -(-curves.num_tasks // 2)
    halves = [np.sort(rng.permutation(curves.num_tasks)[:size]) for _ in range(draws)]
    starts = stack([TaskRegression.init(curves, jax.random.key(seed))])

    @eqx.filter_jit
    def fit(half: jax.Array) -> list[jax.Array]:
        variance = None if grid.variance is None else grid.variance[half]
        part = CurveGrid(grid.scores[half], grid.features, grid.epochs, variance=variance)
        return [leaf.free for leaf in learned(fit_task_regression(starts, part).model)]

    fits = zip(*(fit(jnp.asarray(half)) for half in halves), strict=True)
    leaves = learned(starts)
    values = {leaf.name: np.stack(found) for leaf, found in zip(leaves, fits, strict=True)}
    return values, {leaf.name: leaf.declared for leaf in leaves}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--databases", nargs="+", default=["hyperrec", "bundled"])
    parser.add_argument("--draws", type=int, default=8, help="halves of each database")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--widen", type=float, default=2.0)
    parser.add_argument("--least", type=float, default=0.5, help="smallest standard deviation")
    parser.add_argument("--output", type=Path, default=LEARNED)
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    use_compilation_cache()
    of_databases, declared = [], {}
    for name in args.databases:
        values, declared = values_of_halves(name, args.draws, args.seed)
        of_databases.append(values)
    priors = {}
    for name in declared:
        means = [float(values[name].mean()) for values in of_databases]
        within = float(np.mean([values[name].var() for values in of_databases]))
        between = float(np.var(means, ddof=1)) if len(means) > 1 else 0.0
        priors[name] = {
            "declared": declared[name],
            "mean": round(float(np.mean(means)), 3),
            "deviation": round(max(args.widen * (between + within) ** 0.5, args.least), 3),
            "of_databases": dict(zip(args.databases, np.round(means, 3).tolist(), strict=True)),
        }
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    origin = {
        "command": "python scripts/" + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": commit.stdout.strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "databases": dict.fromkeys(args.databases, "training run 0"),
        "draws": args.draws,
        "seed": args.seed,
        "widen": args.widen,
        "least": args.least,
    }
    write_json(args.output, {"origin": origin, "priors": priors})


if __name__ == "__main__":
    main()
