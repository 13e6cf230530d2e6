"""Pictures that a judge is shown, as parts of a chat message."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image


def picture_part(picture: Image.Image | np.ndarray) -> dict[str, Any]:
    """The content part of a picture, with its pixels in it: PNG in a data URL.

    Args:
        picture: a picture; or a mask, `(H, W)` bool, which is drawn in white on black.
    """
    shown = picture if isinstance(picture, Image.Image) else Image.fromarray(picture.astype(np.uint8) * 255)
    written = io.BytesIO()
    shown.save(written, format="PNG")
    url = f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"
    return {"type": "image_url", "image_url": {"url": url}}
