"""`python -m amt` lists what there is, and checks files."""

from pathlib import Path

from amt.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[1]


def test_it_lists_what_there_is(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    for command, purpose in COMMANDS.values():
        assert command in out
        assert purpose in out
    scripts = [c.split()[1] for c, _ in COMMANDS.values() if c.endswith(".py")]
    assert scripts
    assert all((ROOT / script).is_file() for script in scripts)
    assert main(["chekc"]) == 2
    assert "no command 'chekc'; there are" in capsys.readouterr().out


def test_it_checks_files(tmp_path, capsys):
    assert main(["check", str(tmp_path / "absent.csv")]) == 1
    assert "there is no file" in capsys.readouterr().out
