"""Rows in long form, and a writer of files."""

from pathlib import Path

import pandas as pd
import pytest

from tests.databases.long_form import make_rows


@pytest.fixture
def rows():
    return make_rows()


@pytest.fixture
def write(tmp_path):
    """Writes rows to a file, as CSV by default."""

    def write(rows: pd.DataFrame | str | bytes, name: str = "curves.csv") -> Path:
        path = tmp_path / name
        if isinstance(rows, bytes | str):
            path.write_bytes(rows if isinstance(rows, bytes) else rows.encode())
        elif path.suffix == ".csv":
            rows.to_csv(path, index=False)
        else:
            rows.infer_objects().to_parquet(path, index=False)
        return path

    return write
