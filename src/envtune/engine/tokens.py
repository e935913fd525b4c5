"""What a tokenizer does besides cutting a text: begins it, ends it, glues a space before it."""

from typing import Any

# A text of one token whatever the vocabulary, and one that is no token's beginning.
_ANY = "a"


def around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before a text and after it, where it is asked to."""
    bare = tokenizer(_ANY, add_special_tokens=False)["input_ids"]
    whole = tokenizer(_ANY)["input_ids"]
    start = next(
        (i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare), 0
    )
    return whole[:start], whole[start + len(bare) :]


def one(tokenizer: Any, text: str) -> int | None:
    """The id of a text that is one token of the tokenizer's, never cut."""
    added: dict[str, int] = tokenizer.get_added_vocab()
    known = added | {str(t): i for t, i in zip(_special(tokenizer), _ids(tokenizer), strict=True)}
    return known.get(text)


def _special(tokenizer: Any) -> list[str]:
    return list(tokenizer.all_special_tokens)


def _ids(tokenizer: Any) -> list[int]:
    return list(tokenizer.all_special_ids)


def never_cut(tokenizer: Any) -> list[str]:
    """Every text that is one token wherever it stands."""
    return sorted({*tokenizer.get_added_vocab(), *map(str, _special(tokenizer))})


def glue(tokenizer: Any) -> str:
    """What a text begins with behind the tokens before it, to become what it is alone.
    SentencePiece glues a space to a text's first word; behind a token there is no first word."""
    before, _ = around(tokenizer)
    if not before:
        return ""
    alone = tokenizer(_ANY, add_special_tokens=False)["input_ids"]
    start = tokenizer.decode(before)

    def behind(text: str) -> list[int]:
        ids: list[int] = tokenizer(start + text, add_special_tokens=False)["input_ids"]
        return ids[len(before) :]

    return " " if behind(_ANY) != alone == behind(f" {_ANY}") else ""
