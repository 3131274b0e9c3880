"""Where settings come from, and what is said about wrong ones."""

from pathlib import Path

import pytest

from trunkline.model.errors import ConfigError
from trunkline.wiring.settings import load


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "trunkline.toml"
    file.write_text('port = 1\nslots = 2\nhost = "a"\njob_memory = "2G"\n')

    settings = load({"port": 3, "slots": None}, {"TRUNKLINE_SLOTS": "4", "TRUNKLINE_PORT": "5", "TRUNKLINE_CACHES_SIZE": "500M"}, str(file))

    assert (settings.port, settings.slots, settings.host) == (3, 4, "a")
    assert (settings.job_memory, settings.caches_size) == (2 << 30, 500 << 20)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", "no setting named 'prot'"),
        ('port = "many"', "port can't be 'many'"),
        ('job_memory = "lots of G"', "job_memory can't be 'lots of G'"),
        ("port = ", "trunkline.toml"),
        ('isolation = "jail"', "isolation can't be 'jail'"),
    ],
)
def test_a_wrong_setting_names_its_source_and_its_value(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "trunkline.toml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=said):
        load({}, {}, str(file))
