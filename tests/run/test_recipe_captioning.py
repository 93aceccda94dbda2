"""The recipe on captions, from the command line to what transformers loads."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
import transformers
from recipe_runs import BRIEFLY, main, refused, saved, shakespeare_tokenizer, smoke_run
from transformers import AutoModelForImageTextToText, AutoProcessor, BertConfig, GPT2Config

CAPTIONING = "captioning_emoji"
CODE = re.compile(r"```python\n(.*?)\n```", re.DOTALL)
SIZES = {"bert": dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32),
         "gpt2": dict(n_embd=32, n_layer=1, n_head=2, n_positions=40)}  # fmt: skip
CONFIGS = {"bert": BertConfig, "gpt2": GPT2Config}

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.slow
def test_smoke_run_with_languages_writes_captions_in_each(tmp_path):
    options = ("--other_captions", "translations", "--caption_languages", "es", "fr")
    folder, output = smoke_run(CAPTIONING, "--use_cpu", *options, output_dir=tmp_path / "run")
    files = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md", "report.png"}
    assert files <= set(os.listdir(folder)) and "captioning, bits per character" in output
    measures = json.loads((folder / "results.json").read_text())["measures"]
    assert measures["trained"].keys() == measures["random"].keys() == measures["chance"].keys()
    card = (folder / "README.md").read_text()
    assert "Pipelines of transformers do not take this class" in card
    assert "Texts by language are in es and fr" in card and "the choice of the main caption's language" in card
    code = "import sys; sys.modules['hf_pretext'] = None\n" + CODE.search(card)[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and "features of the image torch.Size([1, 32])" in done.stdout, done.stderr
    processor, model = AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder)
    prompt = processor.tokenizer("[fr]", add_special_tokens=False, return_tensors="pt").input_ids
    assert prompt.shape == (1, 1) and prompt.item() != processor.tokenizer.unk_token_id
    size = model.config.encoder.image_size
    written = model.generate(pixel_values=torch.rand(1, 3, size, size), decoder_input_ids=prompt, max_new_tokens=4)
    assert written[0, :2].tolist() == [model.config.decoder_start_token_id, prompt.item()]
    with pytest.raises((KeyError, ValueError, TypeError)):  # what the card says of pipelines
        transformers.pipeline("image-text-to-text", model=str(folder))("image.png")


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_text_encoder_becomes_the_decoder(kind, tmp_path):
    tokenizer = shakespeare_tokenizer()
    given = transformers.AutoModel.from_config(CONFIGS[kind](vocab_size=len(tokenizer), **SIZES[kind]))
    saved(tokenizer, saved(given, tmp_path / "text"))
    options = ("--text_encoder", tmp_path / "text", *BRIEFLY, "--frozen", "text")
    main(CAPTIONING, *options, output_dir=tmp_path / "run")
    trained = AutoModelForImageTextToText.from_pretrained(tmp_path / "run").decoder.base_model.state_dict()
    kept = {name: value for name, value in given.state_dict().items() if "pooler" not in name}
    assert kept and all(torch.equal(trained[name], value) for name, value in kept.items())
    languages = ("--other_captions", "translations", "--caption_languages", "es")
    message = refused(CAPTIONING, "--text_encoder", tmp_path / "text", *languages)
    assert "--caption_languages: the tokenizer of" in message and "has no token [es]" in message
