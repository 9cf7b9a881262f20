"""The configurations of a table: their hyperparameters' texts, and values in a search space."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ConfigSpace import ConfigurationSpace
from jaxtyping import Int

from amt.databases.long_form.columns import factorize, numbered, numbers_of
from amt.databases.long_form.findings import Finding, name_ranges, name_rows
from amt.databases.long_form.table import hyperparameter_columns
from amt.databases.spaces import (
    MISSING,
    describe,
    is_inactive,
    parse,
    parse_boolean,
    text_order,
)
from amt.space import check_configs, comparable

if TYPE_CHECKING:
    import pandas as pd

_MOSTLY = 0.5  # share of the configurations, from which on a column is no hyperparameter
_ADVICE = (
    "if they are no hyperparameters, leave them out (ignore=, --ignore) or name those that are "
    "(hyperparameters=, --hyperparameter)"
)


def configuration_texts(
    table: "pd.DataFrame",
) -> tuple[dict[str, dict[str, str]], list[Finding]]:
    """The texts of each configuration's hyperparameters, and the rows that say otherwise.

    Where there are several, the most frequent one is right, of equally frequent ones the first.
    """
    faults, columns, alien = [], {}, []
    codes, ids = factorize(table["config"])
    first = np.unique(codes, return_index=True)[1]
    for name, column in hyperparameter_columns(table).items():
        code, unique = factorize(table[column])
        value = _values(unique)[code]
        row = first
        if (value == value[first][codes]).all():
            columns[name] = [unique[k] for k in code[first]]
            continue
        pairs, start, count = np.unique(
            codes * (value.max() + 1) + value, return_index=True, return_counts=True
        )
        config = pairs // (value.max() + 1)
        several = np.bincount(config) > 1
        if several.mean() > _MOSTLY:
            alien.append(f"{name!r}, in {several.sum()} of {len(ids)} configurations")
        order = np.lexsort((start, -count, config))
        row = start[order[np.unique(config[order], return_index=True)[1]]]
        columns[name] = [unique[k] for k in code[row]]
        if several.mean() > _MOSTLY:
            continue

        def difference(
            i: int, name: str = name, column: str = column, row: Any = row, unique: Any = unique
        ) -> str:
            usual = row[codes[i]]
            texts = table[column].iloc
            return f": {name} is {texts[i]!r}, but {texts[usual]!r} in row {table.index[usual]}"

        what = f"configurations have several values of {name}"
        faults += name_rows(what, table, value != value[row][codes], difference)
    if alien:
        faults.append(Finding(f"columns differ within most configurations: {_ADVICE}", alien))
    order = sorted(range(len(ids)), key=lambda k: text_order(ids[k]))
    return {ids[k]: {name: texts[k] for name, texts in columns.items()} for k in order}, faults


def number_configurations(table: "pd.DataFrame") -> tuple["pd.DataFrame", list[Finding]]:
    """A table with a column `config`, a number for each combination of hyperparameters, and faults.

    Configurations are numbered from 0, sorted by their hyperparameters. A column that differs from
    row to row, as metrics do, would make a configuration of each: that is a fault.
    """
    key, alien, several = np.zeros(len(table), np.int64), [], len(factorize(table["epoch"])[1]) > 1
    for name, column in hyperparameter_columns(table).items():
        code, unique = factorize(table[column])
        value = _values(unique)
        if several and 2 * len(unique) > len(table) > 2:
            alien.append(f"{name!r}, {len(unique)} different values in {len(table)} rows")
        key = np.unique(key * (value.max() + 1) + value[code], return_inverse=True)[1]
    what = f"without a column config, columns that differ from row to row are a fault: {_ADVICE}"
    return table.assign(config=numbered(key)), [Finding(what, alien)] if alien else []


def _values(texts: Sequence[str]) -> Int[np.ndarray, "text"]:
    """The place of each text among the different values that they stand for, in ascending order."""
    import pandas as pd

    number, *_ = numbers_of(pd.Series(texts, dtype="str"))
    finite = np.isfinite(number)
    values = np.zeros(len(number), int)
    known, values[finite] = np.unique(number[finite], return_inverse=True)
    places: dict[str, int] = {}
    for i in sorted(np.flatnonzero(~finite).tolist(), key=lambda i: texts[i]):
        values[i] = len(known) + places.setdefault(_meaning(texts[i]), len(places))
    return values


def _meaning(text: str) -> str:
    """A form of a text that is no number, which all share that stand for the same value."""
    boolean = parse_boolean(text)
    return "" if text in MISSING else text if boolean is None else str(boolean)


def parse_configs(
    table: "pd.DataFrame", settings: Mapping[str, Mapping[str, str]], space: ConfigurationSpace
) -> tuple[dict[str, dict[str, Any]], list[Finding]]:
    """The configurations' values in a search space, and a fault that names those outside of it."""
    configs, wrong = {}, {}
    for name, texts in settings.items():
        values, errors = {}, []
        for hyperparameter, text in texts.items():
            h = space[hyperparameter]
            if is_inactive(h, text):
                continue
            try:
                values[h.name] = parse(h, text)
            except ValueError as error:
                errors.append(str(error))
            else:
                if not h.legal_value(values[h.name]):
                    errors.append(f"{h.name} is {text}, outside of {describe(h)}")
        if not errors:
            try:
                (configs[name],) = check_configs(space, [values])
            except ValueError as error:
                errors.append(" ".join(str(error).split()).removeprefix("configuration 0 is "))
        if errors:
            wrong[name] = "; ".join(errors)
    rows = table.groupby("config").groups if wrong else {}
    lines = [
        f"configuration {name!r}, {name_ranges(rows[name])}: {why}" for name, why in wrong.items()
    ]
    return configs, [Finding("configurations are not in the search space", lines)] if wrong else []


def same_configs(configs: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """A note that names the configurations whose hyperparameters are the same, if there are any."""
    groups: dict[Any, list[str]] = {}
    for name, config in configs.items():
        groups.setdefault(comparable(config), []).append(name)
    same = [", ".join(map(repr, names)) for names in groups.values() if len(names) > 1]
    return [Finding("configurations have the same hyperparameters", same)] if same else []
