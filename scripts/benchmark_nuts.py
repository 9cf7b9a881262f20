"""NUTS on HyperRec pair 0 (4 tasks, 100 configurations, 75 epochs): how well it mixes, how fast.

    python scripts/benchmark_nuts.py [--smoke] [--folder $AMT_DATA_DIR/at2]

Four chains of 500 draws for each of two models, at2 x matern x at2 and at2 x deep_poly x at2,
from a fit by maximum a posteriori. The chains are spread over as many CPU devices as there are
cores, each with one thread for LAPACK. For each model: largest R-hat and smallest effective sample
sizes over all that is sampled and the task means and scales, divergences, leapfrog steps (one
gradient each), and the time. `--smoke` does the same on a few configurations and epochs, with few
draws.
"""

import os

# As in experiments/at2.py; read when OpenBLAS is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Console
from rich.table import Table

from amt.databases.published import hyperrec, paper_pairs
from amt.evaluation import diagnostics
from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.inference.mle import fit_map
from amt.inference.nuts import sample_nuts
from amt.parameters import stack

CONFIG_KERNELS = ("matern", "deep_poly")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="default: $AMT_DATA_DIR/at2")
    parser.add_argument("--config", nargs="+", default=CONFIG_KERNELS, choices=CONFIG_KERNELS)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--warmup", type=int, default=450)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--thinning", type=int, default=2, help="iterations for each draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--devices", type=int, default=os.cpu_count(), help="CPU devices, at most")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    devices = max(n for n in range(1, args.devices + 1) if args.chains % n == 0)
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_enable_x64", True)
    mesh = Mesh(jax.devices()[:devices], ("chain",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    warmup, draws, steps = (30, 20, 30) if args.smoke else (args.warmup, args.draws, 300)

    folder = args.folder or Path(os.environ.get("AMT_DATA_DIR", "")) / "at2"
    sources, target = paper_pairs("HyperRec", folder)[0]
    curves, _ = hyperrec(folder).repeat(0).split(sources, target)
    if args.smoke:
        curves = curves.select(configs=range(12), epochs=curves.epochs[:60:10].tolist())
    grid = CurveGrid.of(curves)

    table = Table(
        "config kernel",
        "quantities",
        "R-hat",
        "ESS bulk",
        "ESS tail",
        "divergences",
        "steps a draw",
    )
    for column in ("in step", "gradients", "fit", "compilation", "NUTS"):
        table.add_column(column)
    for config in args.config:
        keys = jax.random.split(jax.random.key(args.seed), 3)
        begin = time.perf_counter()
        starts = stack([MultiTaskGP.init(curves, k, config=config) for k in keys[:2]])
        fit = jax.block_until_ready(jax.jit(partial(fit_map, steps=steps))(starts, grid))
        fitted = time.perf_counter()
        sample = partial(
            sample_nuts,
            warmup=warmup,
            draws=draws,
            chains=args.chains,
            thinning=args.thinning,
            mesh=mesh,
        )
        inputs = jax.device_put((fit.model, grid, keys[2]), everywhere)
        compiled = jax.jit(sample).lower(*inputs).compile()
        ready = time.perf_counter()
        posterior = jax.block_until_ready(compiled(*inputs))
        end = time.perf_counter()

        statistics = posterior.statistics
        assert statistics is not None
        summary = diagnostics.summary(diagnostics.inference_data(posterior, grid))
        print(summary.to_string())
        steps_all = np.concatenate([statistics.warmup_steps, statistics.num_steps], 1)
        table.add_row(
            config,
            str(len(summary)),
            f"{summary['r_hat'].max():.4f}",
            f"{summary['ess_bulk'].min():.0f}",
            f"{summary['ess_tail'].min():.0f}",
            str(int(jnp.sum(statistics.diverging))),
            f"{np.mean(statistics.num_steps):.1f}",
            f"{np.mean(statistics.num_steps.max(0)):.1f}",
            str(int(steps_all.sum())),
            f"{fitted - begin:.1f} s",
            f"{ready - fitted:.1f} s",
            f"{end - ready:.1f} s",
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
