"""The card's YAML head, and files with results on datasets of the Hub.

results -> ModelCardData with a model-index; {".eval_results/<name>.yaml": text}
"""

import itertools
import re

from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from ..registry import modality_class, objective_class
from .results import transfers
from .tables import KINDS, measured_encoder, words

LIBRARY = "transformers"
LOCAL = "local"  # type of a dataset that is not on the Hub
TAGS = ("hf_pretext", "self-supervised")
NOT_FOR_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def metadata(results: dict) -> ModelCardData:
    """Returns the YAML head of a card. It contains known values only.

    The licence is included if the author gave one, datasets and base models if they are Hub ids, and the pipeline tag
    if plain transformers has the model's class."""
    card = results.get("card", {})
    measured, begun = evaluated(results), results["encoder"].get("base_models", [])
    pipeline_tag = objective_class(results["objective"]["name"]).pipeline_tag
    return ModelCardData(
        language=card.get("language") or None,
        license=card.get("license"),
        library_name=LIBRARY,
        pipeline_tag=pipeline_tag if results["encoder"]["model_type"] in CONFIG_MAPPING_NAMES else None,
        tags=[*TAGS, results["objective"]["name"]],
        datasets=list(results["data"].get("revisions", {})) or None,
        base_model=(begun[0] if len(begun) == 1 else begun) or None,
        model_name=results["recipe"] if measured else None,
        eval_results=measured or None,
    )


def evaluated(results: dict) -> list[EvalResult]:
    """Returns the transfer metrics on test, for the model-index; none for a smoke run."""
    if results["smoke"]:
        return []
    entries = []
    for transfer in transfers(results):
        data = transfer.get("kind", results["inputs"][0])
        for method, (kind, accuracy) in itertools.product(transfer["methods"], KINDS.items()):
            mean = transfer["figures"]["trained"][f"{method}_{kind}"]["mean"]
            if mean is None:
                continue
            entries.append(
                EvalResult(
                    task_type=modality_class(data).task_type,
                    task_name=f"{measured_encoder(method)}, label {transfer['label']}",
                    dataset_type=transfer["dataset"] if transfer.get("revision") else LOCAL,
                    dataset_name=transfer["dataset"],
                    dataset_split="test",
                    dataset_revision=transfer.get("revision"),
                    metric_type="accuracy" if kind == "top1" else "balanced_accuracy",
                    metric_name=f"{words(method, transfer)}, {accuracy}, {over(results)}",
                    metric_value=mean,
                )
            )
    return entries


def over(results: dict) -> str:
    """Returns in words how many seeds the metrics are means over."""
    seeds = len(results["seeds"])
    return f"mean over {seeds} seeds" if seeds > 1 else "one seed"


def eval_files(results: dict) -> dict[str, str]:
    """Returns the files of `.eval_results/` as path -> content; none if the evaluation dataset is not on the Hub.

    The Hub shows the metrics of these files on the dataset's page."""
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
            notes=f"{measured_encoder(method)}, top-1 on test, {over(results)}",
        )
        for method in transfer["methods"]
        if transfer["figures"]["trained"][f"{method}_top1"]["mean"] is not None
    ]
    name = NOT_FOR_NAMES.sub("-", transfer["dataset"])
    return {f".eval_results/{name}.yaml": yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)}
