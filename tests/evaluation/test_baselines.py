"""Baselines are their files: those of a kind of data are measured for it, and no others."""

from hf_pretext.evaluation import baselines as module
from hf_pretext.evaluation.baselines import Baseline, baseline_transfer, baselines


def test_baselines_are_those_of_the_files():
    names = {"image": "pixels", "text": "TF-IDF", "audio": "log-mel", "video": "frame pixels"}
    assert {(each.kind, each.name) for each in baselines()} == set(names.items())
    assert all(each.words.endswith("does" if each.kind == "text" else "do") for each in baselines())


def test_only_those_of_the_kind_are_measured(monkeypatch):
    def baseline(kind, name):
        return Baseline(kind, name, "", "", lambda labelled, methods: {"of": (name, labelled, methods)})

    some = [baseline("image", "pixels"), baseline("audio", "spectrum"), baseline("audio", "loudness")]
    monkeypatch.setattr(module, "baselines", lambda: some)
    assert list(baseline_transfer("the set", "audio", {}, device="cpu")) == ["spectrum", "loudness"]
    assert baseline_transfer("the set", "image", {"knn": 1}) == {"pixels": {"of": ("pixels", "the set", {"knn": 1})}}
    assert baseline_transfer("the set", "video", {}) == {}


def test_a_baseline_without_features_is_left_out(monkeypatch):
    silent = Baseline("audio", "log-mel", "", "", lambda labelled, methods: None)
    monkeypatch.setattr(module, "baselines", lambda: [silent])
    assert baseline_transfer("the set", "audio", {}) == {}
