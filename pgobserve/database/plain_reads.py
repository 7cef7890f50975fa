"""Which statements, judged by their text, can't change the session."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

#: Words that may precede a parenthesis: SQL's own, and functions without side effects.
_WORDS: Final = frozenset(
    """
    abs age all and any array array_agg array_length as ascii avg between bigint bit_and bit_or
    bool_and bool_or btrim by cardinality case cast ceil ceiling char char_length chr
    clock_timestamp coalesce concat concat_ws count current_setting date date_part date_trunc
    decimal dense_rank distinct double else end except exists exp extract filter first_value
    floor from gen_random_uuid greatest group having in initcap integer intersect interval is
    join json_agg json_build_object jsonb_agg jsonb_build_array jsonb_build_object
    jsonb_extract_path_text jsonb_object_agg lag last_value lateral lead least left length like
    limit ln log lower lpad ltrim make_date max md5 min mod not now ntile nullif numeric offset
    on or order over partition plainto_tsquery position power precision rank regexp_replace
    repeat replace reverse right round row row_number rpad rtrim select setweight sign similar
    similarity smallint some split_part sqrt starts_with statement_timestamp stddev_pop
    stddev_samp string_agg strpos substring sum text then time timestamp to_char to_tsquery
    to_tsvector transaction_timestamp translate trim trunc ts_rank union unnest upper using
    values var_pop var_samp varchar websearch_to_tsquery when where within word_similarity
    """.split()  # noqa: SIM905 (a word on each line would be a page)
)

_LITERAL: Final = re.compile(r"'(?:[^']|'')*'")
_CALL: Final = re.compile(r"""(\.?)\s*(\w+|"(?:[^"]|"")*")\s*\(""")
_OTHER: Final = re.compile(r"""[\\;$]|--|/\*|\binto\b""", re.IGNORECASE)


@lru_cache(maxsize=2048)
def is_plain_read(text: str) -> bool:
    """
    Return whether a statement is a SELECT that calls only functions known to have no side effects.

    Any other function may set something, as ``set_config()`` does. In doubt the answer is False.
    """
    if text.lstrip(" (")[:7].upper() != "SELECT " or _OTHER.search(text):
        return False
    return all(
        not qualified and name.lower() in _WORDS
        for qualified, name in _CALL.findall(_LITERAL.sub("''", text))
    )
