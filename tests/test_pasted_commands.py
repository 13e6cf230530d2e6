"""Commands of the README and of the documentation run as they are written, on what `pixelrefer samples` writes.

Models of the names that they use are tiny and untrained. What is written over or not run at all is declared here.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_sam2 import tiny_transformers

from pixelrefer_plugin import load
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.plugins import get_backbone
from pixelrefer_plugin.quickstart.run import ADAPTER_OPTIONS
from pixelrefer_plugin.samples.writing import Samples, write_samples

ROOT = Path(__file__).parents[1]
TINY = "builtin:tiny_videollama3"
QWEN = "Qwen/Qwen2.5-VL-3B-Instruct"
SMOLVLM = "HuggingFaceTB/SmolVLM-256M-Instruct"

REGION_MODELS = ("my-regions", "models/pixelrefer-2b", "runs/street/model")
MASK_MODELS = ("my-unipixel", "runs/unipixel")

CHANGED = {
    "pixelrefer samples": "pixelrefer samples --overwrite",
    "pixelrefer quickstart": "pixelrefer quickstart --steps 1",
    "--track": "--track --source-option checkpoint=my-sam2 --source-option engine=transformers",
    "pixelrefer describe": "pixelrefer describe --max-new-tokens 4",
    "pixelrefer predict": "pixelrefer predict --max-new-tokens 4",
    "pixelrefer evaluate": "pixelrefer evaluate --max-new-tokens 4 --limit 2",
    "pixelrefer segment": "pixelrefer segment --max-new-tokens 4 --force-mask",
    "pixelrefer train examples/recipes/lora.yaml": (
        f"pixelrefer train {ROOT}/examples/recipes/lora.yaml optim.epochs=null optim.steps=1 optim.batch_size=2 "
        "optim.global_batch_size=2 optim.precision=fp32 data.workers=0 evaluation.samples=2 --overwrite"
    ),
}
"""What is written over: answers are short, training takes a step, what tracks is a tiny SAM 2, samples are there."""

NOT_RUN = {
    "scripts/": "tests/test_quickstart.py runs them",
    "accelerate launch": "tests/test_distributed.py starts processes",
    "import-official": "needs a checkpoint of the hub; tests/test_import_official.py makes one",
    "lvis": "needs the benchmark's files",
    "dlc_bench": "needs the benchmark's files",
    "videorefer_d": "needs the benchmark's files",
    "revos": "needs the benchmark's files",
    "ref_youtube_vos": "needs the benchmark's files",
    "refcoco": "needs the benchmark's files",
    "--judge-model": "needs a judge",
    "pixelrefer score": "needs answers of two models, or the benchmark's files",
    "MODEL": "stands for a model of the reader's",
    "OWNER/BACKBONE": "stands for a model of the reader's; README has a comparison that is run",
    "parts.yaml": "needs the model that the page is about; tests/test_own_data.py reads the file",
}

SECOND_PART = "## The same with a real backbone"


def bash_of(text):
    """The commands of a page's bash blocks, continued lines joined, without comments."""
    joined = "\n".join(re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    lines = (" ".join(shlex.split(line, comments=True, posix=False)) for line in joined.splitlines())
    return [line for line in lines if line]


def page(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith("own-data.md"):
        text = text[text.index(SECOND_PART) :]  # tests/test_own_data.py runs the first
    return text


def written(command):
    for old, new in CHANGED.items():
        command = command.replace(old, new)
    return command


def is_run(command):
    return command.startswith("pixelrefer ") and not any(part in command for part in NOT_RUN)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model that reads regions, one that gives masks, a plain one, and one that tracks; all tiny."""
    folder = tmp_path_factory.mktemp("models")
    backbone, processor = get_backbone("qwen2_5_vl").tiny(0)
    for part in (backbone, processor):
        part.save_pretrained(folder / "plain")
    for part in get_backbone("idefics3").tiny(0):
        part.save_pretrained(folder / "smolvlm")
    tiny_transformers(folder / "sam2", sees=True)
    for name, base, adapter in (
        ("regions", TINY, "saot"),
        ("masks", "builtin:tiny_llava_onevision", "unipixel"),
    ):
        model, processor = load(base, adapter=adapter, adapter_config=ADAPTER_OPTIONS[adapter])
        model.save_pretrained(folder / name, processor)
        model.detach()
    return folder


@pytest.fixture
def here(models, tmp_path, monkeypatch):
    """The folder that commands run in: samples, the clip cut short, and models under the names that pages use."""
    folder = tmp_path / "here"
    write_samples(Samples(folder, num_pictures=1, num_frames=1))
    kinds = {"regions": REGION_MODELS, "masks": MASK_MODELS, "plain": [QWEN], "smolvlm": [SMOLVLM], "sam2": ["my-sam2"]}
    for kind, names in kinds.items():
        for name in names:
            shutil.copytree(models / kind, folder / name)
    monkeypatch.chdir(folder)
    return folder


def run(command):
    program, *arguments = shlex.split(written(command))
    assert program == "pixelrefer"
    result = CliRunner().invoke(main, arguments, input="")
    assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"
    return result.output


PAGES = {
    "README.md": 12,
    "docs/masks.md": 3,
    "docs/predict.md": 2,
    "docs/benchmarks.md": 1,
    "docs/own-data.md": 4,
    "docs/pointing.md": 3,
}
"""Pages, and how many commands of each are run at least."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_commands_run_as_they_are_written(name, here):
    write_samples(Samples(here, overwrite=True, num_pictures=10, num_frames=110))
    commands = [command for command in bash_of(page(name)) if is_run(command)]
    assert len(commands) >= PAGES[name]
    for command in commands:
        run(command)


@pytest.mark.parametrize("name", PAGES)
def test_every_command_is_run_or_declared(name):
    others = [command for command in bash_of(page(name)) if not is_run(command)]
    assert [each for each in others if not any(part in each for part in NOT_RUN) and "pip install" not in each] == []


@pytest.mark.parametrize("name", [*PAGES, "docs/cli.md", "docs/data.md"])
def test_pictures_that_are_named_are_written(name):
    """Files that a reader is not told to make himself: those that samples writes have no other names."""
    named = set(re.findall(r"(?<![\w/.-])([a-z]+\.(?:jpg|mp4))\b", page(name)))
    made = {"asked.mp4", "masks.mp4", "car.mp4"} | {"cover.jpg", "before.jpg", "after.jpg"}  # overlays; no examples
    assert named - made <= set(Samples(Path()).names)


def test_a_command_of_the_readme_asks_about_the_picture(here):
    """The first one that a reader pastes."""
    [command] = [each for each in bash_of(page("README.md")) if each.endswith("--model my-regions") and "jpg" in each]
    assert run(command).strip()


def test_the_ten_lines_run_as_they_are_written(here, capsys):
    """A folder here has the name of the model that they load."""
    text = page("README.md")
    [code] = re.findall(r"^```python\n(.*?)^```$", text[text.index("## Ten lines") :], re.MULTILINE | re.DOTALL)[:1]
    shutil.rmtree("my-regions")  # they make it
    exec(code, {})
    assert capsys.readouterr().out.startswith("[")
    assert (here / "my-regions" / "processor").is_dir()


def test_what_is_declared_is_there():
    """A declaration that nothing needs any more is out of date."""
    text = "\n".join(command for name in PAGES for command in bash_of(page(name)))
    unused = [part for part in (*CHANGED, *NOT_RUN) if part not in text]
    assert unused == []
