"""The configurations of a table: their hyperparameters' texts, and values in a search space."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from ConfigSpace import ConfigurationSpace

from amt.databases.long_form.findings import Finding, name_ranges, name_rows
from amt.databases.long_form.table import hyperparameter_columns
from amt.databases.spaces import (
    MISSING,
    describe,
    is_inactive,
    parse,
    parse_boolean,
    parse_number,
    text_order,
)
from amt.space import check_configs, comparable

if TYPE_CHECKING:
    import pandas as pd


def configuration_texts(
    table: "pd.DataFrame",
) -> tuple[dict[str, dict[str, str]], list[Finding]]:
    """The texts of each configuration's hyperparameters, and the rows that say otherwise.

    Where there are several, the most frequent one is right, of equally frequent ones the first.
    """
    import pandas as pd

    faults, columns = [], {}
    codes, ids = pd.factorize(table["config"])
    for name, column in hyperparameter_columns(table).items():
        code, unique = pd.factorize(table[column])
        values = [_meaning(text) for text in unique]
        value = pd.factorize(pd.Series(values, dtype=object))[0][code]
        pairs, first, count = np.unique(
            np.stack([codes, value]), axis=1, return_index=True, return_counts=True
        )
        order = np.lexsort((first, -count, pairs[0]))
        right = order[np.unique(pairs[0][order], return_index=True)[1]]
        row = first[right]
        texts = table[column].to_numpy()
        columns[name] = texts[row]

        def difference(i: int, name: str = name, texts: Any = texts, row: Any = row) -> str:
            usual = row[codes[i]]
            return f": {name} is {texts[i]!r}, but {texts[usual]!r} in row {table.index[usual]}"

        what = f"configurations have several values of {name}"
        faults += name_rows(what, table, value != value[row][codes], difference)
    order = sorted(range(len(ids)), key=lambda k: text_order(ids[k]))
    return {ids[k]: {name: texts[k] for name, texts in columns.items()} for k in order}, faults


def _meaning(text: str) -> str | float:
    """A form of a text that all share that stand for the same value."""
    if text in MISSING:
        return ""
    number = parse_number(text)
    boolean = parse_boolean(text)
    return number if number is not None else text if boolean is None else str(boolean)


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
