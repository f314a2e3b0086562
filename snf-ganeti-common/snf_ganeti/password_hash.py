"""Password hashes in the forms of crypt(5), and what stands in shadow(5) in place of one."""

import re

_WORD = "[./0-9A-Za-z]"
_SALT = r"[^$:\s]"
_HASH = re.compile(
    "|".join(
        (
            rf"\$1\${_SALT}{{1,8}}\${_WORD}{{22}}",
            rf"\$sha1\$\d{{1,10}}\${_SALT}{{1,64}}\${_WORD}{{28}}",
            rf"\$2[abxy]\$\d\d\${_WORD}{{53}}",
            rf"\$5\$(rounds=\d{{1,9}}\$)?{_SALT}{{1,16}}\${_WORD}{{43}}",
            rf"\$6\$(rounds=\d{{1,9}}\$)?{_SALT}{{1,16}}\${_WORD}{{86}}",
            rf"\$g?y\${_WORD}{{1,32}}\${_WORD}{{1,86}}\${_WORD}{{43}}",
        )
    ),
    re.ASCII,
)
_LOCK = re.compile(r"!!?|!?\*")


def is_hash(text: str) -> bool:
    """Does it have the form of a hash that crypt(3) makes? A locked or empty one doesn't."""
    return _HASH.fullmatch(text) is not None


def is_lock(text: str) -> bool:
    """Is it one of the marks with which no password opens an account?"""
    return _LOCK.fullmatch(text) is not None
