"""Databases of learning curves, by name.

`load(name)` reads "bundled", which comes with the package, "hyperrec" and "lcbench", which
`scripts/download_databases.py` fetches, a database of your own (`registry`), or a CSV or Parquet
file (`long_form`), which `python -m amt.databases check FILE` examines.
"""

from amt.databases._unpickle import UnsafePickleError
from amt.databases.bundled import bundled
from amt.databases.long_form import read_curves
from amt.databases.published import hyperrec, lcbench
from amt.databases.registry import DATABASES, Database, load, paper_pairs, register

__all__ = [
    "DATABASES",
    "Database",
    "UnsafePickleError",
    "bundled",
    "hyperrec",
    "lcbench",
    "load",
    "paper_pairs",
    "read_curves",
    "register",
]
