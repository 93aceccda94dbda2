"""What the Hub reads of a card."""

import pytest
import yaml
from conftest import REPOSITORY
from huggingface_hub import ModelCard, parse_eval_result_entries
from recorded import RECORDED, recorded_results

from hf_pretext.cards import read_results, render
from hf_pretext.cards.metadata import eval_files
from hf_pretext.cards.tables import KINDS

results = pytest.fixture(recorded_results)


# PIPELINE_TYPES of @huggingface/tasks 0.21.54, whose MODEL_LIBRARIES_UI_ELEMENTS have "transformers"
PIPELINE_TAGS = set((REPOSITORY / "tests" / "pipeline_tags.txt").read_text().split())


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_the_hub_reads_the_head_of_a_card(folder):
    results = read_results(folder)
    data = ModelCard.load(folder / "README.md").data
    native = results["objective"]["name"] not in (
        "multiway",
        "audio_visual",
        "xdc",
        "mil_nce",
    )  # wholes that transformers lacks
    assert data.library_name == "transformers" and data.pipeline_tag in (PIPELINE_TAGS if native else {None})
    assert {"hf_pretext", results["objective"]["name"]} <= set(data.tags)
    assert ModelCard(f"---\n{data.to_yaml()}\n---\n").data.to_dict() == data.to_dict()
    transfers = [results["transfer"], *results.get("other_transfers", {}).values()]
    assert sorted(result.metric_value for result in data.eval_results) == sorted(
        transfer["figures"]["trained"][f"{method}_{kind}"]["mean"]
        for transfer in transfers
        for method in transfer["methods"]
        for kind in KINDS
    )


def test_results_on_a_set_of_the_hub_go_to_its_page(results):
    assert eval_files(results) == {}
    revision = "0" * 40
    results["transfer"] |= {"dataset": "someone/birds", "revision": revision}
    results["data"]["revisions"] = {"someone/birds": revision}
    results["encoder"]["base_models"] = ["someone/vit"]
    (path, text), *_ = eval_files(results).items()
    assert path == ".eval_results/someone-birds.yaml"
    entries = parse_eval_result_entries(yaml.safe_load(text))
    assert [entry.value for entry in entries] == [
        results["transfer"]["figures"]["trained"][f"{method}_top1"]["mean"] for method in results["transfer"]["methods"]
    ]
    data = ModelCard(render(results)).data
    assert (data.datasets, data.base_model) == (["someone/birds"], "someone/vit")
    assert f"Revision of `someone/birds`: {revision}" in render(results)


def test_of_a_smoke_run_nothing_is_claimed(results):
    results["smoke"] = True
    assert ModelCard(render(results)).data.eval_results is None
