"""Options of the benchmarks `lvis` and `paco`."""

from dataclasses import dataclass

from pixelrefer_plugin.authoring import REGION_MARKER, check_field


@dataclass(frozen=True)
class RecognitionConfig:
    """Where the pictures are, and what the model is asked.

    Attributes:
        images: folder of COCO 2017's pictures, which lie in it or in its folders `train2017` and `val2017`; where it is
            relative, below the benchmark's folder.
        question: to ask instead of the default one, with one `<region>`.
        official_code: folder of a clone of alibaba-damo-academy/PixelRefer, to ask what the official code asks. Without
            it, a question of our own words is asked.
    """

    images: str = "images"
    question: str | None = None
    official_code: str | None = None

    def __post_init__(self) -> None:
        check_field(isinstance(self.images, str) and bool(self.images), self, "images", "a folder")
        once = self.question is None or (isinstance(self.question, str) and self.question.count(REGION_MARKER) == 1)
        check_field(once, self, "question", f"a text with one {REGION_MARKER}")
        given = self.official_code
        check_field(given is None or (isinstance(given, str) and bool(given)), self, "official_code", "a folder")
