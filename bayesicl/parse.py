"""JSON that users wrote."""

import json
from typing import Any

from bayesicl.errors import InputError


def parse_json(text: str, place: str, example: str) -> Any:
    """What a text says; InputError where it is not JSON.

    place: the file, and the line, for messages. example: of what to write.

    >>> parse_json('{"shots": 0}', "t.jsonl, line 1", "")
    {'shots': 0}
    """
    try:
        found = json.loads(text)
        if "\\ud" in text.lower():  # half of a pair, which no file in UTF-8 can hold
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{place}: is not JSON ({error}); write one object a line, {example}"
        ) from error
    return found
