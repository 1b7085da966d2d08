"""The rules of a stored signing secret and of a stored API key, the same as in the functions.

Tests check both against `tests/support/secrets.json` and `tests/support/api_keys.json`, so every
error text must be the functions' too.
"""

import base64
import json
import re
from typing import Optional

MIN_LENGTH = 16  # bytes after whsec_, or characters without it; Standard Webhooks asks for 24 bytes
WHITE_SPACE = " \t\n\f\r"  # separates secrets; only ASCII white space does
# Kinds of characters outside printable ASCII, each as the content of a regular expression's class.
FOREIGN = {
    "a byte order mark": "\ufeff",
    "an invisible character outside ASCII": "\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\U000e0000-\U000e007f",
    "a non-breaking space or other white space outside ASCII": "\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029"
    "\u202f\u205f\u3000",
    "a typographic quotation mark": "\u00ab\u00bb\u2018-\u201f\u2032-\u2037\u2039\u203a\u300c-\u300f\uff02\uff07",
    "a control character": "\\x00-\\x1f\\x7f-\\x9f",
}


class NoSecret(ValueError):
    """The value is empty, as the template creates it. An empty previous version is not a fault."""


class _Object(list):
    """The members of a JSON object. A dict would hide a repeated name."""


def secrets_in(text: Optional[str]) -> list[str]:
    """Returns the secrets in a stored value.

    Raises ValueError with the reason if the function refuses the value. The reason never quotes the
    value.
    """
    if text is None:
        raise ValueError("is binary; store it as text")
    if text.lstrip(WHITE_SPACE).startswith(("{", "[")):
        text = _text_in_json(text)
    words = [word for word in re.split(f"[{WHITE_SPACE}]+", text) if word]
    if not words:
        raise NoSecret("holds no secret")
    prefixed = any(word.startswith("whsec_") for word in words)
    for number, word in enumerate(words, 1):
        if fault := _copying_fault(word) or _format_fault(word, prefixed):
            raise ValueError(f"secret number {number} {fault}")
    return words


def api_key_in(text: Optional[str]) -> str:
    """Returns the API key in a stored value, by the rules of `src/secrets/api_key.rs`.

    Raises ValueError with the reason if the function refuses the value. The reason never quotes the
    value.
    """
    if text is None:
        raise ValueError("is binary; store it as text")
    if text.lstrip(WHITE_SPACE).startswith(("{", "[")):
        text = _key_in_json(text)
    key = text.strip(WHITE_SPACE)
    if not key:
        raise NoSecret("holds no API key; store one that you made in SendPilot under Integrations, API Keys")
    if re.search(f"[{WHITE_SPACE}]", key):
        raise ValueError("holds more than one word; store the API key and nothing else")
    if foreign := next((character for character in key if not "!" <= character <= "~"), None):
        raise ValueError(f"holds {_kind_of(foreign)}; remove it, or copy the API key again from SendPilot")
    if "whsec_" in key.lower():
        raise ValueError("is the webhook's signing secret; store an API key of SendPilot (sp_live_...)")
    return key


def said(reason: ValueError) -> str:
    """Returns the reason as a clause. Most values are one secret, so the number 1 is left out."""
    said = re.sub("^secret number 1 ", "it ", str(reason))
    return said if said.startswith(("it ", "secret ")) else f"it {said}"


def _text_in_json(text):
    """Returns the text of the member `secrets`, or else of the only member.

    `secrets` is a string or a list of strings. An only member with another name must be a string.
    """
    members = _members_in(text)
    if members is not None:
        named = [value for name, value in members if name == "secrets"]
        if len(named) == 1 and isinstance(named[0], str):
            return named[0]
        # Only a JSON array is a plain list. A JSON object is an _Object, which is a list too.
        if len(named) == 1 and type(named[0]) is list and all(isinstance(one, str) for one in named[0]):
            return " ".join(named[0])
        if len(members) == 1 and not named and isinstance(members[0][1], str):
            return members[0][1]
    raise ValueError(
        'is JSON, but not {"secrets":["whsec_..."]} or {"NAME":"whsec_..."}; use one of these forms, or plain text'
    )


def _key_in_json(text):
    """Returns the text of the member `apiKey`, or else of the only member. It must be a string."""
    members = _members_in(text) or []
    named = [value for name, value in members if name == "apiKey"]
    (key,) = named if len(named) == 1 else [members[0][1]] if len(members) == 1 and not named else [None]
    if isinstance(key, str):
        return key
    raise ValueError(
        'is JSON, but not {"apiKey":"sp_live_..."} or one key/value pair; use one of these forms, or plain text'
    )


def _members_in(text):
    """Returns the members of the JSON object in a text, or None if the function does not read it."""
    try:
        members = json.loads(text, object_pairs_hook=_Object)
        # The function's JSON parser refuses NaN and half of a surrogate pair.
        json.dumps(members, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return members if isinstance(members, _Object) else None


def _copying_fault(word):
    """Returns what was copied along with a secret or instead of a secret, or None."""
    foreign = next((character for character in word if not "!" <= character <= "~"), None)
    lower = word.lower()
    if foreign is not None:
        return f"holds {_kind_of(foreign)}; remove it, or copy the secret again from SendPilot"
    if any(quote in word for quote in "\"'`"):
        return "holds a quotation mark; leave the quotes out"
    if word.startswith("<") or word.endswith(">"):
        return "holds an angle bracket; leave the brackets out, and replace a placeholder by the secret"
    if re.fullmatch(r"\$[A-Za-z0-9_:{}()]*|%[A-Za-z0-9_:{}()]*%", word):
        return "is the name of a variable; store the value of the variable"
    if lower.startswith("arn:") or "arn:aws" in lower:
        return "is an ARN; store SendPilot's webhook secret itself"
    if "://" in word:
        return "is an address; store SendPilot's webhook secret"
    if "sp_live_" in lower:
        return "is an API key of SendPilot; store the webhook's signing secret"
    if lower.rfind("whsec_") > 0:
        return "holds whsec_ behind other characters; remove what is before whsec_, and put white space between secrets"
    if not word.startswith("whsec_") and lower.startswith(("whsec", "hsec_", "sec_")):
        return "must start with exactly whsec_, in small letters; copy it again from SendPilot"
    if "***" in word or "..." in word:
        return "holds *** or ..., as a placeholder or a masked copy does; copy the whole secret"
    return None


def _kind_of(foreign):
    """Returns the kind of a character outside printable ASCII. Most of them are invisible."""
    return next(
        (kind for kind, characters in FOREIGN.items() if re.match(f"[{characters}]", foreign)),
        "a character outside ASCII",
    )


def _format_fault(secret, prefixed):
    """Returns why a word without a copying accident is not a secret, or None if it is a secret.

    `prefixed` says whether a word of the value starts with whsec_.
    """
    if secret.startswith("whsec_"):
        try:
            if len(_strictly_decoded(secret.removeprefix("whsec_"))) >= MIN_LENGTH:
                return None
        except ValueError:
            return (
                "starts with whsec_, but base64 does not follow: it is a placeholder, or characters were added or lost;"
                " copy it again from SendPilot"
            )
        return (
            "starts with whsec_, but fewer than 16 bytes follow: it is a placeholder, or too short a copy; "
            "copy the whole secret from SendPilot"
        )
    if prefixed:
        return (
            "does not start with whsec_, but another word does; remove comments, labels, and white space inside a "
            "secret"
        )
    if len(secret) < MIN_LENGTH:
        return "is too short, with fewer than 16 characters; copy the whole secret from SendPilot"
    return None


def _strictly_decoded(encoded):
    """Returns the bytes of base64 whose padding is complete or missing."""
    bare = encoded.rstrip("=")
    padded = bare + "=" * (-len(bare) % 4)
    decoded = base64.b64decode(padded, validate=True)
    if encoded not in (bare, padded) or not decoded or base64.b64encode(decoded).decode() != padded:
        raise ValueError("not base64 as it is written")
    return decoded
