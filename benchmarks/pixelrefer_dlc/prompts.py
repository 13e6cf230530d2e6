"""What the model and the judge are asked: in words of our own, or in the official ones from the user's clone."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pixelrefer_plugin.authoring import DataError, EvaluationError, Prompt, official_text

from .config import OWN_QUESTION, DlcConfig, DlcPicturesConfig

_TEXT_JUDGES = {
    "evaluation/eval_model_outputs.py": "NVlabs/describe-anything",
    "evaluation/DLC-Bench/eval_llama_without_image.py": "Haochen-Wang409/Grasp-Any-Region",
    "PixelRefer/evaluation/dam/eval.py": "alibaba-damo-academy/PixelRefer",
}
_PICTURE_JUDGES = {"evaluation/DLC-Bench/eval_gpt_with_image.py": "Haochen-Wang409/Grasp-Any-Region"}
_QUESTIONS = {"PixelRefer/evaluation/pixelrefer/infer_dam.py": "alibaba-damo-academy/PixelRefer"}

_QUESTION_SHA256 = "93edd2816740d39acefb0ca9c85c935031c73b24a6677ba96dbc00f03ca6a358"
_TEXT_SHA256 = "611f2a3ee5ce49d153324d6283f282f6fe21bfa9ea5606fa1e5ce96b96d96514"
_PICTURES_SHA256 = "123d16e4f4367739414018352356720a252f2da27760f86f086f0f8146d33df9"
# The constant parts of what is asked about the class: of one object, of several, and of one that is seen.
_ONE_SHA256 = (
    "b051baf8e5464bb4f1df1be1bbc6b46fd52b3980803b242e3d93fd1add765e03",
    "9e42a37e0eff8e928c419d8ba0c56b34dfaabe71adc96f0d592dc5e0894ba278",
)
_SEVERAL_SHA256 = (
    "0fc0223067507d6209abe76abb07df708f3e5151cecbc21d9b9dceb7be9f36d6",
    "cce1eadb80429cb4ba650923b133e5bc5237d50fd865bbb726f6475e46ba8e85",
)
_SEEN_SHA256 = (
    "2b17af9d0837f7310475c98fae70bef4daed9e022d7bd50f88124a0d2a45aa31",
    "2035504acbcbf58ec5e45016063561babb90d66e8f32c883d0dcaa0bc3b12a9c",
    "c0bdc5f3945345a78fe27f67405e484af47564f0ed2a23701228cdd01041a347",
)
_CAPTIONS_SHA256 = (
    "da58a05e96813b55672fabce3abbe67ccfab1f77dcbef787580dec9c9556748a",
    "2f56f5cb2730e24214e23dc7f326a388850d7497eaa5484f007ea3087301925c",
)

OWN_WORDS = "own words"
_OWN_TEMPLATE = """Somebody described one object of a picture. Here is a question about that description, with lettered
choices. Take the choice that suits the description best; it need not suit it in every word. Reply with its letter and
its text alone.

Description:
{pred_caption}

Question:
{question_text_str}"""
_OWN_RECOGNITION = "Can the object that is described be of the class '{}', or of one like it? A close class will do."
_OWN_CAPTIONS = ("The object, with what is around it:", "Where in that picture the object is, in white:")


@dataclass(frozen=True)
class JudgePrompts:
    """What a judge is asked with.

    Attributes:
        template: with the fields `pred_caption` and `question_text_str`.
        recognition: the question about the class, from its name.
        captions: what stands before the picture, and before its mask; empty where the judge sees neither.
        frame: around the template where pictures stand before it.
        origin: `own words`, or where they were read.
    """

    template: str
    recognition: Callable[[str], str]
    captions: tuple[str, ...] = ()
    frame: str = "{}"
    origin: str = OWN_WORDS

    @property
    def is_official(self) -> bool:
        """Whether these are the words of an official script."""
        return self.origin != OWN_WORDS


def question_of(config: DlcConfig) -> str:
    """What the model is asked."""
    return _question_prompt(config).text


def prompts_of(config: DlcConfig) -> list[Prompt]:
    """What is asked, for the report."""
    judge = judge_prompts(config)
    shown = "CLASS"
    return [
        _question_prompt(config),
        Prompt("judge", judge.template, judge.origin),
        Prompt("judge, recognition", judge.recognition(shown), judge.origin),
    ]


def _question_prompt(config: DlcConfig) -> Prompt:
    if config.question is not None:
        return Prompt("question", config.question, "option question")
    if config.official_code and (file := _found(config.official_code, _QUESTIONS)):
        text = official_text(config.official_code, file, _QUESTION_SHA256)
        return Prompt("question", text, f"{_QUESTIONS[file]}: {file}")
    return Prompt("question", OWN_QUESTION)


def judge_prompts(config: DlcConfig) -> JudgePrompts:
    """What the judge is asked with.

    Raises:
        DataError: the folder of `official_code` has none of the official scripts, or another version of one.
        EvaluationError: the official words need a package that is not installed, or not in that version.
    """
    sees = isinstance(config, DlcPicturesConfig)
    scripts = _PICTURE_JUDGES if sees else _TEXT_JUDGES
    root = config.official_code
    file = _found(root, scripts) if root else ""
    if root and not file and not _found(root, {**_TEXT_JUDGES, **_QUESTIONS}):
        listed = ", ".join(f"{file} of {repository}" for file, repository in {**_TEXT_JUDGES, **scripts}.items())
        raise DataError(f"'{root}' has no official script of DLC-Bench: expected {listed}. Name the root of a clone.")
    if not root or not file:
        captions = _OWN_CAPTIONS if sees else ()
        return JudgePrompts(_OWN_TEMPLATE, _OWN_RECOGNITION.format, captions)
    return (_official_pictures if sees else _official_text)(root, file, scripts[file])


def _official_text(root: str, file: str, repository: str) -> JudgePrompts:
    texts = _Texts(root, file, repository)
    one, several = texts(*_ONE_SHA256), texts(*_SEVERAL_SHA256)
    is_plural, with_article = _english()

    def recognition(name: str) -> str:
        return name.join(several) if is_plural(name) else with_article(name).join(one)

    return JudgePrompts(texts(_TEXT_SHA256)[0], recognition, origin=f"{repository}: {file}")


def _official_pictures(root: str, file: str, repository: str) -> JudgePrompts:
    texts = _Texts(root, file, repository)
    before, between, after = texts(*_SEEN_SHA256)
    return JudgePrompts(
        texts(_PICTURES_SHA256)[0],
        lambda name: f"{before}{name}{between}{name}{after}",
        captions=texts(*_CAPTIONS_SHA256),
        frame="\n{}\n",
        origin=f"{repository}: {file}",
    )


@dataclass(frozen=True)
class _Texts:
    """The texts of one official script."""

    root: str
    file: str
    repository: str

    def __call__(self, *hashes: str) -> tuple[str, ...]:
        return tuple(official_text(self.root, self.file, each, repository=self.repository) for each in hashes)


def _found(root: str, files: dict[str, str]) -> str:
    """The first of some files that a folder has; empty where it has none."""
    return next((file for file in files if (Path(root) / file).is_file()), "")


def _english() -> tuple[Callable[[str], bool], Callable[[str], str]]:
    """Whether a name is a plural, and a name with its article, as the official scripts have both.

    They call the package inflect, of which 7.6 and later take other names for plurals.
    """
    wanted = "inflect<7.6, which the official prompts are made with: pip install 'pixelrefer-plugin[eval]'"
    try:
        version = metadata.version("inflect")
        is_later = tuple(int(each) for each in version.split(".")[:2] if each.isdigit()) >= (7, 6)
        if is_later:
            raise EvaluationError(f"This is inflect {version}, not {wanted}.")
        import inflect
    except ImportError as error:
        raise EvaluationError(f"There is no {wanted}.") from error
    engine = inflect.engine()
    return lambda name: name != "bus" and engine.singular_noun(name) is not False, engine.a
