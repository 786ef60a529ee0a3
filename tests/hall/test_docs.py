"""The documents stay true: tests that they name exist, files that they link to exist, commands that they show parse."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from omnimill.cli.main import app

PROJECT = Path(__file__).parents[2]
DOCUMENTS = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def test_every_test_named_as_proof_exists() -> None:
    text = (PROJECT / "docs" / "guarantees.md").read_text()
    missing = []
    for line in text.splitlines():
        file = ""
        for name in re.findall(r"`((?:tests/[\w/]+\.py)?::\w+)`", line):
            path, _, test = name.partition("::")
            file = path or file
            if f"def {test}(" not in (PROJECT / file).read_text():
                missing.append(name)
    assert missing == []
    assert text.count("::test_") > 30


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_shown_exist_with_their_options(document: Path) -> None:
    program = typer.main.get_command(app)
    for block in re.findall(r"```(?:bash|console)\n(.*?)```", document.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if not line.removeprefix("$ ").startswith("omnimill"):
                continue
            command, words = program, shlex.split(line.removeprefix("$ "), comments=True)[1:]
            while words and words[0] in getattr(command, "commands", {}):
                command, words = command.commands[words[0]], words[1:]
            options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            assert not hasattr(command, "commands"), line
            own = words[: words.index("--")] if "--" in words else words
            unknown = [word for word in own if word.startswith("--") and word.split("=")[0] not in options]
            assert unknown == [], line
