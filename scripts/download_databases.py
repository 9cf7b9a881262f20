"""Downloads the databases HyperRec and LCBench (5 MB) and checks that they are read correctly.

Usage: python scripts/download_databases.py [--folder FOLDER]
"""

import argparse
from pathlib import Path

from amt.databases import hyperrec, lcbench
from amt.databases.download import download


def main() -> None:
    parser = argparse.ArgumentParser(description="Downloads the databases HyperRec and LCBench.")
    parser.add_argument(
        "--folder",
        type=Path,
        help="the files go to FOLDER/at2 (default: $AMT_DATA_DIR, else the user's cache)",
    )
    at2 = download(parser.parse_args().folder)
    for database in (hyperrec, lcbench):
        curves = database(at2)
        print(
            f"{database.__name__}: {curves.num_tasks} tasks, {curves.num_configs} configurations, "
            f"{curves.num_epochs} epochs"
        )
    print(f"in {at2}")


if __name__ == "__main__":
    main()
