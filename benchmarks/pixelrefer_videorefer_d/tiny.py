"""Small files in the official layout of VideoRefer-Bench-D, for the conformance kit."""

import json
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import Region
from pixelrefer_plugin.testing import TINY_HW, write_tiny_video

_CAPTIONS = ("A red car drives to the left.", "A grey lamp swings slowly.", "A dog lies still.")


def tiny(folder: Path) -> None:
    """Three objects in two videos, each with masks on three frames."""
    for name in ("street.mp4", "yard.mp4"):
        write_tiny_video(folder / "Panda-70M-part" / name)
    records = [
        {
            "id": number,
            "video": "yard.mp4" if number else "street.mp4",
            "caption": caption,
            "frame_idx": "5",
            "annotation": [{str(frame): {"segmentation": _mask(5 * number + frame)} for frame in (2, 5, 7)}],
        }
        for number, caption in enumerate(_CAPTIONS)
    ]
    (folder / "VideoRefer-Bench-D.json").write_text(json.dumps(records), encoding="utf-8")


def _mask(left: int) -> dict[str, Any]:
    return Region.from_box((left, 5, left + 20, 30)).to_mask(TINY_HW).to_rle()
