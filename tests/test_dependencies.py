"""The packages that the library needs: three, with floors, and all that it imports comes with them."""

from __future__ import annotations

import configparser
import importlib.metadata
import re
from pathlib import Path

import pytest

from tests.test_layers import THIRD_PARTIES

ROOT = Path(__file__).resolve().parent.parent
OPTIONAL = {"jwt", "cryptography", "flask", "flask_login", "django", "pydantic", "typing_extensions", "pytest"}
OPTIONAL |= {"limits", "redis", "prometheus_client"}
# Older ones lack what is used here, or have faults that are known.
FLOORS = {"jsonschema": "4.18", "requests": "2.32.4", "werkzeug": "3.1.6"}
BROUGHT_BY = {
    "jsonschema_specifications": ("jsonschema", (2023, 3)),
    "referencing": ("jsonschema", (0, 28)),
    "urllib3": ("requests", (1, 21)),
}


def test_three_packages_are_declared_with_their_floors():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    declared = config["options"]["install_requires"].split()
    assert declared == [f"{name}>={floor}" for name, floor in FLOORS.items()]


def test_whatever_is_imported_is_declared_or_comes_with_what_is():
    assert set(THIRD_PARTIES) - OPTIONAL == {*FLOORS, *BROUGHT_BY}


@pytest.mark.parametrize("name", BROUGHT_BY)
def test_what_comes_with_another_comes_with_a_floor(name):
    package, floor = BROUGHT_BY[name]
    needs = [
        need for need in importlib.metadata.requires(package) or [] if re.match(rf"{name}\b", need.replace("-", "_"))
    ]
    found = re.search(r">=\s*(\d+)\.(\d+)", needs[0])
    assert found and "extra ==" not in needs[0] and (int(found[1]), int(found[2])) >= floor


def test_the_commands_of_the_readme_are_quiet_with_the_pip_of_every_supported_python():
    # Without the option the pip that comes with Python 3.9 prints a notice of deprecation, in spite of -q; with one q
    # every pip but the newest says that there is a newer one.
    commands = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert len(commands) == 2 and all("pip install -qq --use-pep517 " in command for command in commands)


def test_the_metadata_name_every_python_that_is_tested():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    metadata = config["metadata"]
    named = re.findall(r"Python :: (3\.\d+)", metadata["classifiers"])
    tested = re.search(r"python3\.\{([\d,]+)\}", (ROOT / ".ci" / "run").read_text("utf-8"))
    assert named == [f"3.{number}" for number in tested[1].split(",")] and f">={named[0]}" in config["options"].values()
    assert metadata["author"] and "https://" in metadata["project_urls"]
