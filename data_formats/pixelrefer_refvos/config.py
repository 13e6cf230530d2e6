"""Options of the format `refvos`."""

import math
from dataclasses import dataclass

from pixelrefer_plugin.authoring import SEGMENT_QUESTIONS, check_field, checked_questions

_PHRASE, _MASK = "{phrase}", "<seg>"


@dataclass(frozen=True)
class RefVosConfig:
    """How expressions become questions, and where frames and masks are.

    Attributes:
        question: template of the question, or several to choose from by expression; `{phrase}` is the expression.
        answer: with one `<seg>`, the mask of all objects that the expression means.
        frames: folder of the frames, `<video>/<frame>.jpg`, from the media root; `.` where videos lie in that itself.
        masks: from the media root, the folder of the label maps, `<video>/<frame>.png`, or a JSON file of run lengths.
            By default `mask_dict.json` beside the expressions where there is one, else `Annotations`.
        fps: how many of the listed frames there are to a second.
        per_video: one sample for a video, a turn for each of its expressions, instead of one for each expression.
        max_turns: the most turns, each with a mask, of such a sample; a video with more expressions gives several.
        max_frames: read the masks of so many frames of a video at most, spread evenly. No more of them are learnt from
            than are sampled; the rest is read in vain. None: all.
    """

    question: str | tuple[str, ...] = SEGMENT_QUESTIONS
    answer: str = _MASK
    frames: str = "JPEGImages"
    masks: str | None = None
    fps: float = 6.0
    per_video: bool = False
    max_turns: int = 5
    max_frames: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "question", checked_questions(self, "question", num_shown=0))
        has_phrase = all(each.count(_PHRASE) == 1 for each in self.question)
        check_field(has_phrase, self, "question", f"a text with one {_PHRASE}, or several such")
        is_answer = isinstance(self.answer, str) and self.answer.count(_MASK) == 1 and "<region>" not in self.answer
        check_field(is_answer, self, "answer", f"a text with one {_MASK}")
        check_field(isinstance(self.frames, str) and bool(self.frames), self, "frames", "a folder")
        check_field(self.masks is None or bool(self.masks), self, "masks", "a folder or a JSON file")
        check_field(0 < self.fps < math.inf, self, "fps", "a number > 0")
        check_field(isinstance(self.per_video, bool), self, "per_video", "true or false")
        check_field(isinstance(self.max_turns, int) and self.max_turns >= 1, self, "max_turns", "an integer >= 1")
        is_limit = self.max_frames is None or (isinstance(self.max_frames, int) and self.max_frames >= 1)
        check_field(is_limit, self, "max_frames", "an integer >= 1")
