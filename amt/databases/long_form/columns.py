"""Columns of texts, each text stored once, but those of scores and costs, of which few repeat."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int
from jaxtyping import Float as Real

if TYPE_CHECKING:
    import pandas as pd


def texts_of(column: Any) -> "pd.Series":
    """A column of a pyarrow table of texts, stripped, empty where it has none.

    Where pyarrow has a dictionary of the texts, the column is categorical.
    """
    import pandas as pd
    import pyarrow as pa

    pc: Any = import_module("pyarrow.compute")

    if not pa.types.is_dictionary(column.type):
        column = pc.fill_null(pc.utf8_trim_whitespace(column), "")
        return pd.Series(column.to_pandas().astype("str"))
    column = column.unify_dictionaries().combine_chunks()
    stripped = pc.utf8_trim_whitespace(pc.fill_null(column.dictionary, "")).dictionary_encode()
    texts = stripped.dictionary.to_pandas().astype("str")
    at = stripped.indices.to_numpy()
    if column.null_count:
        empty = np.flatnonzero(texts == "")
        texts = texts if len(empty) else pd.concat([texts, pd.Series([""], dtype="str")])
        at = np.append(at, empty[0] if len(empty) else len(texts) - 1)  # code -1 is that of null
    codes = pc.fill_null(column.indices, -1).to_numpy()
    return pd.Series(_categorical(at[codes], texts))


def recode(column: Any, texts: Sequence[str]) -> "pd.Series":
    """A categorical column with other texts in place of its own, which can be equal."""
    import pandas as pd

    codes, unique = pd.factorize(pd.Series(list(texts), dtype="str"))
    return pd.Series(_categorical(codes[column.cat.codes.to_numpy()], unique), column.index)


def numbered(codes: Int[np.ndarray, "row"]) -> "pd.Categorical":
    """A categorical column of the texts of whole numbers from 0, all of which are there."""
    import pandas as pd

    return _categorical(codes, pd.Series([*map(str, range(int(codes.max()) + 1))], dtype="str"))


def _categorical(codes: Int[np.ndarray, "row"], texts: Any) -> "pd.Categorical":
    import pandas as pd

    return pd.Categorical.from_codes(codes, categories=pd.Index(texts), validate=False)


def factorize(column: Any) -> tuple[Int[np.ndarray, "row"], Any]:
    """The position of each row's text among the different texts of a column, and these."""
    import pandas as pd

    if not isinstance(column.dtype, pd.CategoricalDtype):
        return pd.factorize(column)
    codes, texts = column.cat.codes.to_numpy(), column.cat.categories
    used = np.flatnonzero(np.bincount(codes, minlength=len(texts)))
    position = np.zeros(len(texts), int)
    position[used] = np.arange(len(used))
    return position[codes], texts[used]


def numbers_of(
    column: Any,
) -> tuple[Real[np.ndarray, "row"], Bool[np.ndarray, "row"], Bool[np.ndarray, "row"]]:
    """A column's numbers, NaN where a text is none; where it is empty, and where it is `nan`."""
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, texts = factorize(column)
        number, empty, nan = numbers_of(pd.Series(texts, dtype="str"))
        return number[codes], empty[codes], nan[codes]
    empty = (column == "").to_numpy(bool)
    numbers = _cast(column)
    if numbers is None:
        numbers = np.array(pd.to_numeric(column, errors="coerce"), np.float64)
    unknown = np.isnan(numbers) & ~empty
    nan = np.zeros(len(column), bool)
    nan[unknown] = pd.Series(column[unknown]).str.lower().str.lstrip("+-").eq("nan")
    return numbers, empty, nan


def _cast(column: Any) -> Real[np.ndarray, "row"] | None:
    """The numbers of texts that all are some or empty, faster than by `pandas.to_numeric`."""
    import pyarrow as pa

    pc: Any = import_module("pyarrow.compute")

    texts = pa.chunked_array(pa.array(column, pa.large_string(), from_pandas=True))
    texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.large_string()), texts)
    try:
        return np.array(texts.cast(pa.float64()).to_numpy(), np.float64)
    except pa.ArrowInvalid:
        return None


def keep(table: "pd.DataFrame", rows: Bool[np.ndarray, "row"]) -> "pd.DataFrame":
    """Some rows of a table; the table itself if these are all."""
    return table if rows.all() else table.loc[rows]


def combine(columns: Sequence[Any]) -> Int[np.ndarray, "row"]:
    """A number for each row, the same where all columns are the same."""
    import pandas as pd

    combined = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        codes, texts = factorize(column)
        combined = pd.factorize(combined * max(len(texts), 1) + codes)[0]
    return combined
