"""Licence names that the Hub accepts, as of August 2026: https://huggingface.co/docs/hub/repositories-licenses"""

import difflib
import re
from collections.abc import Sequence

NAMES = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research
intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit
mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 openmdw-1.1 openrail openrail++ osl-3.0 other pddl postgresql
unknown unlicense wtfpl zlib
"""
LICENSES = tuple(NAMES.split())


def check_language(codes: Sequence[str]) -> None:
    """Raises `ValueError` for a code that is no language code (ISO 639, two or three letters)."""
    for code in codes:
        if not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]+)*", code) and code not in ("code", "multilingual"):
            raise ValueError(
                f"--language {code} is no language code. Give ISO 639 codes, such as en or deu, or multilingual."
            )


def check_license(name: str | None) -> None:
    """Raises `ValueError` for a licence name that the Hub would refuse. None passes."""
    if name is None or name in LICENSES:
        return
    near = difflib.get_close_matches(name.lower(), LICENSES, 3, 0.5)
    hint = f"Is it {' or '.join(near)}? " if near else ""
    raise ValueError(
        f"--license {name}: the Hub has no licence of this name. {hint}The names are listed at "
        "https://huggingface.co/docs/hub/repositories-licenses. Give `other` for a licence that is not in the list."
    )
