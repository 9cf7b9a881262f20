"""Logs in the shapes that the tools' own code and documentation give them."""

import json
import math
import sqlite3
import warnings
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from numpy.testing import assert_allclose

from amt.databases import logs, read_curves
from amt.databases.logs.runs import Run
from amt.databases.long_form import examine

TASKS, RATES, EPOCHS = ("digits", "wine"), (0.001, 0.01, 0.1, 0.2), 3
RUNS = [(task, lr) for task in TASKS for lr in RATES]


def accuracy(task: str, lr: float, epoch: int) -> float:
    """After an epoch from 1."""
    return round(0.9 - 0.1 * TASKS.index(task) - (math.log10(lr) + 2) ** 2 / 20 - 0.3 / epoch, 6)


def settings(lr: float) -> dict:
    return {"optimizer": {"lr": lr, "nesterov": lr > 0.05}, "layers": [64, 64]}


def check(table: pd.DataFrame, lr: str = "optimizer.lr") -> None:
    """All scores are where they belong."""
    found = examine(table)
    assert not found.faults
    curves = found.curves
    assert {*curves.tasks} == {*TASKS}
    assert curves.epochs.tolist() == [*range(1, EPOCHS + 1)]
    rates = [config[lr] for config in curves.configs]
    assert sorted(rates) == [*RATES]
    expected = [
        [[accuracy(t, rate, e) for e in curves.epochs] for rate in rates] for t in curves.tasks
    ]
    assert_allclose(curves.scores, expected, rtol=1e-6)


def write_csv(path: Path, rows: list[dict]) -> None:
    """As `csv.DictWriter` does with the keys of all rows: what a row lacks is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, dtype=object).to_csv(path, index=False)


def lightning_rows(task: str, lr: float) -> list[dict]:
    """A row of training at its last step, and a row of validation, of each epoch from 0."""
    rows = []
    for epoch in range(EPOCHS):
        at = {"epoch": epoch, "step": 50 * epoch + 49}
        rows += [at | {"train_loss": 1.0}, at | {"val_acc": accuracy(task, lr, epoch + 1)}]
    return rows


def test_lightning(tmp_path):
    for number, (task, lr) in enumerate(RUNS):
        folder = tmp_path / task / f"version_{number}"
        write_csv(folder / "metrics.csv", lightning_rows(task, lr))
        objects = "tags: !!python/tuple\n- a\n- b\nfn: !!python/name:torch.nn.ReLU ''\n"
        (folder / "hparams.yaml").write_text(yaml.dump(settings(lr)) + objects)
    table = logs.lightning(tmp_path, "val_acc")
    check(table)
    assert {*table["fn"]} == {"name:torch.nn.ReLU"}
    assert {*table["layers"]} == {"[64, 64]"}
    assert {*table["tags"]} == {'["a", "b"]'}
    steps = logs.lightning(tmp_path, "val_acc", epoch="step")
    assert sorted({*steps["epoch"]}) == [50, 100, 150]
    with pytest.raises(ValueError, match="no run has values of 'val_loss' by 'epoch'"):
        logs.lightning(tmp_path, "val_loss")
    with pytest.raises(FileNotFoundError, match="no folder"):
        logs.lightning(tmp_path / "absent", "val_acc")


def test_keras(tmp_path):
    for number, (task, lr) in enumerate(RUNS):
        path = tmp_path / task / f"run{number}.{'log' if number % 2 else 'csv'}"
        rows = [
            {"epoch": e, "accuracy": 1, "val_accuracy": accuracy(task, lr, e + 1)}
            for e in range(EPOCHS)
        ]
        rows.insert(1, {"epoch": 0.5, "accuracy": 1, "val_accuracy": "NA"})  # not evaluated
        write_csv(path, rows)
        path.with_suffix(".json").write_text(json.dumps(settings(lr)))
    check(logs.keras(tmp_path, "val_accuracy"))
    given = {f"{t}/run{n}": {"optimizer": {"lr": lr}} for n, (t, lr) in enumerate(RUNS)}
    table = logs.keras(tmp_path, "val_accuracy", hyperparameters=given)
    assert [*table.columns] == ["task", "epoch", "score", "optimizer.lr"]
    check(table)
    (tmp_path / "wine" / "run4.json").unlink()
    with pytest.raises(ValueError, match="wine/run4 has no hyperparameters: there are none beside"):
        logs.keras(tmp_path, "val_accuracy")


@pytest.mark.parametrize("file", ["progress.csv", "result.json"])
def test_ray(tmp_path, file):
    for number, (task, lr) in enumerate(RUNS):
        folder = tmp_path / task / f"train_{number:05d}"
        results = [
            {"eval": {"acc": accuracy(task, lr, e)}, "training_iteration": e, "timestamp": e}
            for e in range(1, EPOCHS + 1)
        ]
        folder.mkdir(parents=True)
        if file == "result.json":
            lines = [json.dumps(result | {"config": settings(lr)}) for result in results]
            (folder / file).write_text("\n".join(lines) + "\n")
        else:
            flat = [{"eval/acc": r["eval"]["acc"], **r} for r in results]
            write_csv(folder / file, [{k: v for k, v in r.items() if k != "eval"} for r in flat])
        (folder / "params.json").write_text(json.dumps(settings(lr)))
    check(logs.ray(tmp_path, "eval/acc"))


def test_ray_trials_that_diverge_or_were_restored(tmp_path):
    for number, (task, lr) in enumerate(RUNS):
        results = [
            {"acc": accuracy(task, lr, e), "training_iteration": e} for e in range(1, EPOCHS + 1)
        ]
        if number == 2:
            results[2]["acc"] = math.nan
        if number == 3:
            results.insert(2, results[1] | {"acc": 0.123})
            results[2], results[1] = results[1], results[2]  # the last one counts
        folder = tmp_path / task / str(number)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("".join(json.dumps(r) + "\n" for r in results))
        (folder / "params.json").write_text(json.dumps({"lr": lr}))
    with pytest.warns(UserWarning, match="1 runs have several values of 'acc' .*digits/3"):
        table = logs.ray(tmp_path, "acc")
    assert (table["score"] == "nan").sum() == 1
    assert "0.123" not in {*table["score"]}
    assert any("1 of 8 runs diverge" in note.what for note in examine(table).notes)


def wandb_history(task: str, lr: float) -> list[dict]:
    return [
        {
            "_step": step,
            "_timestamp": 1.7e9 + step,
            "_runtime": step,
            "train/loss": 1.0,
            "epoch": step // 10,
            **({"val/acc": accuracy(task, lr, step // 10 + 1)} if step % 10 == 9 else {}),
        }
        for step in range(10 * EPOCHS)
    ]


def test_charts_of_wandb(tmp_path):
    """`Step`, and of each run its metric, its minimum and maximum; rows of steps that one has."""
    table, runs = {"Step": [*range(2 * EPOCHS)]}, {}
    for number, (task, lr) in enumerate(RUNS):
        values = [accuracy(task, lr, step + 1) if step < EPOCHS else "" for step in table["Step"]]
        name = f"royal-sweep-{number} - again"
        runs[name] = settings(lr) | {"dataset": task}
        for ending in ("", "__MIN", "__MAX"):
            table[f"{name} - val/acc{ending}"] = values
        table[f"{name} - val/loss"] = [1.0] * 2 * EPOCHS
    path = tmp_path / "charts" / "wandb_export_2024-05-05T10_07_23.233-04_00.csv"
    write_csv(path, pd.DataFrame(table).to_dict("records"))
    check(logs.wandb_chart(path, "val/acc", runs, task="dataset"))
    check(logs.wandb_chart(path.parent, "val/acc", runs, task="dataset"))
    by_epoch = pd.DataFrame(table).rename(columns={"Step": "epoch"})
    assert logs.wandb_chart(path, "val/acc", runs)["task"].unique().tolist() == ["charts"]
    path.write_text(by_epoch.assign(epoch=by_epoch["epoch"] + 1).to_csv(index=False))
    check(logs.wandb_chart(path, "val/acc", runs, task="dataset"))
    with pytest.raises(ValueError, match="no CSV file with columns `RUN - val/f1`"):
        logs.wandb_chart(path, "val/f1", runs)
    with pytest.raises(ValueError, match="royal-sweep-0 - again has no hyperparameters"):
        logs.wandb_chart(path, "val/acc", {})
    path.write_text("Relative Time (Process),a - val/acc\n1.5,0.5\n")
    with pytest.raises(ValueError, match=r"is 'Relative Time .Process.': export it by step"):
        logs.wandb_chart(path, "val/acc", {"a": {"lr": 1}})
    path.write_text("Step,a - val/acc,a - val/acc\n1,0.5,0.6\n")
    with pytest.raises(ValueError, match="has several runs called 'a - val/acc'"):
        logs.wandb_chart(path, "val/acc", {"a": {"lr": 1}})


def test_wandb(tmp_path):
    histories = []
    for number, (task, lr) in enumerate(RUNS):
        config = settings(lr) | {"data.set": task, "_wandb": {"cli_version": "0.17"}}
        history = wandb_history(task, lr)
        write_csv(tmp_path / f"run{number}.csv", history)
        if number % 2:
            (tmp_path / f"run{number}.json").write_text(json.dumps(config))
        else:
            wrapped = {k: {"desc": None, "value": v} for k, v in config.items()}
            text = yaml.dump({"wandb_version": 1} | wrapped)
            (tmp_path / f"run{number}.yaml").write_text(text)
        histories.append((pd.DataFrame(history), config))
    table = logs.wandb(tmp_path, "val/acc", task="data.set", epoch="epoch")
    assert {*table["epoch"]} == {"0", "1", "2"}
    found = examine(table)
    assert "first_epoch=0" in found.faults[0].what
    assert sorted(read_epochs(table, first_epoch=0)) == [1, 2, 3]
    check(table.assign(epoch=table["epoch"].astype(int) + 1))
    steps = logs.wandb(tmp_path, "val/acc", task="data.set")
    assert {*steps["epoch"]} == {10, 20, 30}
    live = logs.gather(histories, "val/acc", epoch="epoch", task="data.set", first_epoch=0)
    check(live)
    with pytest.raises(ValueError, match=r"run 0 has no hyperparameter 'dataset'; there are optim"):
        logs.gather(histories, "val/acc", epoch="epoch", task="dataset")


def read_epochs(table: pd.DataFrame, **options) -> list[int]:
    return examine(table, **options).curves.epochs.tolist()


def test_mlflow_file_store(tmp_path):
    (tmp_path / ".trash").mkdir()
    for number, task in enumerate(TASKS):
        experiment = tmp_path / str(100 + number)
        experiment.mkdir()
        about = {"experiment_id": str(100 + number), "name": task, "lifecycle_stage": "active"}
        (experiment / "meta.yaml").write_text(yaml.dump(about))
        for index, lr in enumerate([*RATES, 0.5]):
            run = experiment / (f"{number}{index}" * 8)
            for folder in ("params/optimizer", "metrics/val", "tags"):
                (run / folder).mkdir(parents=True)
            stage = "deleted" if lr == 0.5 else "active"
            (run / "meta.yaml").write_text(yaml.dump({"lifecycle_stage": stage, "status": 3}))
            (run / "params/optimizer/lr").write_text(str(lr))
            lines = [f"{1000 + e} {accuracy(task, lr, e)} {e}" for e in range(1, EPOCHS + 1)]
            (run / "metrics/val/acc").write_text("\n".join(lines) + "\n")
    check(logs.mlflow(tmp_path, "val/acc"), "optimizer/lr")


def test_mlflow_database(tmp_path):
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as database:
        database.executescript(
            "CREATE TABLE experiments (experiment_id INTEGER, name TEXT);"
            "CREATE TABLE runs (run_uuid TEXT, experiment_id INTEGER, lifecycle_stage TEXT);"
            "CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT);"
            "CREATE TABLE metrics (key TEXT, value REAL, timestamp INTEGER, run_uuid TEXT,"
            " step INTEGER, is_nan BOOLEAN);"
        )
        for number, task in enumerate(TASKS):
            database.execute("INSERT INTO experiments VALUES (?, ?)", (number, task))
        for number, (task, lr) in enumerate(RUNS):
            run = f"run{number}", TASKS.index(task), "active"
            database.execute("INSERT INTO runs VALUES (?, ?, ?)", run)
            database.execute("INSERT INTO params VALUES ('lr', ?, ?)", (str(lr), run[0]))
            rows = [
                ("acc", accuracy(task, lr, e), 1000 + e, run[0], e, 0) for e in range(1, EPOCHS + 1)
            ]
            database.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", rows)
    check(logs.mlflow(path, "acc"), "lr")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE metrics SET value = 0, is_nan = 1 WHERE step = 3")
    assert (logs.mlflow(path, "acc")["score"] == "nan").sum() == len(RUNS)
    with pytest.raises(FileNotFoundError, match="no store of MLflow"):
        logs.mlflow(tmp_path / "mlruns", "acc")


def test_tensorboard_downloads(tmp_path):
    """One tag of several, Wall time, Step and Value."""
    given = {}
    for number, (task, lr) in enumerate(RUNS):
        for tag, scale in (("val_acc", 1), ("train_acc", 2)):
            rows = [
                {"Wall time": 1.7e9, "Step": e, "Value": scale * accuracy(task, lr, e)}
                for e in range(1, EPOCHS + 1)
            ]
            write_csv(tmp_path / f"run-exp_{number}-tag-{tag}.csv", rows)
        given[f"exp_{number}"] = {"lr": lr, "data": task}
    check(logs.tensorboard(tmp_path, "val/acc", task="data", hyperparameters=given), "lr")
    for name, values in given.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
    check(logs.tensorboard(tmp_path, "val/acc", task="data"), "lr")


def test_tensorboard_event_files(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import plugin_data_pb2 as hparams
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for number, (task, lr) in enumerate(RUNS):
        folder = tmp_path / task / f"run{number}"
        writer = EventFileWriter(str(folder))
        for e in range(1, EPOCHS + 1):
            value = Summary.Value(tag="val/acc", simple_value=accuracy(task, lr, e))
            writer.add_event(Event(wall_time=1.7e9, step=e, summary=Summary(value=[value])))
        writer.close()
        below = EventFileWriter(str(folder / "1700000000.1"))  # as torch's add_hparams does
        start = hparams.SessionStartInfo()
        start.hparams["lr"].number_value = lr
        content = hparams.HParamsPluginData(session_start_info=start, version=0)
        data = SummaryMetadata.PluginData(
            plugin_name="hparams", content=content.SerializeToString()
        )
        metadata = SummaryMetadata(plugin_data=data)
        value = Summary.Value(tag="_hparams_/session_start_info", metadata=metadata)
        below.add_event(Event(wall_time=1.7e9, summary=Summary(value=[value])))
        below.close()
    check(logs.tensorboard(tmp_path, "val/acc"), "lr")


def test_optuna_trials():
    studies = {}
    for task in TASKS:
        study = optuna.create_study(direction="maximize")
        for lr in RATES:
            study.enqueue_trial({"lr": lr})
        study.enqueue_trial({"lr": 0.001})

        def objective(trial, task=task):
            lr = trial.suggest_float("lr", 1e-4, 1, log=True)
            if trial.number == 2:
                raise RuntimeError
            return accuracy(task, lr, 1)

        study.optimize(objective, n_trials=5, catch=RuntimeError)
        studies[task] = study.trials_dataframe()
    with pytest.warns(UserWarning, match="no intermediate values.*sources_from_studies"):
        table = logs.optuna_trials(studies)
    found = examine(table)
    assert not found.faults
    assert found.metric.shape == (2, 2, 4, 1)  # repeats, tasks, configurations, an epoch
    known = [accuracy("digits", lr, 1) for lr in (0.001, 0.01, 0.2)]
    assert_allclose(found.metric[0, 0, [0, 1, 3], 0], known)
    assert np.isnan(found.metric[:, :, 2]).all()


def test_lcbench(tmp_path):
    content = {
        task: {
            str(number): {
                "log": {"Train/val_accuracy": [accuracy(task, lr, e) for e in (1, 2, 3)]},
                "results": {"final_val_accuracy": 0.5},
                "config": {"learning_rate": lr, "batch_size": 64, "OpenML_task_id": 3},
            }
            for number, lr in enumerate(RATES)
        }
        for task in TASKS
    }
    (tmp_path / "data.json").write_text(json.dumps(content))
    check(logs.lcbench(tmp_path / "data.json"), "learning_rate")
    with pytest.raises(ValueError, match="no log 'x'; there are Train/val_accuracy"):
        logs.lcbench(tmp_path / "data.json", "x")


def test_hpob(tmp_path):
    data = {
        task: {
            "X": [[lr, 0.5], [lr, 0.25]] * 1,
            "y": [[accuracy(task, lr, 1)], [accuracy(task, lr, 2)]],
        }
        for task, lr in zip(TASKS, (0.1, 0.1), strict=True)
    }
    data["wine"]["X"].append([0.1, 0.5])  # evaluated again
    data["wine"]["y"].append([0.7])
    (tmp_path / "meta.json").write_text(json.dumps({"5860": data}))
    found = examine(logs.hpob(tmp_path / "meta.json", "5860"))
    assert not found.faults
    assert [config["x1"] for config in found.curves.configs] == [0.25, 0.5]
    wine = [accuracy("wine", 0.1, 2), (accuracy("wine", 0.1, 1) + 0.7) / 2]
    assert_allclose(found.curves.scores[1, :, 0], wine)
    with pytest.raises(ValueError, match="no search space '1'; there are 5860"):
        logs.hpob(tmp_path / "meta.json", "1")


def test_yahpo(tmp_path):
    """A table of hyperparameters, the instance, the fidelity and all metrics, as of `lcbench`."""
    rows = [
        {
            "OpenML_task_id": task,
            "epoch": e,
            "learning_rate": lr,
            "num_layers": 2 + RATES.index(lr),
            "time": 1.5 * e,
            "val_accuracy": accuracy(task, lr, e),
            "val_cross_entropy": 1 / e,
        }
        for task, lr in RUNS
        for e in range(1, EPOCHS + 1)
    ]
    write_csv(tmp_path / "data.csv", rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        curves = read_curves(
            tmp_path / "data.csv",
            columns={"task": "OpenML_task_id", "score": "val_accuracy"},
            hyperparameters=["learning_rate", "num_*"],
        )
    assert [*curves.space] == ["learning_rate", "num_layers"]
    assert curves.tasks == TASKS
    expected = [[[accuracy(t, lr, e) for e in (1, 2, 3)] for lr in RATES] for t in TASKS]
    assert_allclose(curves.scores, expected)


def test_hyperparameters_with_names_of_columns_and_seeds():
    history = pd.DataFrame({"step": [1, 2], "acc": [0.5, "nan"]})
    runs = [(history, {"epoch": 10, "score": "auc", "lr": lr, "n": None}) for lr in (0.1, 0.2, 0.1)]
    table = logs.gather([Run(*run, "a") for run in runs], "acc", epoch="step")
    settings = ["config/epoch", "config/score", "lr"]
    assert [*table.columns] == ["task", "epoch", "score", "seed", *settings]
    assert table["seed"].tolist() == [*"000011"]
    assert table["score"].tolist() == ["0.5", "nan"] * 3
    named = [(history, {"seed": seed, "lr": 0.1}) for seed in (7, 8)]
    table = logs.gather([Run(*run, "a") for run in named], "acc", epoch="step")
    assert table["seed"].tolist() == ["7", "7", "8", "8"]
