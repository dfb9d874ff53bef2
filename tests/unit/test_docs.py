"""README and docs/: their commands and code run, their generated parts are current.

A block of shell or Python runs here, in a folder with small packages and images, unless the line
above it says otherwise: `<!-- slow -->` (run by -m slow), `<!-- run by FILE -->` or
`<!-- not run: REASON -->`. The commands of every block, and of the text, have to parse.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from helpers import MINI, REPOSITORY, Exporter, Runner, jittered, random_pixels
from PIL import Image

from sepvit_edge import load_checkpoint, save_checkpoint
from sepvit_edge.__main__ import COMMANDS, application
from sepvit_edge.backends.registry import RUNTIMES
from sepvit_edge.checkpoints.choose import random_model
from sepvit_edge.package.manifest import SCHEMA_VERSION as MANIFEST_VERSION
from sepvit_edge.profiling.document import SCHEMA_VERSION as PROFILE_VERSION

BLOCK = re.compile(
    r"^(?: *<!-- (?P<mark>[^>]+) -->\n)?(?P<indent> *)```(?P<language>sh|python)\n"
    r"(?P<code>.*?)^(?P=indent)```$",
    re.M | re.S,
)
HEADINGS = ("Needs", "Export", "Options", "Placement", "Traps", "Measured", "Not verified")


def load_make_docs() -> Any:
    path = REPOSITORY / "scripts" / "make_docs.py"
    specification = importlib.util.spec_from_file_location("make_docs", path)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


make_docs = load_make_docs()
PAGES: list[Path] = [*make_docs.pages(), REPOSITORY / "CONTRIBUTING.md"]
NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]


class Block(NamedTuple):
    page: str
    line: int
    mark: str
    language: str
    code: str


def blocks() -> Iterator[Block]:
    for page, name in zip(PAGES, NAMES, strict=True):
        text = page.read_text("utf-8")
        for found in BLOCK.finditer(text):
            line = text.count("\n", 0, found.start("code")) + 1
            code = textwrap.dedent(found["code"])
            yield Block(name, line, found["mark"] or "", found["language"], code)


def with_mark(mark: str) -> list[Any]:
    return [pytest.param(b, id=f"{b.page}:{b.line}") for b in blocks() if b.mark == mark]


def command_lines(code: str) -> list[list[str]]:
    lines = [shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines()]
    return [words for words in lines if words]


def ours(words: list[str]) -> list[str] | None:
    """Return a command of ours and its arguments, however it is started."""
    if words[0] == "sepvit-edge":
        return words[1:]
    if "-m" in words and words[words.index("-m") + 1].startswith("sepvit_edge."):
        rest = words[words.index("-m") + 1 :]
        return [rest[0].removeprefix("sepvit_edge."), *rest[1:]]
    return None


def check_usage(name: str, *arguments: str) -> None:
    """Parse a command line; unknown names and wrong values exit."""
    group: Any = typer.main.get_command(application())
    group.commands[name].make_context(name, list(arguments))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_generated_parts_are_current(page: Path) -> None:
    text = page.read_text("utf-8")
    assert make_docs.filled(text) == text, "run python scripts/make_docs.py"


def test_a_generated_part_that_is_old_is_noticed() -> None:
    text = (REPOSITORY / "docs" / "commands.md").read_text("utf-8")
    assert make_docs.filled(text.replace("`--image-size`", "`--size`")) == text


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
    links = re.findall(r"\]\(([^)#\s]+)", text)
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_every_target_has_a_page_of_the_template() -> None:
    folder = REPOSITORY / "docs" / "targets"
    assert {path.stem for path in folder.glob("*.md")} == {*RUNTIMES, "index"}
    for target in RUNTIMES:
        text = (folder / f"{target}.md").read_text("utf-8")
        assert tuple(re.findall(r"^## (.*)$", text, re.M)) == HEADINGS
        assert f"<!-- generated: recipes {target} -->" in text


def test_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text("utf-8").splitlines()) <= 120


def test_the_changelog_has_the_versions() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text("utf-8")
    assert f"| manifest | {MANIFEST_VERSION} |" in text and f"- {MANIFEST_VERSION}: " in text
    assert f"| profile document | {PROFILE_VERSION} |" in text


def test_forms_are_valid_yaml() -> None:
    yaml = pytest.importorskip("yaml")
    files = [*(REPOSITORY / ".github").rglob("*.yml"), REPOSITORY / ".pre-commit-config.yaml"]
    documents = {path.name: yaml.safe_load(path.read_text("utf-8")) for path in files}
    (step,) = (s["run"] for s in documents["ci.yml"]["jobs"]["everything"]["steps"] if "run" in s)
    assert (REPOSITORY / step).is_file()
    fields = {field["id"]: field for field in documents["bug.yml"]["body"]}
    assert "doctor --json" in fields["doctor"]["attributes"]["label"]


def test_marks_are_known_and_say_why() -> None:
    reason = re.compile(r"(slow|main-job|tests|not run: .{5,}|run by (?P<file>\S+))?")
    for block in blocks():
        found = reason.fullmatch(block.mark)
        assert found, f"{block.page}:{block.line}: {block.mark}"
        assert found["file"] is None or (REPOSITORY / found["file"]).exists()
    assert sum(not block.mark for block in blocks()) >= 4


def test_commands_in_blocks_parse() -> None:
    found = [
        (f"{block.page}:{block.line}", command)
        for block in blocks()
        if block.language == "sh"
        for words in command_lines(block.code)
        if (command := ours(words))
    ]
    assert len(found) > 50
    for place, (name, *arguments) in found:
        if name in COMMANDS:
            try:
                check_usage(name, *arguments)
            except Exception as error:
                pytest.fail(f"{place}: {name} {shlex.join(arguments)}: {error}")


def test_commands_in_the_text_parse() -> None:
    for page, name in zip(PAGES, NAMES, strict=True):
        for code in re.findall(r"`sepvit-edge ([^`]+)`", page.read_text("utf-8")):
            command, *arguments = shlex.split(code)
            if command in COMMANDS and arguments:
                try:
                    check_usage(command, *arguments)
                except Exception as error:
                    pytest.fail(f"{name}: {code}: {error}")


def test_a_wrong_option_is_noticed() -> None:
    with pytest.raises(Exception, match="--image-sise"):
        check_usage("export", "--image-sise", "64")
    with pytest.raises(Exception, match="valid integer"):
        check_usage("export", "--image-size", "big")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, exported: Exporter) -> Path:
    """A folder with everything that the pages name: packages, weights, photos."""
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("docs")
    save_checkpoint(jittered(MINI, image_size=32), folder / "my.pth")
    package = exported(load_checkpoint(folder / "my.pth"), images=4)
    (folder / "packages").mkdir()
    (folder / "packages" / "lite-openvino-fp32").symlink_to(package.path)
    (folder / "labels.txt").write_text("".join(f"class {i}\n" for i in range(10)))
    pixels = random_pixels(10, 80)
    for place in ("photos/train", "photos/val", "images"):
        for i, image in enumerate(pixels):
            path = folder / place / (f"{i}/a.jpg" if "photos" in place else f"{i}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    Image.fromarray(pixels[0]).save(folder / "photo.jpg")
    return folder


def run_block(block: Block, run_command: Runner) -> None:
    if block.language == "python":
        exec(compile(block.code, f"{block.page}:{block.line}", "exec"), {"__name__": "example"})
        return
    for words in command_lines(block.code):
        assert words[0] == "sepvit-edge", f"{words}: only our commands run; mark the block"
        done = run_command(*words[1:])
        assert done.status == 0, f"{shlex.join(words)}: {done.err}"


@pytest.fixture
def place(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, a copy of the workspace: no block meets what another one has written."""
    copy = shutil.copytree(workspace, tmp_path / "place", symlinks=True)
    monkeypatch.chdir(copy)
    return copy


@pytest.mark.parametrize("block", with_mark(""))
def test_blocks_run(block: Block, run_command: Runner, place: Path) -> None:
    run_block(block, run_command)


@pytest.mark.slow
@pytest.mark.parametrize("block", with_mark("slow"))
def test_slow_blocks_run(
    block: Block, run_command: Runner, place: Path, exported: Exporter
) -> None:
    int8 = "packages/lite-openvino-int8"
    if int8 in block.code and f"--output {int8}" not in block.code:
        # --by-block makes the models of both again: seeded random weights need no file.
        model = random_model(MINI, 10, 64, tuple(str(i) for i in range(10)))
        for precision in ("fp32", "int8"):
            package = place / "packages" / f"lite-openvino-{precision}"
            package.unlink(missing_ok=True)
            package.symlink_to(exported(model, precision=precision, images=4).path)
    run_block(block, run_command)
