"""The examples of docs/plugins.md: they pass the conformance kit, and each common mistake gets a clear message.

An example is installed as pip would, short of copying it: on `sys.path`, with the metadata that its own
`pyproject.toml` declares. A mistake is an edit of the example's own text.
"""

import re
import runpy
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import install_plugin, picture, user

from pixelrefer_plugin import PluginError, Region
from pixelrefer_plugin.plugins import PluginHost
from pixelrefer_plugin.testing import PAIR_CHECKS, check_adapter, check_backbone, make_pair

ROOT = Path(__file__).parent.parent
EXAMPLES = {
    "pixelrefer-croppool": ("croppool", "adapter", "pixelrefer_croppool"),
    "pixelrefer-qwen2-vl": ("qwen2_vl", "backbone", "pixelrefer_qwen2_vl"),
}
MODULES = {*(module for _, _, module in EXAMPLES.values()), "pixelrefer_stencil", "pixelrefer_whereabouts"}
BOX = Region.from_box((2, 2, 20, 12))


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs an example for one test, with `edits` `{file: (old, new)}` of its text, or several such pairs in a list,
    and returns the host."""

    def installed(distribution, edits=None):
        source = shutil.copytree(ROOT / "examples" / distribution, tmp_path / distribution)
        for file, changes in (edits or {}).items():
            for old, new in changes if isinstance(changes, list) else [changes]:
                text = (source / file).read_text(encoding="utf-8")
                assert old in text, f"{file} has no {old!r}"
                (source / file).write_text(text.replace(old, new), encoding="utf-8")
        _write_metadata(tmp_path, tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8")))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.syspath_prepend(source)
        host = PluginHost()
        monkeypatch.setattr("pixelrefer_plugin.plugins.host", lambda: host)
        return host

    _forget()
    yield installed
    _forget()


def _write_metadata(site, pyproject):
    project = pyproject["project"]
    folder = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


def _forget():
    for name in [each for each in sys.modules if each.partition(".")[0] in MODULES]:
        del sys.modules[name]


@pytest.mark.parametrize("distribution", EXAMPLES)
def test_an_example_is_listed_without_being_imported(install, distribution):
    name, kind, module = EXAMPLES[distribution]
    (info,) = [each for each in install(distribution).plugins() if each.name == name]
    assert (info.kind, info.module, info.distribution) == (kind, module, distribution)
    assert info.status == "ready"
    assert module not in sys.modules


@pytest.mark.parametrize("distribution", EXAMPLES)
def test_an_example_passes_its_own_tests(install, distribution):
    install(distribution)
    tests = runpy.run_path(str(ROOT / "examples" / distribution / "tests" / "test_plugin.py"))
    found = [test for name, test in tests.items() if name.startswith("test_")]
    assert found
    for test in found:
        test()


def test_the_examples_work_together(install):
    install("pixelrefer-croppool")
    install("pixelrefer-qwen2-vl")
    check_backbone("qwen2_vl", adapter="croppool")


def _block_with(words):
    """The block of the page's Python code that holds these words."""
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if words in block]
    return code


@pytest.fixture
def whereabouts(tmp_path, monkeypatch):
    """Installs the page's adapter without training for one test."""
    _forget()
    (tmp_path / "pixelrefer_whereabouts.py").write_text(_block_with("Pointing("), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    install_plugin(monkeypatch, "whereabouts", "pixelrefer_whereabouts")
    yield
    _forget()


def test_the_whole_adapter_without_training_conforms(whereabouts):
    assert "regions_are_pointed_at" in check_adapter("whereabouts", backbone="qwen2_5_vl")


def test_the_adapter_without_training_says_where_regions_are(whereabouts):
    pair = make_pair("whereabouts", "videollama3")
    corner, whole = Region.from_box((80, 50, 84, 56)), Region.from_box((0, 0, 84, 56))
    for region, words in ((corner, "lower right"), (whole, "central middle"), (BOX, "upper left")):
        inputs = pair.processor([user(picture(56, 84), "what is <region>?")], [region])
        assert f"what is the object in the {words}?" in pair.processor.tokenizer.decode(inputs["input_ids"][0])
    pair.model.detach()


@pytest.fixture
def install_stencil(install, tmp_path, monkeypatch):
    """Installs the page's adapter with masks for one test, with an edit `(old, new)` of its text."""

    def installed(old="", new=""):
        code = _block_with("Masks(")
        assert old in code
        install("pixelrefer-croppool")
        (tmp_path / "pixelrefer_stencil.py").write_text(code.replace(old, new) if old else code, encoding="utf-8")
        install_plugin(monkeypatch, "stencil", "pixelrefer_stencil")

    return installed


def test_the_whole_adapter_with_masks_conforms(install_stencil):
    install_stencil()
    assert "masks_come_where_they_are_asked_for" in check_adapter("stencil", backbone="qwen2_5_vl")


MASK_MISTAKES = {
    "pictures in turn instead of objects": (
        (".repeat_interleave(lengths)", ".repeat(len(clips.pixels))[: sum(lengths)]"),
        r"the masks, IoUs or presences of object 0 are others when it is alone",
    ),
    "the first clip for all": (
        ("pictures[clip] for stencil", "pictures[0].expand(clips.lengths[clip], -1, -1) for stencil"),
        r"the masks, IoUs or presences of object 0 are others when it is alone",
    ),
    "probabilities": (("PredictedMasks(torch.cat(logits)", "PredictedMasks(torch.cat(logits).sigmoid()"), r"in 0..1"),
    "hidden states not cast": (("hidden.to(self.cut.weight.dtype)", "hidden"), r"must have the same dtype"),
    "one loss for all": (
        ("torch.stack([each.mean() for each in cost.split(pictures)])", "cost.mean().expand(len(hidden))"),
        r"the loss 'shape' of object 0 is .*, alone",
    ),
    "unknown is absent": (('reduction="none") * known', 'reduction="none")'), r"nothing is known is .*, not 0"),
}


@pytest.mark.parametrize(("edit", "message"), MASK_MISTAKES.values(), ids=MASK_MISTAKES)
def test_a_mistake_in_a_mask_head_has_a_clear_message(install_stencil, edit, message):
    install_stencil(*edit)
    (check,) = [each for each in PAIR_CHECKS if each.__name__ == "masks_do_not_depend_on_company"]
    with pytest.raises((AssertionError, RuntimeError), match=message):
        check("stencil", "qwen2_5_vl")


SHOWN = {
    "pixelrefer-croppool": ("pyproject.toml", "pixelrefer_croppool/__init__.py", "pixelrefer_croppool/adapter.py"),
    "pixelrefer-qwen2-vl": ("pixelrefer_qwen2_vl/backbone.py",),
}


@pytest.mark.parametrize("distribution", EXAMPLES)
def test_the_page_shows_an_example_as_it_is(distribution):
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    for file in SHOWN[distribution]:
        name = f"examples/{distribution}/{file}"
        language = {".py": "python", ".toml": "toml"}[Path(file).suffix]
        block = f"<!-- begin:{name} -->\n```{language}\n{(ROOT / name).read_text(encoding='utf-8')}```\n<!-- end -->"
        assert block in page, f"docs/plugins.md does not show {name} as it is; run scripts/update_docs"
    assert f"](../examples/{distribution})" in page, "where the other files are"


# What a stranger gets wrong: file, text, text instead of it; the message.
SPEC, TINY, HOOK = (f"pixelrefer_qwen2_vl/{file}.py" for file in ("backbone", "tiny", "__init__"))
BACKBONE_MISTAKES = {
    "patches fed row by row": (
        (SPEC, "-> (h w mh mw) (c t ph pw)", "-> (h mh w mw) (c t ph pw)"),
        r"raster_order: qwen2_vl: patch \(0, 5\) of \(2, 6\) lights up",
    ),
    "merge groups not undone": (
        (SPEC, "(h w mh mw) c -> (h mh w mw) c", "(h w mh mw) c -> (h w mh mw) c"),
        r"raster_order: qwen2_vl: patch \(0, 5\) of \(2, 6\) lights up",
    ),
    "scene not in raster order": (
        (
            SPEC,
            "return raster_grids(call.model, outputs[0], grids_hw(call))",
            "return FeatureGrids(\n        call.model.model.visual.merger.ln_q(outputs[0].last_hidden_state),\n"
            "        grids_hw(call),\n    )",
        ),
        r"same_features: qwen2_vl: crops.encode and images.grids see one picture differently",
    ),
    "channels after time": (
        (SPEC, "(c t ph pw)", "(t c ph pw)"),
        r"same_features: qwen2_vl: crops.encode and images.grids see one picture differently",
    ),
    "frame not repeated": (
        (SPEC, "t=vision.temporal_patch_size", "t=1"),
        r"raster_order: RuntimeError: The size of tensor a \(12\) must match .* \(24\)",
    ),
    "grid_multiple forgotten": (
        (SPEC, ", grid_multiple=vision.spatial_merge_size", ""),
        r"raster_order: EinopsError.*\[3, 14, 42\]",
    ),
    "width after the merger": (
        (SPEC, "vision_config.embed_dim", "vision_config.hidden_size * 4"),
        r"crops.width is 256, crops.encode returns 64",
    ),
    "path of an older transformers": (
        (SPEC, 'vision_tower="model.visual"', 'vision_tower="visual"'),
        r"says: qwen2_vl: no vision_tower at 'visual'",
    ),
    "decoder one level too high": (
        (SPEC, 'decoder="model.language_model"', 'decoder="model"'),
        r"no norm at 'model.norm': .* if 'model' is the module that is called with inputs_embeds, as `decoder` must be",
    ),
    "embedding is the head": (
        (SPEC, "model.language_model.embed_tokens", "lm_head"),
        r"token_embedding 'lm_head' is a Linear, not an nn.Embedding",
    ),
    "LoRA pattern for part of a name": (
        (SPEC, r"model\.language_model\.layers", r"language_model\.layers"),
        r"LoRA scope 'decoder' matches nothing",
    ),
    "LoRA pattern too wide": (
        (SPEC, r"merger\.mlp\.[02]", r"merger\.mlp\.\d"),
        r"scope 'projector' matches model.visual.merger.mlp.1, not a linear layer",
    ),
    "cells not merged": (
        (SPEC, "    cells=Cells(side=lambda config: config.vision_config.spatial_merge_size),\n", ""),
        r"qwen2_vl: 'model.visual.merger.mlp.0' reads width 256, is given 64",
    ),
    "a projector layer left out": (
        (SPEC, '("model.visual.merger.mlp.0", "model.visual.merger.mlp.2")', '("model.visual.merger.mlp.0",)'),
        r"the projector ends in width 256, the decoder's is 64",
    ),
    "activation among the projector's layers": (
        (SPEC, '"model.visual.merger.mlp.2"', '"model.visual.merger.mlp.1"'),
        r"'model.visual.merger.mlp.1' is not a linear layer of the projector 'model.visual.merger'",
    ),
    "norm before the projector left out": (
        (SPEC, "model.model.visual.merger.ln_q(tower_output.last_hidden_state)", "tower_output.last_hidden_state"),
        r"first layer 'model.visual.merger.mlp.0' does not read the cells of the scene",
    ),
    "final norm of the tower": (
        (SPEC, "    parts=Parts(\n", '    parts=Parts(\n        final_norm="model.visual.merger.ln_q",\n'),
        r"'model.visual.merger.ln_q' is run 0 times in a forward",
    ),
    "rows and columns swapped for the tower": (
        (SPEC, "(1, h, w) for h, w in grids_hw", "(1, w, h) for h, w in grids_hw"),
        r"same_features: .* see one picture differently .* told other rows and columns",
    ),
    "crops without gradients": (
        (SPEC, "def encode(", "@torch.no_grad()\ndef encode("),
        r"no gradient goes through crops.encode",
    ),
    "scene without gradients": (
        (
            SPEC,
            "return raster_grids(call.model,",
            "return torch.no_grad()(raster_grids)(call.model,",
        ),
        r"no gradient goes through images.grids",
    ),
    "LoRA of the decoder on the tower": (
        (SPEC, r'"decoder": r"model\.', r'"decoder": r"model\.visual\.blocks\.\d+\.attn\.qkv|model\.'),
        r"LoRA scope 'decoder' matches model.visual.blocks.0.attn.qkv, which is not in 'model.language_model'",
    ),
    "LoRA of the tower on the projector": (
        (SPEC, r'"vision_tower": r"model\.', r'"vision_tower": r"model\.visual\.merger\.mlp\.0|model\.'),
        r"LoRA scopes 'projector' and 'vision_tower' both match model.visual.merger.mlp.0",
    ),
    "another class": (
        (SPEC, "model_class=Qwen2VLForConditionalGeneration", "model_class=torch.nn.Module"),
        r"tiny\(\) is a Qwen2VLForConditionalGeneration, model_class is Module",
    ),
    "path of a part of the tower": (
        (SPEC, 'vision_tower="model.visual"', 'vision_tower="model.visual.patch_embed"'),
        r"images.grids fails on what the vision_tower 'model.visual.patch_embed' returned, a Tensor: AttributeError",
    ),
    "tiny in training mode": ((TINY, "(config).eval()", "(config).train()"), r"tiny\(\) is in training mode"),
    "tiny not seeded": (
        (TINY, "torch.manual_seed(seed)", "pass"),
        r"tiny\(0\) gives other weights each time|tiny\(0\) and tiny\(1\) are the same model",
    ),
}
PLAN = "pixelrefer_croppool/adapter.py"
ADAPTER_MISTAKES = {
    "promises more than it delivers": (
        (PLAN, "TOKENS_PER_REGION = 2", "TOKENS_PER_REGION = 3"),
        r"'croppool' promised 6 object tokens of width 96 for 2 regions but returned \(4, 96\)",
    ),
    "returns regions x tokens": (
        (PLAN, "self.mlp(pooled).flatten(0, 1)", "self.mlp(pooled)"),
        r"'croppool' promised 4 object tokens of width 96 for 2 regions but returned \(2, 2, 96\)",
    ),
    "promises nothing": (
        (PLAN, "TOKENS_PER_REGION = 2", "TOKENS_PER_REGION = 0"),
        r"RegionPlan.num_tokens must be an integer >= 1, got 0",
    ),
    "odd grid": (
        (PLAN, "geometry.whole_patches(self.config.side_patches * geometry.patch_size)", "7"),
        r"croppool: a crop of 7x7 patches where the grid must be multiples of 2; size it with",
    ),
    "mask on another grid": (
        (PLAN, "mask.coverage(box, (side, side))", "mask.coverage(box, (4, 4))"),
        r"CropView.mask must be one weight per patch, \(8, 8\), got \(4, 4\)",
    ),
    "mask empty": (
        (PLAN, "mask.coverage(box, (side, side))", "(mask.coverage(box, (side, side)) > 1)"),
        r"croppool: a crop's mask has no patch inside the region, it is all zero",
    ),
    "crop too large": (
        (PLAN, "geometry.whole_patches(self.config.side_patches * geometry.patch_size)", "66"),
        r"croppool: a crop of 66x66 patches",
    ),
    "crop beyond the image": (
        (PLAN, "max(0, x0 - margin)", "x0 - margin"),
        r"croppool: the crop \(-1, .* is not inside its image of 130x90 pixels",
    ),
    "random tokens": (
        (PLAN, "pooled = torch.stack(", "pooled = torch.rand(1).item() + torch.stack("),
        r"does the adapter mix regions, or draw random numbers",
    ),
}
STRETCHED = ("mask=mask.coverage(box, (side, side))", "mask=mask.coverage(box, (side, side)), encoded_hw=(2, 2)")
UNSTRETCHED = [
    ("crops.pooled(weights, dtype=dtype)", "unstretched(crops, weights).to(dtype)"),
    (
        "class CropPool(AdapterModule):",
        "def unstretched(crops, weights):\n"
        "    rows = crops.rows.index if crops.rows.starts is None else crops.rows.index[crops.rows.starts]\n"
        "    pairs = crops.grids.features[rows].to(weights.dtype) * weights[:, None]\n"
        "    return torch.stack([each.sum(dim=0) for each in pairs.split(crops.patches_per_region)])\n\n\n"
        "class CropPool(AdapterModule):",
    ),
]
LOADING_MISTAKES = {
    "misspelt hook": (
        (HOOK, "def register_backbones", "def register_backbone"),
        r"has a hook 'register_backbone', which does not exist\. Did you mean 'register_backbones'\?",
    ),
    "no hookimpl": (
        (HOOK, "@hookimpl\n", ""),
        r"implements none of the hooks register_adapters, register_backbones, .* with @hookimpl",
    ),
    "model_types is no tuple": (
        (SPEC, '("qwen2_vl",)', '("qwen2_vl")'),
        r"model_types of 'qwen2_vl' must be a tuple of names, got 'qwen2_vl'",
    ),
    "a field is missing": ((SPEC, "    tiny=tiny,\n", ""), r"fails to load: TypeError: .*'tiny'"),
}


@pytest.mark.parametrize(("edit", "message"), BACKBONE_MISTAKES.values(), ids=BACKBONE_MISTAKES)
def test_a_mistake_in_a_backbone_has_a_clear_message(install, edit, message):
    file, old, new = edit
    install("pixelrefer-qwen2-vl", {file: (old, new)})
    with pytest.raises(AssertionError, match=re.compile(message, re.DOTALL)):
        check_backbone("qwen2_vl")


@pytest.mark.parametrize(("edit", "message"), ADAPTER_MISTAKES.values(), ids=ADAPTER_MISTAKES)
def test_a_mistake_in_an_adapter_has_a_clear_message(install, edit, message):
    file, old, new = edit
    install("pixelrefer-croppool", {file: (old, new)})
    with pytest.raises(AssertionError, match=message):
        check_adapter("croppool")


def test_a_config_that_can_be_changed_is_refused(install):
    install("pixelrefer-croppool", {PLAN: ("@dataclass(frozen=True)", "@dataclass")})
    with pytest.raises(PluginError, match="config of 'croppool' must be a frozen dataclass"):
        check_adapter("croppool")


def test_an_adapter_that_does_not_know_of_stretched_features_passes(install):
    install("pixelrefer-croppool", {PLAN: UNSTRETCHED})
    assert check_adapter("croppool")


def test_an_adapter_that_reads_crops_and_the_scene_passes(install):
    edits = [
        ("    RegionPlan,\n", "    RegionPlan,\n    SceneView,\n"),
        ("views=(crop,))", "views=(crop, SceneView()))"),
        ("(crops,) = views", "crops, scene = views"),
        (
            ".mean(dim=0) for index in crops.grid_of_region]",
            ".mean(dim=0) for index in crops.grid_of_region]\n"
            "        scenes = [scene.grids[index].flatten(0, 1).mean(dim=0) for index in scene.grid_of_region]",
        ),
        ("torch.stack(surroundings).to", "(torch.stack(surroundings) + torch.stack(scenes)).to"),
    ]
    install("pixelrefer-croppool", {PLAN: edits})
    assert check_adapter("croppool")


def test_an_adapter_that_asks_for_stretched_features_must_read_them(install):
    install("pixelrefer-croppool", {PLAN: [*UNSTRETCHED, STRETCHED]})
    with pytest.raises(AssertionError, match=r"does not read the features stretched; .* with patch_features"):
        check_adapter("croppool")


@pytest.mark.parametrize(("edit", "message"), LOADING_MISTAKES.values(), ids=LOADING_MISTAKES)
def test_a_plugin_that_does_not_load_says_why(install, edit, message):
    file, old, new = edit
    install("pixelrefer-qwen2-vl", {file: (old, new)})
    with pytest.raises(PluginError, match=f"pixelrefer-qwen2-vl 0.1.0.*{message}"):
        check_backbone("qwen2_vl")


def test_a_misspelt_hook_is_seen_before_the_plugin_is_imported(install):
    host = install("pixelrefer-qwen2-vl", {HOOK: ("def register_backbones", "def register_backbone")})
    (info,) = [each for each in host.plugins() if each.name == "qwen2_vl"]
    assert "has a hook 'register_backbone', which does not exist. Did you mean 'register_backbones'?" in info.status


def test_a_grid_that_the_backbone_does_not_take_is_refused_outside_the_kit_too(install):
    file, old, new = ADAPTER_MISTAKES["odd grid"][0]
    install("pixelrefer-croppool", {file: (old, new)})
    pair = make_pair("croppool", "qwen2_5_vl")
    with pytest.raises(PluginError, match="a crop of 7x7 patches, but backbone 'qwen2_5_vl' takes multiples of 2"):
        pair.inputs(0)
    pair.model.detach()
