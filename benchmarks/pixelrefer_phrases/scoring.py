"""Figures of captions, sane and official, in all three benchmarks."""

from collections.abc import Sequence

from pixelrefer_plugin.authoring import (
    Answer,
    CaptionMetric,
    CaptionPair,
    Figure,
    Question,
    Scores,
    Tokens,
    Tools,
    caption_figures,
    first_words,
)

from .config import CaptionConfig

METRICS: tuple[CaptionMetric, ...] = ("cider", "meteor", "bleu_4", "rouge_l")


def figures_of_captions(
    questions: Sequence[Question],
    texts: Sequence[str | None],
    *,
    tokens: Tokens,
    official: Sequence[str | None] | None = None,
    reading: str = "",
    judge: str = "",
) -> tuple[list[Figure], list[str]]:
    """The figures of captions, and notes on them.

    Args:
        questions: with their references.
        texts: a caption for each, None where nothing was asked.
        tokens: as `caption_figures` has it.
        official: as the official script reads them, of which it keeps 100 words each; None where it has no figures.
        reading: of the sane figures.
        judge: of all of them.
    """
    references = [question.references for question in questions]

    def figures(captions: Sequence[str | None], reading: str) -> tuple[list[Figure], list[str]]:
        pairs = [CaptionPair(*each) for each in zip(captions, references, strict=True)]
        return caption_figures(pairs, metrics=METRICS, tokens=tokens, reading=reading, judge=judge)

    sane, notes = figures(texts, reading)
    cut = list(texts) if official is None else [text if text is None else first_words(text) for text in official]
    if cut == list(texts):  # the official figures are the same
        return sane, notes
    num_cut = sum(one != other for one, other in zip(cut, texts, strict=True))
    told = f"The official script reads {num_cut:,} of {len(texts):,} captions otherwise. It keeps 100 words of each."
    return [*sane, *figures(cut, "official")[0]], [*notes, told]


def score_captions(
    config: CaptionConfig, questions: Sequence[Question], answers: Sequence[Answer], tools: Tools
) -> Scores:
    """CIDEr, METEOR, BLEU-4 and ROUGE-L; officially of the first 100 words of each answer. SPICE is not computed: its
    parser is not in any package."""
    texts = [None if answer.failure else answer.text for answer in answers]
    figures, notes = figures_of_captions(questions, texts, official=texts, tokens=config.tokens)
    return Scores(figures=figures, notes=notes)
