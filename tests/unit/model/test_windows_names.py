"""Names are compared as Windows and Wine do."""

from __future__ import annotations

import hashlib
import struct
import unicodedata
from collections.abc import Callable

import pytest

from silo.model.windows_names import fold, fold_lower, sort_key


def test_pairs_are_folded_and_nothing_else() -> None:
    assert fold("Software") == "SOFTWARE" == fold("sOFTWARE")
    assert fold("straße") == "STRAßE"
    assert fold("ÿµ\u017f\u0131") == "Ÿµ\u017f\u0131"
    assert fold_lower("STRASSE_É\u212a") == "strasse_é\u212a"
    assert fold("\U00010428") == "\U00010428" == fold_lower("\U00010428")
    assert fold("a\ud83d") == "A\ud83d"


def test_order_is_that_of_utf16_units() -> None:
    assert sorted(["\uff21", "\U0001f600", "a", "A_", "AA"], key=lambda name: sort_key(fold(name))) == (
        ["a", "AA", "A_", "\U0001f600", "\uff21"]
    )


# Of l_intl.nls (Wine 8.0): the units that each unit is mapped to, for all that Unicode 3.2 had assigned, since later characters
# depend on the Python at hand.
UPPER_SHA256 = "1c815d942c481b2bf678caecfc935c9877e3a11d0efcd46607a0cb8a42d7e349"
LOWER_SHA256 = "e8495857b4a32a32b33022a32d5016d0b2f58e9ff0de968df5f7f29fc1dabe6f"


@pytest.mark.parametrize(("function", "digest"), [(fold, UPPER_SHA256), (fold_lower, LOWER_SHA256)])
def test_every_unit_is_mapped_as_in_the_tables_of_windows(function: Callable[[str], str], digest: str) -> None:
    old = unicodedata.ucd_3_2_0
    assigned = [chr(unit) for unit in range(0x10000) if old.category(chr(unit)) != "Cn"]
    mapped = struct.pack(f"<{len(assigned)}H", *(ord(function(character)) for character in assigned))
    assert hashlib.sha256(mapped).hexdigest() == digest
