"""What the Hub reads of a card: its YAML head, and files of results on sets that lie on the Hub.

results -> ModelCardData with a model-index; {".eval_results/<name>.yaml": text}
"""

import re

from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from ..registry import objective_class

LIBRARY = "transformers"
LOCAL = "local"  # what a data set is that does not lie on the Hub
TAGS = ("hf_pretext", "self-supervised")
TASK_TYPES = {"image": "image-classification", "text": "text-classification", "image_text": "image-classification"}
NOT_FOR_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def metadata(results: dict, pipeline_tag: str) -> ModelCardData:
    """The head of a card. Only what is known is in it: a licence where one was given, data sets and the model that
    training began from where they are Hub ids, a pipeline where plain transformers knows the class."""
    card = results.get("card", {})
    found, begun = evaluated(results), results["encoder"].get("base_models", [])
    return ModelCardData(
        language=card.get("language") or None,
        license=card.get("license"),
        library_name=LIBRARY,
        pipeline_tag=pipeline_tag if results["encoder"]["model_type"] in CONFIG_MAPPING_NAMES else None,
        tags=[*TAGS, results["objective"]["name"]],
        datasets=list(results["data"].get("revisions", {})) or None,
        base_model=(begun[0] if len(begun) == 1 else begun) or None,
        model_name=results["recipe"] if found else None,
        eval_results=found or None,
    )


def evaluated(results: dict) -> list[EvalResult]:
    """What was measured on the test split, for the model-index: transfer of the frozen encoder."""
    if "transfer" not in results or results["smoke"]:
        return []
    from . import KINDS, words

    transfer = results["transfer"]
    trained, found = transfer["figures"]["trained"], []
    for method in transfer["methods"]:
        for kind, meant in KINDS.items():
            mean = trained[f"{method}_{kind}"]["mean"]
            if mean is None:
                continue
            found.append(
                EvalResult(
                    task_type=TASK_TYPES["_".join(objective_class(results["objective"]["name"]).inputs)],
                    task_name=f"frozen encoder, label {transfer['label']}",
                    dataset_type=transfer["dataset"] if transfer.get("revision") else LOCAL,
                    dataset_name=transfer["dataset"],
                    dataset_split="test",
                    dataset_revision=transfer.get("revision"),
                    metric_type="accuracy" if kind == "top1" else "balanced_accuracy",
                    metric_name=f"{words(method)}, {meant}, {over(results)}",
                    metric_value=mean,
                )
            )
    return found


def over(results: dict) -> str:
    """What the figures are means over, in words."""
    seeds = len(results["seeds"])
    return f"mean over {seeds} seeds" if seeds > 1 else "one seed"


def eval_files(results: dict) -> dict[str, str]:
    """Files below `.eval_results/`, by path: figures on a set that lies on the Hub appear on its page, too."""
    import yaml

    if not evaluated(results) or not results["transfer"].get("revision"):
        return {}
    transfer = results["transfer"]
    entries = [
        EvalResultEntry(
            dataset_id=transfer["dataset"],
            task_id=f"{transfer['label']}-{method}",
            value=transfer["figures"]["trained"][f"{method}_top1"]["mean"],
            dataset_revision=transfer["revision"],
            notes=f"frozen encoder, top-1 on test, {over(results)}",
        )
        for method in transfer["methods"]
        if transfer["figures"]["trained"][f"{method}_top1"]["mean"] is not None
    ]
    name = NOT_FOR_NAMES.sub("-", transfer["dataset"])
    return {f".eval_results/{name}.yaml": yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)}
