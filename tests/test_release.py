"""Files and metadata of a release: one version, a valid citation, versions of Python that agree."""

import re
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

import hf_pretext

REPOSITORY = Path(__file__).parent.parent
CITATION_KEYS = {  # of the schema of CFF 1.2.0, without identifiers, references and people's entries
    "abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers", "keywords",
    "license", "license-url", "message", "preferred-citation", "references", "repository", "repository-artifact",
    "repository-code", "title", "type", "url", "version",
}  # fmt: skip


@pytest.fixture(scope="module")
def setup() -> ConfigParser:
    parser = ConfigParser()
    parser.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    return parser


def test_the_citation_is_valid_and_of_this_version():
    """The rules of the schema that concern the entries which are used."""
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation.keys() <= CITATION_KEYS
    assert citation["cff-version"] == "1.2.0" and citation["type"] in ("software", "dataset")
    assert all(isinstance(citation[name], str) and citation[name] for name in ("message", "title", "license"))
    assert citation["authors"] and all(author.keys() == {"name"} for author in citation["authors"])
    assert len(set(citation["keywords"])) == len(citation["keywords"]) > 0
    assert str(citation["version"]) == hf_pretext.__version__


def test_changelog_and_metadata_are_of_this_version(setup):
    assert setup["metadata"]["version"] == "attr: hf_pretext.__version__"
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", changelog, re.MULTILINE)[1] == hf_pretext.__version__


def test_versions_of_python_agree(setup):
    """The classifiers, ruff and the Makefile name what `python_requires` allows."""
    bounds = SpecifierSet(setup["options"]["python_requires"])
    versions = re.findall(r"Python :: (3\.\d+)", setup["metadata"]["classifiers"])
    least = versions[0]
    assert versions == sorted(versions, key=lambda version: int(version[2:]))
    assert all(bounds.contains(version) for version in versions)
    assert not bounds.contains(f"3.{int(least[2:]) - 1}") and bounds.contains(sys.version.split()[0])
    assert f'target-version = "py{least.replace(".", "")}"' in (REPOSITORY / "pyproject.toml").read_text()
    makefile = (REPOSITORY / "Makefile").read_text()
    assert re.search(r"for python in (.*) python3;", makefile)[1].split() == [f"python{one}" for one in versions[::-1]]
    assert f"Python {least} or newer" in makefile
    assert f"Python {least} or newer" in (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_security_names_no_address_that_nobody_reads():
    text = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")
    assert "Report a vulnerability" in text and not re.search(r"\S+@\S+|https?://", text)
