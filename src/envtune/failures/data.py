"""The rows that are trained, as far as their readers and templates tell."""

from envtune.errors import Exit
from envtune.failures.failure import row

ROWS = (
    row(
        Exit.DATA,
        r"roles must alternate|(system|tool) role (is )?not supported|"
        r"jinja2\.exceptions\.(TemplateError|TemplateRuntimeError)",
        "the chat template refuses a conversation",
        "mend the order and the roles of the rows, or choose another AXOLOTL_CHAT_TEMPLATE",
        "jinja2.exceptions.TemplateError: Conversation roles must alternate "
        "user/assistant/user/assistant/...",
    ),
    row(
        Exit.CONFIG,
        r"jinja2\.exceptions\.TemplateSyntaxError",
        "the chat template is no Jinja",
        "mend AXOLOTL_CHAT_TEMPLATE_JINJA, or choose a template by name",
        "jinja2.exceptions.TemplateSyntaxError: unexpected 'end of template'",
    ),
    row(
        Exit.DATA,
        r"jinja2\.exceptions\.UndefinedError|dict object' has no attribute",
        "the chat template wants a field that rows do not have",
        "name the fields of the rows in AXOLOTL_DATASETS, e.g. message_property_mappings",
        "jinja2.exceptions.UndefinedError: 'dict object' has no attribute 'content'",
    ),
    row(
        Exit.DATA,
        r"num_samples should be a positive integer|zero[- ]length|Empty dataset|"
        r"dataset is empty|after (filtering|dropping).* 0 (rows|samples)",
        "no row is left to train on",
        "raise AXOLOTL_SEQUENCE_LEN, or look at what was dropped and why",
        "ValueError: num_samples should be a positive integer value, but got num_samples=0",
    ),
    row(
        Exit.DATA,
        r"UnicodeDecodeError|codec can't decode",
        "a file of the data is not UTF-8",
        "convert it, e.g. by iconv -f latin1 -t utf-8",
        "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xe9 in position 14: invalid "
        "continuation byte",
    ),
    row(
        Exit.DATA,
        r"datasets\.exceptions\.|DatasetGenerationError|JSONDecodeError|DataFilesNotFoundError|"
        r"ArrowInvalid|Parquet magic bytes|CastError|Couldn't cast|Couldn't find any data file",
        "the data could not be read",
        "check the rows against the data set's type",
        "datasets.exceptions.DatasetGenerationError: An error occurred while generating the "
        "dataset",
    ),
    row(
        Exit.CONFIG,
        r"\[Errno 13\]|Permission denied|os error 13\b",
        "a file or a folder may not be used by this user",
        "give the container's user the right to it, or name another folder",
        "PermissionError: [Errno 13] Permission denied: '/models/mine/config.json'",
    ),
)
