"""ALFRED: household tasks as low-level actions with frames, and what people wrote about them."""

from __future__ import annotations

from typing import Any, Literal

from omnimill.errors import RecordDropped
from omnimill.pipelines.decoders.actions import action_words
from omnimill.pipelines.decoders.text import parse_json, text_value
from omnimill.pipelines.sources.episode_folders import (
    EpisodeFoldersSource,
    Recording,
    malformed,
    mapping,
    sequence,
    split_of,
)
from omnimill.pipelines.sources.runs import Episode
from omnimill.schema import Text


class AlfredSource(EpisodeFoldersSource):
    """Trials in the layout of ALFRED (Shridhar et al., 2020, arXiv 1912.01734): traj_data.json beside raw_images/.

    A step is a low-level action; its picture is the first of the frames recorded for it. Every annotator gives a text
    of role ``instruction`` (the task) and one of role ``subgoal`` (what is to be done now); actions are texts of role
    ``step``. Trials of the test splits, whose plans are not published, are dropped as ``no_trajectory``.
    """

    type: Literal["alfred"]
    include: tuple[str, ...] = ("**/traj_data.json",)
    frames: str = "raw_images"

    def recording(self, data: bytes, name: str) -> Recording:
        trial = mapping(parse_json(data), "the file")
        if "plan" not in trial:
            raise RecordDropped("no_trajectory")
        actions = sequence(mapping(trial["plan"], "plan").get("low_actions"), "low_actions")
        steps = [mapping(action, "a low action") for action in actions]
        if not steps:
            raise malformed("no low actions")
        told = [_annotation(entry) for entry in sequence(_annotations(trial), "turk_annotations.anns")]
        goals = [int(step["high_idx"]) if isinstance(step.get("high_idx"), int) else -1 for step in steps]
        scene = mapping(trial.get("scene", {}), "scene").get("floor_plan")
        tags = {"scene": scene, "task_type": trial.get("task_type")}

        def texts(step: int) -> list[Text]:
            subgoals = [parts[goals[step]] for _, parts in told if 0 <= goals[step] < len(parts)]
            return [
                *(Text(role="instruction", text=task) for task, _ in told),
                *(Text(role="subgoal", text=subgoal) for subgoal in subgoals),
            ]

        episode = Episode(
            name=text_value(trial.get("task_id") or name, "task_id"),
            length=len(steps),
            texts=texts,
            words=[_words(step) for step in steps],
            tags=split_of(name) | {key: text_value(value, key) for key, value in tags.items() if value},
        )
        return Recording(episode, _frames(trial, len(steps)))


def _annotations(trial: dict[str, Any]) -> Any:
    return mapping(trial.get("turk_annotations", {}), "turk_annotations").get("anns", [])


def _annotation(entry: Any) -> tuple[str, list[str]]:
    """The task and the subgoals in the words of one annotator."""
    said = mapping(entry, "an annotation")
    parts = sequence(said.get("high_descs", []), "high_descs")
    return text_value(said.get("task_desc"), "task_desc").strip(), [text_value(p, "high_descs").strip() for p in parts]


def _words(step: dict[str, Any]) -> str:
    discrete, call = (mapping(step.get(name, {}), name) for name in ("discrete_action", "api_action"))
    name = text_value(discrete.get("action") or call.get("action"), "action")
    thing, place = (text_value(call.get(key) or "", key) for key in ("objectId", "receptacleObjectId"))
    return action_words(name, thing, place)


def _frames(trial: dict[str, Any], length: int) -> list[str | None]:
    """The first frame that was recorded for every step."""
    found: list[str | None] = [None] * length
    for entry in sequence(trial.get("images", []), "images"):
        image = mapping(entry, "an image")
        step = image.get("low_idx")
        if isinstance(step, int) and 0 <= step < length and found[step] is None:
            found[step] = text_value(image.get("image_name"), "image_name")
    return found
