"""MeViS, Ref-YouTube-VOS, Ref-DAVIS17, ReVOS, Ref-SAV: official layouts, official numbers, and whole runs."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import stencil
import torch
from PIL import Image

from pixelrefer_plugin import Region, VideoRegion
from pixelrefer_plugin.authoring import read_segmentation
from pixelrefer_plugin.contracts.questions import Answer
from pixelrefer_plugin.errors import DataError, EvaluationError, PixelReferError
from pixelrefer_plugin.evaluation.asking.engine import ModelEngine
from pixelrefer_plugin.plugins import get_benchmark
from pixelrefer_plugin.testing import TINY_HW, make_pair

GOLDEN = Path(__file__).parents[2] / "shared" / "evaluation" / "golden" / "segmentation.json"
NAMES = ("mevis", "ref_youtube_vos", "ref_davis17", "revos", "ref_sav")
SCORED = ("mevis", "ref_davis17", "revos", "ref_sav")


class NoTools:
    judge = ""

    def ask_judge(self, requests):
        raise AssertionError("nobody judges masks")

    def encode(self, texts):
        raise AssertionError("nobody encodes masks")


def opened(name, folder, **options):
    spec = get_benchmark(name)
    config = spec.make_config(options)
    return spec, config, list(spec.open(config, folder))


def tiny(name, folder, **options):
    get_benchmark(name).tiny(folder)
    return opened(name, folder, **options)


def scored(spec, config, questions, answers):
    scores = spec.score(config, questions, answers, NoTools())
    return {figure.label: figure for figure in scores.figures}, scores


def perfect(question):
    """The true masks as an answer."""
    truth, count = question.facts["truth"], len(question.facts["frames"])
    dense = [sum((mask.dense() for mask in truth.objects(frame)), np.zeros(TINY_HW, bool)) for frame in range(count)]
    frames = {frame: Region.from_mask(mask) for frame, mask in enumerate(dense) if mask.any()}
    absent = tuple(frame for frame in range(count) if frame not in frames)
    return Answer(
        id=question.id,
        text="<seg>",
        objects=(VideoRegion(frames, absent=absent),),
        image_hw=TINY_HW,
        frames=tuple(range(count)),
    )


# -- the official code's numbers ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.is_file():
        pytest.skip("no golden numbers here")
    return json.loads(GOLDEN.read_text())


def decode(rle):
    region = read_segmentation(rle)
    return np.zeros(rle["size"], dtype=bool) if region is None else region.to_mask(tuple(rle["size"])).dense()


def write_golden(golden, folder, name):
    """Expressions and masks in the official layout; returns the folder of predicted pictures."""
    videos = {}
    for key, each in golden["expressions"].items():
        video, id = key.rsplit("_", 1)
        entry = videos.setdefault(video, {"frames": golden["frames"], "expressions": {}})
        entry["expressions"][id] = {
            "exp": "it",
            "obj_id": each["objects"],
            "anno_id": each["objects"],
            "type_id": each["type_id"],
        }
    place = folder / "data" / ("valid_u" if name == "mevis" else ".")
    place.mkdir(parents=True)
    meta = "meta_expressions.json" if name == "mevis" else "meta_expressions_valid_.json"
    (place / meta).write_text(json.dumps({"videos": videos}))
    (place / "mask_dict.json").write_text(json.dumps(golden["objects"]))
    foreground = {video: {"masks_rle": rles} for video, rles in golden["foreground"].items()}
    (place / "mask_dict_foreground.json").write_text(json.dumps(foreground))
    for key, each in golden["expressions"].items():
        video, id = key.rsplit("_", 1)
        for frame, rle in zip(golden["frames"], each["prediction"], strict=True):
            path = folder / "pngs" / video / id / f"{frame}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(decode(rle).astype(np.uint8) * 255).save(path)
    return folder / "pngs"


def golden_figures(golden, folder, name, spoil=lambda pngs: None, **options):
    pngs = write_golden(golden, folder, name)
    spoil(pngs)
    spec, config, questions = opened(name, folder / "data", **options)
    answers = list(spec.answer_formats["png"](config, pngs, questions))
    figures, scores = scored(spec, config, questions, answers)
    return figures, questions, scores


def check_revos(figures, questions, expected):
    names = {"J": "j", "F": "f", "A": "accuracy", "R": "robustness", "JF": "j_and_f"}
    for key, type in (("referring", "referring"), ("reason", "reasoning"), ("overall", None)):
        chosen = np.array([place for place, each in enumerate(questions) if type in (None, each.type)])
        for official, name in names.items():
            given = 100 * figures[f"{name} (official)"].of(chosen)
            assert given == pytest.approx(expected[key][official], abs=1e-6), (key, official)


def test_revos_official(golden, tmp_path):
    figures, questions, _ = golden_figures(golden, tmp_path, "revos")
    check_revos(figures, questions, golden["revos"])
    for place, question in enumerate(questions):
        expected = golden["expressions"][question.id.replace("/", "_")]["revos"]
        for official, name in (("J", "j"), ("F", "f"), ("A", "accuracy"), ("R", "robustness")):
            assert 100 * figures[f"{name} (official)"].values[place] == pytest.approx(expected[official], abs=1e-6)


def test_revos_official_with_pictures_of_0_and_1(golden, tmp_path):
    def spoil(pngs):
        for path in pngs.rglob("*.png"):
            Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)

    figures, questions, _ = golden_figures(golden, tmp_path, "revos", spoil)
    check_revos(figures, questions, golden["revos_with_png_values_0_and_1"])
    for place, question in enumerate(questions):
        expected = golden["revos_with_png_values_0_and_1_per_expression"][question.id.replace("/", "_")]
        assert 100 * figures["accuracy (official)"].values[place] == pytest.approx(expected["A"], abs=1e-6)
        assert 100 * figures["robustness (official)"].values[place] == pytest.approx(expected["R"], abs=1e-6)


def test_revos_counts_an_expression_without_a_picture_as_wrong(golden, tmp_path):
    def spoil(pngs):
        (pngs / "videoA" / "1" / f"{golden['frames'][2]}.png").unlink()

    figures, questions, scores = golden_figures(golden, tmp_path, "revos", spoil)
    check_revos(figures, questions, golden["revos_one_png_missing_of_videoA_1"])
    assert list(scores.unread) == ["videoA/1"]
    assert f"{golden['frames'][2]}.png" in scores.unread["videoA/1"]


def test_mevis_official(golden, tmp_path):
    figures, _, _ = golden_figures(golden, tmp_path, "mevis")
    for official, name in (("J", "j"), ("F", "f"), ("J&F", "j_and_f")):
        for label in (name, f"{name} (official)"):
            assert round(100 * figures[label].of(), 2) == golden["eval_seg"][official]


def test_mevis_counts_a_video_that_is_missing_as_wrong(golden, tmp_path):
    figures, _, scores = golden_figures(golden, tmp_path, "mevis", lambda pngs: shutil.rmtree(pngs / "videoB"))
    for official, name in (("J", "j"), ("F", "f"), ("J&F", "j_and_f")):
        for label in (name, f"{name} (official)"):
            assert round(100 * figures[label].of(), 2) == golden["eval_seg_videoB_missing"][official]
    assert len(scores.unread) == 6


def test_mevis_drops_expressions_without_a_picture_officially(golden, tmp_path):
    def spoil(pngs):
        (pngs / "videoA" / "1" / f"{golden['frames'][2]}.png").unlink()

    figures, _, _ = golden_figures(golden, tmp_path, "mevis", spoil, official_workers=1)
    expected = golden["eval_seg_one_png_missing_one_worker"]["result"]
    for official, name in (("J", "j"), ("F", "f"), ("J&F", "j_and_f")):
        assert round(100 * figures[f"{name} (official)"].of(), 2) == expected[official]
    assert figures["j (official)"].counted == 1
    assert figures["j"].counted == 10
    assert figures["j"].values[1] == 0


# -- the same without those files --------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCORED)
def test_the_true_masks_score_1(tmp_path, name):
    spec, config, questions = tiny(name, tmp_path)
    figures, scores = scored(spec, config, questions, [perfect(each) for each in questions])
    assert {label: figures[label].of() for label in ("j_and_f", "j", "f")} == {"j_and_f": 1, "j": 1, "f": 1}
    assert next(iter(figures)) == "j_and_f"
    assert not scores.unread
    assert not scores.notes


def test_ref_davis17_reads_label_maps_where_there_are_no_run_lengths(tmp_path):
    _, _, pickled = tiny("ref_davis17", tmp_path)
    (tmp_path / "valid" / "mask_dict.pkl").unlink()
    spec, config, questions = opened("ref_davis17", tmp_path)
    # The pickle knows one object an expression, a label map all that are meant.
    assert [len(each.facts["truth"].objects(0)) for each in pickled] == [1, 1, 1]
    assert [len(each.facts["truth"].objects(0)) for each in questions] == [1, 2, 1]
    assert questions[2].facts["truth"].objects(2) == []
    figures, _ = scored(spec, config, questions, [perfect(each) for each in questions])
    assert figures["j"].of() == 1


def test_masks_of_ref_davis17_are_numbered_in_the_order_of_names(tmp_path):
    _, _, questions = tiny("ref_davis17", tmp_path)
    path = tmp_path / "meta_expressions" / "valid" / "meta_expressions.json"
    content = json.loads(path.read_text())
    expressions = content["videos"]["0a"]["expressions"]
    content["videos"]["0a"]["expressions"] = {id: expressions[id] for id in ("2", "0", "1")}
    path.write_text(json.dumps(content))
    _, _, shuffled = opened("ref_davis17", tmp_path)
    assert [each.id for each in shuffled] == ["0a/2", "0a/0", "0a/1"]
    assert shuffled[0].facts["truth"].objects(0) == questions[2].facts["truth"].objects(0)


def test_a_frame_that_was_not_asked_has_the_mask_of_the_nearest_one(tmp_path):
    spec, config, questions = tiny("mevis", tmp_path)
    answers = []
    for question in questions:
        full = perfect(question)
        object_ = VideoRegion({0: full.objects[0].frames[0]})
        answers.append(replace(full, objects=(object_,), frames=(0,)))
    figures, scores = scored(spec, config, questions, answers)
    # The second object is not seen on the last of the three frames; the first is, at the same place.
    assert figures["j"].values.tolist() == pytest.approx([1, (2 + 572 / 1092) / 3, 2 / 3], abs=0.05)
    assert scores.notes == ["6 frames on which the model was not asked have the mask of the nearest frame it was."]


def test_an_answer_without_a_mask_is_an_empty_mask(tmp_path):
    spec, config, questions = tiny("revos", tmp_path)
    figures, _ = scored(spec, config, questions, [Answer(id=each.id, text="no") for each in questions])
    assert figures["j"].values.tolist() == pytest.approx([0, 0, 1 / 3])  # not seen on the last frame
    assert figures["robustness"].of() == 1
    assert figures["accuracy"].values[0] == pytest.approx(1 - 20 * 26 / (TINY_HW[0] * TINY_HW[1]))


def test_revos_is_the_mean_of_its_types_on_any_questions(tmp_path):
    spec, config, questions = tiny("revos", tmp_path)
    assert [each.type for each in questions] == ["referring", "reasoning", "referring"]
    answers = [perfect(questions[0]), perfect(questions[1]), Answer(id=questions[2].id, text="")]
    figures, _ = scored(spec, config, questions, answers)
    third = 1 / 3
    assert figures["j"].of() == pytest.approx(((1 + third) / 2 + 1) / 2)
    assert figures["j"].of(np.array([2])) == pytest.approx(third)
    assert figures["j"].of(np.array([1, 2, 2, 0, 1])) == pytest.approx(((third + third + 1) / 3 + 1) / 2)
    assert figures["j (official)"].of() == pytest.approx(((1 + 0.3333) / 2 + 1) / 2, abs=1e-9)


def test_revos_does_not_count_other_types(tmp_path):
    get_benchmark("revos").tiny(tmp_path)
    path = tmp_path / "meta_expressions_valid_.json"
    content = json.loads(path.read_text())
    content["videos"]["0a"]["expressions"]["2"] |= {"type_id": 2, "obj_id": [], "anno_id": []}
    path.write_text(json.dumps(content))
    spec, config, questions = opened("revos", tmp_path)
    assert [each.type for each in questions] == ["referring", "reasoning", "hallucination"]
    figures, _ = scored(spec, config, questions, [*map(perfect, questions[:2]), Answer(id="0a/2", text="")])
    assert all(figure.counted == 2 for figure in figures.values())
    assert figures["j"].of() == 1


def test_a_set_pixel_is_what_the_pictures_or_the_options_say(tmp_path):
    spec, config, questions = tiny("revos", tmp_path)
    answers = [perfect(each) for each in questions]
    figures, _ = scored(spec, spec.make_config({"official_value": 1}), questions, answers)
    assert figures["accuracy (official)"].of() == 1
    figures, _ = scored(spec, config, questions, answers)
    assert figures["accuracy (official)"].of() < 1


def test_pictures_of_several_sizes_end_the_official_process(tmp_path):
    spec, config, questions = tiny("mevis", tmp_path)
    (tmp_path / "out").mkdir()
    spec.export(config, questions, [perfect(each) for each in questions], tmp_path / "out")
    Image.new("L", (9, 9)).save(tmp_path / "out" / "0a" / "1" / "00005.png")
    answers = list(spec.answer_formats["png"](config, tmp_path / "out", questions))
    figures, scores = scored(spec, config, questions, answers)
    assert "several sizes" in scores.unread["0a/1"]
    assert figures["j"].values.tolist() == [1, 0, 1]
    assert figures["j (official)"].counted == 2


def test_ref_davis17_reads_counts_of_bytes(tmp_path):
    _, _, questions = tiny("ref_davis17", tmp_path)
    path = tmp_path / "valid" / "mask_dict.pkl"
    found = {
        key: [rle and {**rle, "counts": rle["counts"].encode()} for rle in rles]
        for key, rles in pickle.loads(path.read_bytes()).items()
    }
    path.write_bytes(pickle.dumps(found))
    _, _, again = opened("ref_davis17", tmp_path)
    assert [each.facts["truth"].objects(1) for each in again] == [each.facts["truth"].objects(1) for each in questions]


def test_official_accuracy_of_a_perfect_answer_counts_its_object_as_wrong(tmp_path):
    spec, config, questions = tiny("revos", tmp_path)
    figures, _ = scored(spec, config, questions, [perfect(each) for each in questions])
    share = 20 * 26 / (TINY_HW[0] * TINY_HW[1])
    assert figures["accuracy"].of() == figures["robustness"].of() == 1
    assert figures["accuracy (official)"].values[0] == pytest.approx(round(1 - share, 4))


def test_masks_of_another_size_are_listed_and_count_as_wrong(tmp_path):
    spec, config, questions = tiny("mevis", tmp_path)
    answers = [perfect(each) for each in questions]
    answers[1] = replace(answers[1], image_hw=(10, 10))
    figures, scores = scored(spec, config, questions, answers)
    assert figures["j"].values.tolist() == [1, 0, 1]
    assert np.isnan(figures["j (official)"].values[1])
    assert "(10, 10)" in scores.unread["0a/1"]


def test_as_many_missing_pictures_as_processes_leave_the_official_code_to_chance(tmp_path):
    spec, config, questions = tiny("mevis", tmp_path, official_workers=2)
    spec.export(config, questions, [perfect(each) for each in questions], tmp_path)
    for path in tmp_path.glob("0a/*/00005.png"):
        path.unlink()
    answers = list(spec.answer_formats["png"](config, tmp_path, questions))
    figures, scores = scored(spec, config, questions, answers)
    assert figures["j"].of() == 0
    assert "j (official)" not in figures
    assert "no certain result" in scores.notes[0]


@pytest.mark.parametrize("name", NAMES)
def test_answers_written_as_pictures_are_read_again(tmp_path, name):
    spec, config, questions = tiny(name, tmp_path / "data")
    region = VideoRegion({0: Region.from_box((3, 4, 20, 30)), 2: Region.from_box((5, 4, 20, 30))}, absent=(1,))
    answers = [Answer(id=each.id, text="<seg>", objects=(region,), image_hw=TINY_HW) for each in questions]
    answers[2] = Answer(id=questions[2].id, text="nothing")
    (tmp_path / "out").mkdir()
    spec.export(config, questions, answers, tmp_path / "out")
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert files == [f"0a/{id}/{frame}.png" for id in "012" for frame in ("00000", "00005", "00010")]
    picture = np.asarray(Image.open(tmp_path / "out" / "0a/0/00000.png"))
    assert picture.shape == TINY_HW
    assert set(np.unique(picture)) == {0, 255}
    again = list(spec.answer_formats["png"](config, tmp_path / "out", questions))
    assert list(again[0].objects[0].frames) == [0, 2]
    assert again[0].objects[0].absent == (1,)
    assert again[2].objects == (None,)
    if name in SCORED:
        values = [scored(spec, config, questions, given)[0]["j_and_f"].values for given in (answers, again)]
        assert np.array_equal(*values)


def test_hidden_masks_are_said_to_be_hidden(tmp_path):
    for name, options in (("ref_youtube_vos", {}), ("mevis", {"split": "valid"})):
        spec, config, questions = tiny(name, tmp_path / name, **options)
        assert not questions[0].targets
        with pytest.raises(EvaluationError, match=r"not public.*--export"):
            scored(spec, config, questions, [Answer(id=each.id, text="") for each in questions])


# -- bad files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named_with_its_origin(tmp_path, name):
    spec = get_benchmark(name)
    spec.tiny(tmp_path)
    config = spec.make_config()
    for file in spec.files:
        needed = not file.optional or (name == "mevis" and file.path.startswith("valid_u/m"))
        if needed and file.path.endswith(".json"):
            content = (tmp_path / file.path).read_text()
            (tmp_path / file.path).unlink()
            with pytest.raises(DataError, match="is missing") as error:
                spec.open(config, tmp_path)
            assert Path(file.path).name in str(error.value)
            assert "from" in str(error.value) or "http" in str(error.value)
            (tmp_path / file.path).write_text(content)
    spec.open(config, tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda videos: videos.clear(), "'videos'"),
        (lambda videos: videos["0a"].pop("frames"), "'frames' must be a list of names"),
        (lambda videos: videos["0a"].pop("expressions"), "an object 'expressions'"),
        (lambda videos: videos["0a"]["expressions"]["1"].update(exp=" "), "expression '1': its 'exp' must be a text"),
        (lambda videos: videos["0a"]["expressions"]["1"].update(type_id=3), "its 'type_id' must be 0"),
        (lambda videos: videos["0a"]["expressions"]["1"].update(anno_id=[7]), "masks of 0 frames for '7'"),
        (lambda videos: videos["0a"]["frames"].append("00015"), "masks of 3 frames"),
        (lambda videos: videos["0a"]["frames"].append("../../00015"), "leads out of its folder"),
        (lambda videos: videos.update({"/etc": videos.pop("0a")}), "leads out of its folder"),
        (lambda videos: videos["0a"]["expressions"].update({"..": {"exp": "it"}}), "leads out of its folder"),
    ],
)
def test_a_malformed_file_says_where(tmp_path, spoil, message):
    get_benchmark("revos").tiny(tmp_path)
    path = tmp_path / "meta_expressions_valid_.json"
    content = json.loads(path.read_text())
    spoil(content["videos"])
    path.write_text(json.dumps(content))

    def run():
        spec, config, questions = opened("revos", tmp_path)
        scored(spec, config, questions, [Answer(id=each.id, text="") for each in questions])

    with pytest.raises(DataError, match=message):
        run()


@pytest.mark.parametrize(
    ("key", "frame", "message"),
    [
        ("1", 0, "the masks of annotations 0, 1 must be of one size"),
        ("1", 1, "the masks of annotations 0, 1 must be of one size"),
        ("0", 2, r"true masks of question '0a/0' must be of one size"),
    ],
)
def test_true_masks_of_several_sizes_are_refused(tmp_path, key, frame, message):
    get_benchmark("revos").tiny(tmp_path)
    path = tmp_path / "mask_dict.json"
    content = json.loads(path.read_text())
    content[key][frame] = Region.from_box((1, 1, 5, 5)).to_rle((9, 9))
    path.write_text(json.dumps(content))

    def run():
        spec, config, questions = opened("revos", tmp_path)
        scored(spec, config, questions, [Answer(id=each.id, text="") for each in questions])

    with pytest.raises(DataError, match=message):
        run()


def test_a_foreground_of_another_size_is_refused(tmp_path):
    get_benchmark("revos").tiny(tmp_path)
    path = tmp_path / "mask_dict_foreground.json"
    content = json.loads(path.read_text())
    content["0a"]["masks_rle"][1] = Region.from_box((1, 1, 5, 5)).to_rle((9, 9))
    path.write_text(json.dumps(content))
    spec, config, questions = opened("revos", tmp_path)
    answers = [Answer(id=each.id, text="") for each in questions]
    with pytest.raises(DataError, match=r"foreground of video '0a' is of \(9, 9\)"):
        scored(spec, config, questions, answers)


def test_a_folder_without_pictures_is_refused(tmp_path):
    spec, config, questions = tiny("mevis", tmp_path)
    with pytest.raises(DataError, match="no folder of a video"):
        list(spec.answer_formats["png"](config, tmp_path / "nothing", questions))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mevis", {"split": "train"}),
        ("mevis", {"frames": 0}),
        ("mevis", {"fps": 0}),
        ("mevis", {"question": "Segment it."}),
        ("revos", {"sentence": "?"}),
        ("revos", {"official_value": 256}),
        ("ref_sav", {"images": 3}),
        ("ref_sav", {"official_workers": True}),
    ],
)
def test_options_are_checked(name, options):
    with pytest.raises(PixelReferError, match=next(iter(options))):
        get_benchmark(name).make_config(options)


# -- a model -----------------------------------------------------------------------------------------------


@pytest.fixture
def engine(monkeypatch):
    """A model that gives a mask when it is asked for one."""
    stencil.install(monkeypatch)
    pair = make_pair("stencil", "videollama3")
    with torch.no_grad():
        pair.model.adapter.judge.bias[1] = 5.0
    yield ModelEngine(pair.model, pair.processor, max_new_tokens=3, options={"force_mask": True})
    pair.model.detach()


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_run(tmp_path, engine, name):
    spec, config, questions = tiny(name, tmp_path / "data", frames=2)
    answers = engine.answer(questions)
    assert all(answer.frames == (0, 2) and answer.image_hw == TINY_HW for answer in answers)
    (tmp_path / "out").mkdir()
    spec.export(config, questions, answers, tmp_path / "out")
    if name in SCORED:
        figures, scores = scored(spec, config, questions, answers)
        assert 0 < figures["j"].of() < 1
        assert "3 frames on which" in scores.notes[0]


def test_the_frames_that_are_asked_do_not_depend_on_the_truth(tmp_path, engine):
    _, _, questions = tiny("mevis", tmp_path, frames=1)
    hidden = [replace(question, targets=()) for question in questions]
    assert [each.frames for each in engine.answer(questions)] == [each.frames for each in engine.answer(hidden)]
