"""What the masks of several objects cost on a picture and on eight frames: UniPixel's mask decoder beside other loops.

All have random weights and see the same pictures. For a published size the others are transformers' video session and,
where it is installed, the steps of Meta's `sam2` package, with all objects in one batch. Ours and Meta's are also run
object by object, as UniPixel's authors run theirs, which encodes every picture anew for each.

    OMP_NUM_THREADS=1 python speed/mask_decoder.py --cpu-time --json mask_decoder.json
"""

import argparse
import json
import os
import statistics
import time
from importlib.util import find_spec
from pathlib import Path

import torch
from pixelrefer_unipixel.sam2 import sam2_config
from pixelrefer_unipixel.tracking import MaskDecoder
from region_tokens import environment
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from pixelrefer_plugin.authoring import Clips

OBJECTS, FRAMES = (1, 5, 20), (1, 8)
PICTURE_PX = {"micro": 64, "tiny": 256}
ROUNDS = 3
TINY = {"objects": (1, 2), "frames": (1, 3), "rounds": 1}


def ours(decoder, pixels, objects):
    prompts = torch.randn(objects, 2, decoder.hidden_size)
    clips = Clips(pixels, (len(pixels),))
    return lambda: decoder(prompts, clips, [0] * objects)


def one_by_one(make):
    def remake(model, pixels, objects):
        run = make(model, pixels, 1)
        return lambda: [run() for _ in range(objects)]

    return remake


def transformers_session(model, pixels, objects):
    side, frames = pixels.shape[-1], pixels.float()

    def run():
        session = Sam2VideoInferenceSession(frames, video_height=side, video_width=side, dtype=torch.float32)
        for number in range(objects):
            session.obj_id_to_idx(number)
            click = {"point_coords": torch.rand(1, 1, 1, 2) * side, "point_labels": torch.ones(1, 1, 1).int()}
            session.add_point_inputs(number, 0, click)
        session.obj_with_new_inputs = list(range(objects))
        return list(model.propagate_in_video_iterator(session, start_frame_idx=0))

    return run


def meta_model(picture_px):
    from sam2.build_sam import build_sam2

    overrides = [f"++model.image_size={picture_px}"]
    file = "configs/sam2.1/sam2.1_hiera_t.yaml"
    return build_sam2(file, device="cpu", hydra_overrides_extra=overrides, apply_postprocessing=False)


def meta_steps(model, pixels, objects):
    clicks = {
        "point_coords": torch.rand(objects, 1, 2) * pixels.shape[-1],
        "point_labels": torch.ones(objects, 1).int(),
    }
    frames = pixels.float()

    def run():
        past = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        for position in range(len(frames)):
            encoded = model.forward_image(frames[[position]])
            _, features, places, sizes = model._prepare_backbone_features(encoded)
            past["non_cond_frame_outputs" if position else "cond_frame_outputs"][position] = model.track_step(
                frame_idx=position,
                is_init_cond_frame=position == 0,
                current_vision_feats=[each.expand(-1, objects, -1) for each in features],
                current_vision_pos_embeds=[each.expand(-1, objects, -1) for each in places],
                feat_sizes=sizes,
                point_inputs=None if position else clicks,
                mask_inputs=None,
                output_dict=past,
                num_frames=len(frames),
                run_mem_encoder=position + 1 < len(frames),
            )
        return past

    return run


def measure(size, *, objects=OBJECTS, frames=FRAMES, rounds=ROUNDS, clock=time.perf_counter):
    """The median milliseconds of each way, by number of frames and of objects."""
    picture_px = PICTURE_PX[size]
    decoder = MaskDecoder(sam2_config(size, picture_px=picture_px)).eval()
    ways = {"ours": (ours, decoder), "ours, one by one": (one_by_one(ours), decoder)}
    if size != "micro":  # the session wants object pointers of more than one memory's width
        ways["transformers' session"] = transformers_session, decoder.sam2
    if size != "micro" and find_spec("sam2"):
        meta = meta_model(picture_px)
        ways |= {"sam2": (meta_steps, meta), "sam2, one by one": (one_by_one(meta_steps), meta)}
    for frame_count in frames:
        pixels = torch.randint(0, 256, (frame_count, 3, picture_px, picture_px), dtype=torch.uint8)
        for object_count in objects:
            steps = {name: make(model, pixels, object_count) for name, (make, model) in ways.items()}
            yield {"frames": frame_count, "objects": object_count, "ms": medians(steps, rounds, clock)}


@torch.inference_mode()
def medians(steps, rounds, clock):
    """Of all ways in turn, so that what else the machine does meets them alike."""
    times = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = clock()
            step()
            times[name].append((clock() - start) * 1000)
    return {name: statistics.median(each) for name, each in times.items()}


def print_result(result):
    print(f"\n{result['objects']} objects, {result['frames']} frames")
    for name, ms in result["ms"].items():
        print(f"    {name:22} {ms:10.1f} ms {ms / result['ms']['ours']:6.2f} x ours")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=PICTURE_PX, default="tiny", help="of SAM 2.1 (default: tiny, on 256 pixels)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"the median of so many (default: {ROUNDS})")
    parser.add_argument("--cpu-time", action="store_true", help="processor time: on a busy machine, with one thread")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    report = {"environment": environment(threads=os.environ.get("OMP_NUM_THREADS", "all")), "results": []}
    print(json.dumps(report["environment"], indent=2))
    clock = time.process_time if options.cpu_time else time.perf_counter
    for result in measure(options.size, rounds=options.rounds, clock=clock):
        print_result(result)
        report["results"].append(result)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
