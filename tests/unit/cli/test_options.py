"""The command line."""

import pytest

from trunkline.cli import run
from trunkline.cli.main import COMMANDS, main
from trunkline.wiring import settings


def test_no_arguments_mean_what_the_parser_says_they_mean() -> None:
    assert vars(run.parser().parse_args([])) == run.DEFAULTS


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit) as left:
            main([name, "--help"])
        assert left.value.code == 0
    assert "usage: trunkline run" in capsys.readouterr().out


def test_an_unknown_command_gets_a_near_miss(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lnit"]) == 2
    assert 'did you mean "lint"?' in capsys.readouterr().err


def test_settings_know_their_source_and_near_misses() -> None:
    assert settings.load({"port": 99}, {"TRUNKLINE_SLOTS": "3"}).slots == 3
    with pytest.raises(Exception, match="environment: slots can't be 'many'"):
        settings.load({}, {"TRUNKLINE_SLOTS": "many"})
    with pytest.raises(Exception, match="isolation"):
        settings.load({"isolation": "jail"}, {})
