"""The benchmarks: their files, published figures, and how their questions are made."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import (
    BenchmarkFile,
    BenchmarkSpec,
    DataError,
    Prompt,
    PublishedFigure,
    Question,
    require_there,
    shown,
)

from . import tiny
from .config import MevisConfig, RefDavisConfig, RefSavConfig, RefYoutubeVosConfig, RevosConfig, VideoConfig
from .expressions import Expression, first_there, question_of, read_expressions
from .pictures import export, read_pictures
from .scoring import TYPES, refuse_hidden, score_expressions, score_revos
from .truth import Annotations, Foreground, LabelMaps, Masks, RunLengths

_UNIPIXEL = "UniPixel's README (github.com/PolyU-ChenLab/UniPixel), Public Benchmarks"

_MEVIS = "https://github.com/henghuiding/MeViS"
_MEVIS_FILES = (
    BenchmarkFile("valid_u/meta_expressions.json", f"The expressions of MeViS's valid_u, from {_MEVIS}.", True),
    BenchmarkFile("valid_u/mask_dict.json", f"The masks of MeViS's valid_u, from {_MEVIS}.", True),
    BenchmarkFile("valid_u/JPEGImages", f"The frames of MeViS's valid_u, from {_MEVIS}.", True),
    BenchmarkFile("valid/meta_expressions.json", f"The expressions of MeViS's valid, from {_MEVIS}.", True),
    BenchmarkFile("valid/JPEGImages", f"The frames of MeViS's valid, from {_MEVIS}.", True),
)


def _open_mevis(config: MevisConfig, folder: Path) -> Sequence[Question]:
    place = Path(folder) / config.split
    expressions = read_expressions(place / "meta_expressions.json", _about(_MEVIS_FILES, config.split))
    truth = _hidden if config.split == "valid" else _annotations(place / "mask_dict.json", _MEVIS_FILES[1].about)
    images = first_there(Path(folder), f"{config.split}/JPEGImages", given=config.images)
    return [question_of(each, config, images, truth=truth(each)) for each in expressions]


def _score_mevis(config: MevisConfig, *given: Any) -> Any:
    return refuse_hidden(config, *given) if config.split == "valid" else score_expressions(config, *given)


_YOUTUBE = "https://youtube-vos.org/dataset/rvos"
_YOUTUBE_FILES = (
    BenchmarkFile("meta_expressions/valid/meta_expressions.json", f"The expressions of Ref-YouTube-VOS, {_YOUTUBE}."),
    BenchmarkFile("valid/JPEGImages", f"The frames of Ref-YouTube-VOS's valid, from {_YOUTUBE}."),
)


def _open_youtube(config: RefYoutubeVosConfig, folder: Path) -> Sequence[Question]:
    expressions = read_expressions(Path(folder) / _YOUTUBE_FILES[0].path, _YOUTUBE_FILES[0].about)
    images = first_there(Path(folder), "valid/JPEGImages", given=config.images)
    return [question_of(each, config, images, truth=None) for each in expressions]


_DAVIS_FILES = (
    BenchmarkFile(
        "meta_expressions/valid/meta_expressions.json",
        "The expressions of Ref-DAVIS17 as Ref-YouTube-VOS has them, from ReferFormer (github.com/wjn922/ReferFormer).",
    ),
    BenchmarkFile(
        "valid/mask_dict.pkl",
        "The masks by expression, from UniPixel's data (huggingface.co/datasets/PolyU-ChenLab/UniPixel-SFT-1M); "
        "without it the label maps are read.",
        True,
    ),
    BenchmarkFile("DAVIS/JPEGImages/480p", "The frames of DAVIS 2017, from https://davischallenge.org.", True),
    BenchmarkFile("DAVIS/Annotations/480p", "The label maps of DAVIS 2017, from https://davischallenge.org.", True),
    BenchmarkFile("valid/JPEGImages", "The same frames, where ReferFormer's script puts them.", True),
    BenchmarkFile("valid/Annotations", "The same label maps, where ReferFormer's script puts them.", True),
)


def _open_davis(config: RefDavisConfig, folder: Path) -> Sequence[Question]:
    folder = Path(folder)
    expressions = read_expressions(folder / _DAVIS_FILES[0].path, _DAVIS_FILES[0].about)
    images = first_there(folder, "DAVIS/JPEGImages/480p", "valid/JPEGImages", given=config.images)
    pickled = folder / "valid/mask_dict.pkl"
    if pickled.is_file():
        masks = RunLengths.open_pickle(pickled)
        return [
            question_of(each, config, images, truth=Annotations(masks, (str(each.number),))) for each in expressions
        ]
    labels = first_there(folder, "DAVIS/Annotations/480p", "valid/Annotations")
    require_there(labels, _DAVIS_FILES[3].about)
    return [question_of(each, config, images, truth=_label_maps(each, labels)) for each in expressions]


_REVOS = "https://github.com/cilinyan/ReVOS-api"
_REVOS_FILES = (
    BenchmarkFile("meta_expressions_valid_.json", f"The expressions of ReVOS's valid, from {_REVOS}."),
    BenchmarkFile("mask_dict.json", f"The masks of ReVOS, from {_REVOS}."),
    BenchmarkFile("mask_dict_foreground.json", f"The foreground of ReVOS's videos, from {_REVOS}."),
)


def _open_revos(config: RevosConfig, folder: Path) -> Sequence[Question]:
    folder = Path(folder)
    expressions = read_expressions(folder / _REVOS_FILES[0].path, _REVOS_FILES[0].about)
    truth = _annotations(folder / _REVOS_FILES[1].path, _REVOS_FILES[1].about)
    require_there(folder / _REVOS_FILES[2].path, _REVOS_FILES[2].about)
    foreground = RunLengths.open_json(folder / _REVOS_FILES[2].path, below="masks_rle")
    images = first_there(folder, ".", given=config.images)
    return [
        question_of(
            each,
            config,
            images,
            truth=truth(each),
            template=config.sentence if each.text.endswith("?") else config.question,
            type=_type(each, folder / _REVOS_FILES[0].path),
            foreground=Foreground(foreground, each.video),
        )
        for each in expressions
    ]


_TYPES = (*TYPES, "hallucination")


def _type(expression: Expression, path: Path) -> str:
    found = expression.record.get("type_id")
    if not isinstance(found, int) or not 0 <= found < len(_TYPES):
        raise DataError(
            f"'{path}', video '{expression.video[:60]}', expression '{expression.id[:60]}': its 'type_id' must be 0, "
            f"referring, 1, reasoning, or 2, hallucination, got {shown(found)}."
        )
    return _TYPES[found]


_SAV = "UniPixel's data (huggingface.co/datasets/PolyU-ChenLab/UniPixel-SFT-1M)"
_SAV_FILES = (
    BenchmarkFile("valid/meta_expressions_valid.json", f"The expressions of Ref-SAV's valid, from {_SAV}."),
    BenchmarkFile("valid/mask_dict.json", f"The masks of Ref-SAV's valid, from {_SAV}."),
    BenchmarkFile("valid/videos", f"The frames of Ref-SAV's valid, from {_SAV}."),
)


def _open_sav(config: RefSavConfig, folder: Path) -> Sequence[Question]:
    folder = Path(folder)
    expressions = read_expressions(folder / _SAV_FILES[0].path, _SAV_FILES[0].about)
    truth = _annotations(folder / _SAV_FILES[1].path, _SAV_FILES[1].about)
    images = first_there(folder, "valid/videos", given=config.images)
    return [question_of(each, config, images, truth=truth(each)) for each in expressions]


def _hidden(expression: Expression) -> Masks | None:
    return None


def _annotations(path: Path, about: str) -> Callable[[Expression], Masks]:
    """What gives an expression's masks, from a file of run lengths by annotation."""
    require_there(path, about)
    masks = RunLengths.open_json(path)
    return lambda expression: Annotations(masks, expression.listed("anno_id"))


def _label_maps(expression: Expression, folder: Path) -> LabelMaps:
    numbers = expression.listed("obj_id")
    if not numbers or not all(number.isdecimal() and int(number) < 256 for number in numbers):
        raise DataError(
            f"Video '{expression.video[:60]}', expression '{expression.id[:60]}': its 'obj_id' must be numbers of "
            f"objects, got {shown(expression.record.get('obj_id'))}."
        )
    return LabelMaps(folder / expression.video, expression.frames, tuple(map(int, numbers)))


def _about(files: Sequence[BenchmarkFile], split: str) -> str:
    return next(file.about for file in files if file.path.startswith(f"{split}/meta"))


def _prompts(config: VideoConfig) -> Sequence[Prompt]:
    sentence = getattr(config, "sentence", None)
    more = [Prompt("question, where the expression is one", sentence)] if sentence else []
    return [Prompt("question", config.question), *more]


def _published(where: str = "", **values: tuple[float, float]) -> tuple[PublishedFigure, ...]:
    return tuple(
        PublishedFigure(model, name, of_models[index] / 100, f"{_UNIPIXEL}, {where}" if where else _UNIPIXEL)
        for index, model in enumerate(("UniPixel-3B", "UniPixel-7B"))
        for name, of_models in values.items()
    )


def _spec(name: str, about: str, config: type[VideoConfig], **parts: Any) -> BenchmarkSpec:
    return BenchmarkSpec(
        name=name,
        about=about,
        config=config,
        needs=("masks",),
        max_new_tokens=512,
        prompts=_prompts,
        answer_formats={"png": read_pictures},
        export=export,
        **parts,
    )


SPECS = (
    _spec(
        "mevis",
        "MeViS: the mask of what an expression about motion means, on every frame of a video.",
        MevisConfig,
        files=_MEVIS_FILES,
        open=_open_mevis,
        score=_score_mevis,
        published=_published("split valid", j_and_f=(53.1, 55.8), j=(50.4, 53.2), f=(55.7, 58.3)),
        tiny=tiny.mevis,
    ),
    _spec(
        "ref_youtube_vos",
        "Ref-YouTube-VOS: the mask of what an expression means, on every frame of a video; a server scores it.",
        RefYoutubeVosConfig,
        files=_YOUTUBE_FILES,
        open=_open_youtube,
        score=refuse_hidden,
        published=_published(j_and_f=(70.5, 71.0), j=(68.6, 69.5), f=(72.3, 72.4)),
        tiny=tiny.ref_youtube_vos,
    ),
    _spec(
        "ref_davis17",
        "Ref-DAVIS17: the mask of what an expression means, on every frame of a video.",
        RefDavisConfig,
        files=_DAVIS_FILES,
        open=_open_davis,
        score=score_expressions,
        published=_published(j_and_f=(74.2, 76.4), j=(70.7, 72.7), f=(77.8, 80.1)),
        tiny=tiny.ref_davis17,
    ),
    _spec(
        "revos",
        "ReVOS: the mask of what a phrase or a question means, which may take reasoning, on every frame of a video.",
        RevosConfig,
        files=_REVOS_FILES,
        open=_open_revos,
        score=score_revos,
        published=_published(j_and_f=(62.1, 63.7), j=(59.7, 61.7), f=(64.4, 65.7)),
        tiny=tiny.revos,
    ),
    _spec(
        "ref_sav",
        "Ref-SAV: the mask of what a long description means, on every frame of a video.",
        RefSavConfig,
        files=_SAV_FILES,
        open=_open_sav,
        score=score_expressions,
        published=_published(j_and_f=(67.2, 69.0), j=(66.9, 68.5), f=(67.6, 69.6)),
        tiny=tiny.ref_sav,
    ),
)
