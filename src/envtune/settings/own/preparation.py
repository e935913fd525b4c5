"""The settings of the preparation: which rows are taken, in which shares, and what is kept of it.

The share that is held back, the duplicates and the seed are Axolotl's own keys: `val_set_size`,
`dataset_exact_deduplication`, `seed`.
"""

from envtune.settings.languages import LANGUAGES
from envtune.settings.own.setting import FLAG, TEXT, Own

ALL_EXHAUSTED, FIRST_EXHAUSTED = "all_exhausted", "first_exhausted"
WEIGHTS, STRATEGY = "SFT_DATA_WEIGHTS", "SFT_INTERLEAVE_STRATEGY"
SAVE, ENGINE = "SFT_SAVE_SPLITS", "SFT_PREPARE_ENGINE"

_CHARACTERS = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]}
_LANGUAGE = {
    "type": "string",
    "pattern": f"^({'|'.join(sorted(LANGUAGES))})([-_].*)?$",
    "title": "codes of ISO 639 such as en, it or pt, of languages that can be told apart",
}
_WEIGHT = {"type": "number", "exclusiveMinimum": 0}

FILTERS: dict[str, Own] = {
    "SFT_MIN_PROMPT_LENGTH": Own(_CHARACTERS, None, "drop rows with a prompt of fewer characters"),
    "SFT_MAX_PROMPT_LENGTH": Own(_CHARACTERS, None, "drop rows with a prompt of more characters"),
    "SFT_MIN_RESPONSE_LENGTH": Own(
        _CHARACTERS, None, "drop rows with an answer of fewer characters"
    ),
    "SFT_MAX_RESPONSE_LENGTH": Own(
        _CHARACTERS, None, "drop rows with an answer of more characters"
    ),
    "SFT_FILTER_URLS": Own(FLAG, False, "drop rows with a web address in prompt or answer"),
    "SFT_FILTER_CODE_BLOCKS": Own(FLAG, False, "drop rows with a fenced block of code"),
    "SFT_REQUIRE_ASCII": Own(FLAG, False, "drop rows with a character beyond ASCII"),
    "SFT_LANGUAGES": Own(
        {"anyOf": [{"type": "array", "items": _LANGUAGE, "minItems": 1}, {"type": "null"}]},
        None,
        "keep rows in these languages only, by ISO 639 codes",
    ),
    "SFT_SAMPLE_SIZE": Own(
        {"type": "integer", "minimum": 1}, None, "train on the first rows of each data set only"
    ),
}

MIXTURE: dict[str, Own] = {
    WEIGHTS: Own(
        {"anyOf": [{"type": "array", "items": _WEIGHT, "minItems": 1}, {"type": "null"}]},
        None,
        "the share of each data set in what is trained, in their order; by default every row once",
    ),
    STRATEGY: Own(
        {"enum": [ALL_EXHAUSTED, FIRST_EXHAUSTED]},
        ALL_EXHAUSTED,
        "where weighted data sets end: all_exhausted repeats rows, first_exhausted leaves some out",
    ),
}

KEPT: dict[str, Own] = {
    "SFT_DATA_DIRS": Own(
        {"type": "array", "items": TEXT, "minItems": 1},
        None,
        "folders that `envtune prepare` has written, each a data set",
    ),
    "SFT_PREPARED_DIR": Own(TEXT, None, "folder in which the prepared rows are kept"),
    SAVE: Own(FLAG, False, "keep the rows of each side of the split as train.jsonl and val.jsonl"),
}

LOOKED_AT: dict[str, Own] = {
    "SFT_PREPARE": Own(
        {"enum": ["auto", "axolotl"]},
        "auto",
        "who makes ids and labels of rows; auto: envtune where it makes the same ones as Axolotl",
    ),
    ENGINE: Own(
        {"enum": ["local", "ray"]},
        "local",
        "where envtune makes ids: processes here (AXOLOTL_DATASET_NUM_PROC), or RAY_ADDRESS's Ray",
    ),
    "SFT_BAD_ROWS": Own(
        {"enum": ["refuse", "drop"]},
        "refuse",
        "a row that cannot be trained on ends the run before it begins, or is left out and counted",
    ),
}

PREPARATION: dict[str, Own] = {**LOOKED_AT, **FILTERS, **MIXTURE, **KEPT}
# What decides which rows are trained: with another value it is another run.
DECISIVE = ("SFT_BAD_ROWS", *(n for n in {**FILTERS, **MIXTURE} if n != "SFT_SAMPLE_SIZE"))
