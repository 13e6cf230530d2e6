"""Small files in the official layout of Ferret-Bench, for the conformance kit."""

import json
from pathlib import Path
from typing import Any

from pixelrefer_plugin.testing import write_tiny_picture

_ANSWERS = ("It keeps rain out.", "They are about to leave.", "It gives light.")


def tiny(folder: Path) -> None:
    """Three questions on a picture each; one number of the questions is left out, as in the official files."""
    regions: list[dict[str, Any]] = []
    files: dict[str, list[dict[str, Any]]] = {"question": [], "context": [], "answer": []}
    for number, answer in zip((0, 1, 3), _ANSWERS, strict=True):
        image = f"{number:012d}.jpg"
        write_tiny_picture(folder / "val2017" / image, seed=number)
        box = [[5, 5, 30, 5, 30, 40, 5, 40]]
        keys: dict[str, Any] = {"question_id": number, "image": image}
        text = "What is the purpose of the object <region>?"
        annotation = {"bbox": [5, 5, 25, 35], "segmentation": box}
        regions.append({**keys, "category": "reason", "text": text, "annotation": annotation})
        keys["category"] = "refer_reason"
        files["question"].append({**keys, "text": text.replace("<region>", "[0.078, 0.104, 0.469, 0.833]")})
        files["context"].append({**keys, "text": "Objects:\nObject 0 : thing at [0.078, 0.104, 0.469, 0.833]."})
        files["answer"].append({**keys, "text": answer})
    (folder / "box_refer_reason.json").write_text(json.dumps(regions), encoding="utf-8")
    (folder / "refer_reason").mkdir()
    for name, lines in files.items():
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (folder / "refer_reason" / f"{name}.jsonl").write_text(text, encoding="utf-8")
    rule = {"role": "Assistant", "prompt": "Score both answers from 1 to 10, on the first line, parted by a blank."}
    (folder / "rule.json").write_text(json.dumps({"refer_reason": rule}), encoding="utf-8")
