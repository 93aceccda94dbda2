"""Ablation of masked_lm_reviews: which change of the recipe closes the gap between its probes and TF-IDF?

    python benchmarks/text_ablation.py                                     # about an hour on 2 cores, with --jobs 2
    python benchmarks/text_ablation.py --variants "4 layers" --seeds 0 1 2
    python benchmarks/text_ablation.py --options --num_train_epochs 0.2    # options for all runs

One seed each. The probes are those of the recipe: linear probes on frozen features, with 1, 10 and 100 % of the labels;
their layer and strength are chosen on validation, accuracy is on test. Each variant changes one thing of a ModernBERT
of 2 layers of width 128; but other objectives have the settings of their recipes (replaced token: 3 layers; TSDAE:
texts of 128 tokens). Poolings are measured on this encoder, trained and random. The table is written to
benchmarks/text_ablation.md (--output). Each run is a separate process; --jobs sets how many run at a time. --rows names
a JSON file that keeps the rows, so that several calls make one table.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from ablation import QUIET, recipe_of, run_all, where

HERE = Path(__file__).parent
OUTPUT, CARD = HERE / "text_ablation.md", HERE.parent / "model_cards" / "masked_lm_reviews" / "results.json"
EPOCHS, POOLED = 0.6, "mean over tokens, best layer"
SIZES = {"width": 128, "layers": 2}  # if a variant does not say others; the recipe takes width 256, the best variant
BASE, RANDOM, LSA = "2 layers of width 128", "random encoder", "TF-IDF of 190 words"
VARIANTS = {  # name: recipe, arguments of the encoder's config, options
    BASE: ("masked_lm_reviews", {}, []),
    "vocabulary of 2,000": ("masked_lm_reviews", {}, ["--vocab_size", "2000"]),
    "vocabulary of 20,000": ("masked_lm_reviews", {}, ["--vocab_size", "20000"]),
    "1 layer": ("masked_lm_reviews", {"layers": 1}, []),
    "4 layers": ("masked_lm_reviews", {"layers": 4}, []),
    "width 256": ("masked_lm_reviews", {"width": 256}, []),
    "half the steps": ("masked_lm_reviews", {}, ["--num_train_epochs", "0.3"]),
    "twice the steps": ("masked_lm_reviews", {}, ["--num_train_epochs", "1.2"]),
    "15 % masked": ("masked_lm_reviews", {}, ["--mask_ratio", "0.15"]),
    "words masked whole": ("masked_lm_reviews", {}, ["--unit", "word"]),
    "next token": ("causal_lm_reviews", {}, []),
    "replaced token": ("replaced_token_reviews", {}, []),
    "sentences: TSDAE": ("sentence_reviews", {}, []),
}
KNOWN = [*VARIANTS, RANDOM, LSA]
WORDS, DIMENSIONS = 190, (128, 384)  # of LSA; 190 words are about 256 tokens


def run(name: str, seed: int, given: list[str]) -> dict:
    """Trains one variant, or makes a random encoder. Returns the steps, the parameters, and the probes of each pooling.
    For TF-IDF, only the probes, by the number of dimensions."""
    import hf_pretext

    file, sizes, options = VARIANTS.get(name, ("masked_lm_reviews", {}, ["--max_steps", "1"]))
    recipe = recipe_of(file)
    if file == "masked_lm_reviews":
        recipe = replace(recipe, encoder=partial(recipe.encoder, **{**SIZES, **sizes}))
    with tempfile.TemporaryDirectory() as folder:
        epochs = [] if "--max_steps" in options else ["--num_train_epochs", str(EPOCHS)]
        done = recipe.main([*QUIET, "--output_dir", folder, "--seeds", str(seed), *epochs, *given, *options])
        model = hf_pretext.load(folder).eval()
        encoder, length = model.encoder, done["max_length"]
        labelled = labelled_set(folder, recipe, length)
        if name == LSA:
            return {"probes": probes_of_words(labelled)}
        if name == RANDOM:
            torch.manual_seed(seed)
            encoder = type(encoder)._from_config(encoder.config).eval()
        probes = probes_of(encoder, labelled, all_poolings=name in (BASE, RANDOM))
    return {"steps": done["seeds"][0]["steps"], "parameters": encoder.num_parameters(), "probes": probes}


def labelled_set(folder: str, recipe, length: int):
    """Returns the labelled reviews, with the tokenizer of a checkpoint."""
    from transformers import AutoTokenizer

    from hf_pretext.evaluation.labelled_set import LabelledSet
    from hf_pretext.modalities import Inputs
    from hf_pretext.modalities.text import Text

    inputs = Inputs(Text(AutoTokenizer.from_pretrained(folder), length))
    return LabelledSet(recipe.fetch["eval_dataset"](), inputs, recipe.settings["eval_label"])


@torch.no_grad()
def pooled(encoder, batches) -> dict[str, dict[int, torch.Tensor]]:
    """Returns features by pooling and layer, `(examples, channels)` each. Layer 0 joins all layers."""
    parts: dict[str, dict[int, list]] = {}
    for batch in batches:
        outputs = encoder(**batch, output_hidden_states=True)
        hidden = [*outputs.hidden_states[:-1], outputs.last_hidden_state]
        mask = batch["attention_mask"].unsqueeze(-1)
        means = [(each * mask).sum(1) / mask.sum(1) for each in hidden]
        tops = [each.masked_fill(mask == 0, -torch.inf).amax(1) for each in hidden]
        for i in range(-len(hidden), 0):
            for name, value in (
                (POOLED, means[i]),
                ("first token, best layer", hidden[i][:, 0]),
                ("mean and maximum, best layer", torch.cat([means[i], tops[i]], -1)),
            ):
                parts.setdefault(name, {}).setdefault(i, []).append(value.float())
        parts.setdefault("means of all layers, joined", {}).setdefault(0, []).append(torch.cat(means, -1))
    return {name: {i: torch.cat(rows) for i, rows in layers.items()} for name, layers in parts.items()}


def probes_of(encoder, labelled, all_poolings: bool) -> dict[str, dict[str, float]]:
    """Returns top-1 on test by pooling and method."""
    from hf_pretext.evaluation.transfer import SPLITS, label_fractions, transfer

    methods = label_fractions(*labelled.inputs.by_name["text"].fractions)
    by_split = {split: pooled(encoder, labelled.batches(split, "text")) for split in SPLITS}
    probes = {}
    for name in by_split["train"] if all_poolings else [POOLED]:
        layers = by_split["train"][name]
        features = {i: {split: by_split[split][name][i] for split in SPLITS} for i in layers}
        measured = transfer(features, labelled.labels, methods)
        probes[name] = {method: each["test"]["top1"] for method, each in measured.items()}
    return probes


def probes_of_words(labelled) -> dict[str, dict[str, float]]:
    """Returns top-1 on test of TF-IDF on about as many words as the encoder sees, and of its first singular vectors, as
    many as the encoder has channels and three times as many. They say whether length or width is the limit."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    from hf_pretext.evaluation.tfidf import STRENGTHS, TOLERANCE
    from hf_pretext.evaluation.transfer import SPLITS, label_fractions, transfer

    methods = label_fractions(*labelled.inputs.by_name["text"].fractions)
    texts = {split: [" ".join(text.split()[:WORDS]) for text in labelled.texts(split)] for split in SPLITS}
    vectorizer = TfidfVectorizer(min_df=2, sublinear_tf=True, ngram_range=(1, 2)).fit(texts["train"])
    sparse = {split: vectorizer.transform(some) for split, some in texts.items()}
    options = {"standardised": False, "strengths": STRENGTHS, "tolerance": TOLERANCE}
    full = {name: method(sparse, labelled.labels, **options)["test"]["top1"] for name, method in methods.items()}
    probes = {POOLED: full}
    for size in DIMENSIONS:
        svd = TruncatedSVD(size, random_state=0).fit(sparse["train"])
        features = {split: torch.tensor(svd.transform(rows)).float() for split, rows in sparse.items()}
        measured = transfer({-1: features}, labelled.labels, methods)
        probes[f"{size} dimensions"] = {name: each["test"]["top1"] for name, each in measured.items()}
    return probes


def page(results: dict[str, list[dict]], given: list[str]) -> str:
    """Returns the table in Markdown, with means over seeds. TF-IDF is that of the recipe's card."""
    first = next(iter(results.values()))[0]
    recorded = json.loads(CARD.read_text())["transfer"]["figures"]["TF-IDF"]
    methods = list(first["probes"][POOLED])
    command = "python benchmarks/text_ablation.py" + (f" --options {' '.join(given)}" if given else "")
    lines = [
        f"ModernBERT with a vocabulary of 8,000, {SIZES['layers']} layers and a width of {SIZES['width']}, trained as "
        f"in masked_lm_reviews for {EPOCHS} epochs, if a row does not say otherwise. Measured with `{command}` on "
        f"{where()}, one seed each. Accuracy on the test split. Pooling, if not said: mean over tokens, best layer.",
        "",
        "| changed | parameters | steps | " + " | ".join(methods) + " |",
        "|---|--:|--:|" + "--:|" * len(methods),
    ]
    for name, runs in results.items():
        for pooling in runs[0]["probes"]:
            title = name if pooling == POOLED else f"{name}; {pooling}"
            cells = [f"{statistics.mean(one['probes'][pooling][method] for one in runs):.3f}" for method in methods]
            size = f"{runs[0]['parameters']:,}" if name != LSA else "—"
            steps = f"{runs[0]['steps']:,}" if name in VARIANTS else "—"
            lines.append(f"| {title} | {size} | {steps} | {' | '.join(cells)} |")
    cells = [f"{recorded[f'{method}_top1']['mean']:.3f}" for method in methods]
    lines.append(f"| TF-IDF of full texts | — | — | {' | '.join(cells)} |")
    missing = [name for name in KNOWN if name not in results]
    lines += ["", f"Not measured: {', '.join(missing)}."] if missing else []
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=KNOWN, default=KNOWN)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="time limit (default: none)")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--rows", type=Path, help="JSON file with the rows of earlier calls, which gets those of this")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="options for all runs; must be last")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one[0], int(options.one[1]), options.options)))
        return
    given = ["--options", *options.options]
    known = json.loads(options.rows.read_text()) if options.rows and options.rows.exists() else {}
    names = [name for name in options.variants if name not in known]
    known |= run_all([__file__], names, options.seeds, options.jobs, options.seconds, given)
    if options.rows:
        options.rows.write_text(json.dumps(known))
    results = {name: known[name] for name in KNOWN if name in known}
    options.output.write_text(page(results, options.options))
    print(options.output.read_text())


if __name__ == "__main__":
    main()
