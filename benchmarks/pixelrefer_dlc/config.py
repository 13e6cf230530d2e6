"""Options of `dlc_bench` and `dlc_bench_images`."""

from dataclasses import dataclass

from pixelrefer_plugin.authoring import check_field, checked_questions

OWN_QUESTION = "Describe <region> in detail: how it looks, its parts, its colours and materials. Leave the rest out."


@dataclass(frozen=True)
class DlcConfig:
    """How DLC-Bench is asked and judged.

    Attributes:
        images: folder of the pictures; by default `images` beside the other files.
        question: what the model is asked, with one `<region>`.
        official_code: root of your clone of NVlabs/describe-anything, Haochen-Wang409/Grasp-Any-Region or
            alibaba-damo-academy/PixelRefer: the judge is asked in the official words. With PixelRefer's, the model is
            too, unless `question` says otherwise.
    """

    images: str | None = None
    question: str | None = None
    official_code: str | None = None

    def __post_init__(self) -> None:
        for name in ("images", "official_code"):
            value = getattr(self, name)
            check_field(value is None or (isinstance(value, str) and bool(value)), self, name, "the path of a folder")
        if self.question is not None:
            check_field(isinstance(self.question, str), self, "question", "a text with one <region>")
            checked_questions(self, "question")


@dataclass(frozen=True)
class DlcPicturesConfig(DlcConfig):
    """How DLC-Bench is asked, and judged by one who sees the region.

    Attributes:
        images: see `DlcConfig`, as the next two.
        question: what the model is asked.
        official_code: root of your clone of Haochen-Wang409/Grasp-Any-Region, the only one of the three that has this
            judge; of the others the question alone is taken.
        without_pictures: leave the pictures out of what is sent. For answers of a judge that were published, where the
            pictures are not at hand; who is asked so sees nothing.
    """

    without_pictures: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_field(isinstance(self.without_pictures, bool), self, "without_pictures", "true or false")
