"""How a multiple choice is asked: in our own words, or as the official code has it."""

from collections.abc import Sequence

from pixelrefer_plugin.authoring import Prompt, official_text

from .config import VideoReferQConfig

INSTRUCTION = "Reply with the letter of the right option and nothing else."

# Where the official sentence is, and its SHA-256.
_FILES = {
    "one": "PixelRefer/evaluation/pixelrefer/infer_videorefer_q.py",
    "all": "PixelRefer/evaluation/pixelrefer_lite/infer_videorefer_q.py",
}
_SHA256 = "822abf6ba24097b881eea45263f7b3fc9f452b362e2367a5c7445ce351cab521"


def prompts(config: VideoReferQConfig) -> list[Prompt]:
    """The template of a question; raises `DataError` where the official code is not what it must be."""
    if config.official_code is not None:
        file = _FILES[config.masks]
        return [
            Prompt("question", f"{{question}} {{options}}{official_text(config.official_code, file, _SHA256)}", file)
        ]
    origin = "own words" if config.instruction is None else "option instruction"
    return [Prompt("question", f"{{question}}\n{{options}}\n{config.instruction or INSTRUCTION}", origin)]


def asked(config: VideoReferQConfig, template: str, question: str, options: Sequence[str]) -> str:
    """The text of a question: its options stand in lines of their own, or in one line as in the official code."""
    listed = ("\n" if config.official_code is None else " ").join(options)
    before, _, rest = template.partition("{question}")
    between, _, after = rest.partition("{options}")
    return f"{before}{question}{between}{listed}{after}"
