"""The splits of POPE and the tasks of MVBench: their names and where their files are."""

from typing import NamedTuple

SPLITS = ("adversarial", "popular", "random")


class Task(NamedTuple):
    """A task of MVBench.

    Attributes:
        file: with its questions, below the folder `json`.
        videos: folder of its videos, below the folder `video`.
        is_bound: whether a question is about a part of its video, from `start` to `end`.
    """

    file: str
    videos: str
    is_bound: bool = False


TASKS = {
    "Action Sequence": Task("action_sequence.json", "star/Charades_v1_480", True),
    "Action Prediction": Task("action_prediction.json", "star/Charades_v1_480", True),
    "Action Antonym": Task("action_antonym.json", "ssv2_video"),
    "Fine-grained Action": Task("fine_grained_action.json", "Moments_in_Time_Raw/videos"),
    "Unexpected Action": Task("unexpected_action.json", "FunQA_test/test"),
    "Object Existence": Task("object_existence.json", "clevrer/video_validation"),
    "Object Interaction": Task("object_interaction.json", "star/Charades_v1_480", True),
    "Object Shuffle": Task("object_shuffle.json", "perception/videos"),
    "Moving Direction": Task("moving_direction.json", "clevrer/video_validation"),
    "Action Localization": Task("action_localization.json", "sta/sta_video", True),
    "Scene Transition": Task("scene_transition.json", "scene_qa/video"),
    "Action Count": Task("action_count.json", "perception/videos"),
    "Moving Count": Task("moving_count.json", "clevrer/video_validation"),
    "Moving Attribute": Task("moving_attribute.json", "clevrer/video_validation"),
    "State Change": Task("state_change.json", "perception/videos"),
    "Fine-grained Pose": Task("fine_grained_pose.json", "nturgbd"),
    "Character Order": Task("character_order.json", "perception/videos"),
    "Egocentric Navigation": Task("egocentric_navigation.json", "vlnqa"),
    "Episodic Reasoning": Task("episodic_reasoning.json", "tvqa/frames_fps3_hq", True),
    "Counterfactual Inference": Task("counterfactual_inference.json", "clevrer/video_validation"),
}
"""As the data set OpenGVLab/MVBench has them, in the order of PixelRefer's `infer_mvbench.py`."""
