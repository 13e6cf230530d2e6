"""Options of the benchmarks `pope` and `mvbench`."""

import re
from dataclasses import dataclass

from pixelrefer_plugin.authoring import check_field

from .tasks import SPLITS, TASKS


@dataclass(frozen=True)
class PopeConfig:
    """What of POPE is asked, and how.

    Attributes:
        splits: `adversarial`, `popular`, `random`, or some of them.
        images: folder of the pictures of COCO val2014; where it is relative, below the benchmark's folder.
        instruction: what stands behind each question instead of the default sentence; may be empty.
    """

    splits: tuple[str, ...] = SPLITS
    images: str = "val2014"
    instruction: str = "Answer yes or no."

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", _some(self, "splits", SPLITS))
        check_field(_is_text(self.images), self, "images", "a text")
        check_field(isinstance(self.instruction, str), self, "instruction", "a text")


@dataclass(frozen=True)
class MvbenchConfig:
    """What of MVBench is asked, and how.

    Attributes:
        tasks: names of tasks, such as `Action Sequence`; all 20 by default.
        json: folder of the tasks' files; where it is relative, below the benchmark's folder.
        videos: folder of the videos, in the same way.
        fps: frames per second that are shown, of the part of the video that a question is about.
        max_frames: of a video.
        instruction: what stands behind the options instead of the default sentence.
        official_code: folder of a clone of alibaba-damo-academy/PixelRefer, to ask the model what the official code
            asks. Without it, a prompt of our own words is used.
    """

    tasks: tuple[str, ...] = tuple(TASKS)
    json: str = "json"
    videos: str = "video"
    fps: float = 1.0
    max_frames: int = 128
    instruction: str | None = None
    official_code: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", _some(self, "tasks", tuple(TASKS)))
        check_field(0 < self.fps < float("inf"), self, "fps", "a number > 0")
        is_count = isinstance(self.max_frames, int) and not isinstance(self.max_frames, bool) and self.max_frames >= 1
        check_field(is_count, self, "max_frames", "an integer >= 1")
        for name in ("json", "videos"):
            check_field(_is_text(getattr(self, name)), self, name, "a text")
        for name in ("instruction", "official_code"):
            check_field(getattr(self, name) is None or _is_text(getattr(self, name)), self, name, "a text")
        both = self.instruction is not None and self.official_code is not None
        check_field(not both, self, "instruction", "left out where official_code says what is asked")


def _some(config: PopeConfig | MvbenchConfig, name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """One name or several, in the order of the known ones."""
    given = getattr(config, name)
    names = (given,) if isinstance(given, str) else given
    is_list = isinstance(names, list | tuple) and bool(names) and all(each in known for each in names)
    check_field(is_list, config, name, f"some of {', '.join(known)}")
    return tuple(each for each in known if each in names)


def _is_text(value: object) -> bool:
    """Whether it is a text, of characters that a path may have."""
    return isinstance(value, str) and bool(value) and not re.search("[\0\ud800-\udfff]", value)
