"""SHA-256 without OpenSSL is SHA-256."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from asterisk.common.digest import sha256


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_is_hashlibs(pieces):
    digest = sha256()
    for piece in pieces:
        digest.update(piece)
    assert digest.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_does_not_load_openssl(python):
    done = python(
        "import sys\n"
        "from asterisk.common.digest import sha256\nsha256()\nprint('_hashlib' in sys.modules)"
    )
    assert done.stdout.strip() == "False", done.stderr
