"""The settings of a run up to its training, and the keys that envtune's plugin adds."""

from typing import Any

from envtune.machine.pretended import PRETENDED, PRETENDED_NAME
from envtune.settings import upstream
from envtune.settings.own.profiles import PROFILES
from envtune.settings.own.setting import COUNT, FLAG, SECONDS, TEXT, Own

_TEXT_OR_NULL = {"anyOf": [{"type": "string"}, {"type": "null"}]}
# The name of a run that has a number.
RUN_NAME = r"^(?P<prefix>[a-z0-9][a-z0-9-]{0,122})-run(?P<index>[0-9]{1,4})$"
_FOLDER = {
    "type": "string",
    # latest.txt is the name of the file beside the runs that says which is the newest.
    "pattern": r"^(?!latest\.txt$)[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$",
    "title": "one folder name, and not latest.txt",
}
_RUN_NAME = {
    "type": "string",
    "pattern": RUN_NAME,
    "title": "<prefix>-run<N> of a-z, 0-9 and hyphens, at most 128 characters, e.g. my-model-run42",
}
_PRETENDED = {
    "type": "string",
    "pattern": PRETENDED_NAME,
    "title": f"a GPU and how many, e.g. h100x8; known are {', '.join(PRETENDED)}",
}

# accelerate takes its long flags with underscores or dashes.
_FLAGS = upstream.accelerate()["flags"]
_LAUNCH_ARGS = {
    "type": "object",
    "properties": {**_FLAGS, **{name.replace("_", "-"): node for name, node in _FLAGS.items()}},
}

RESUME_FROM, LATEST, OFF = "SFT_RESUME_FROM", "latest", "off"
SAVE_MINUTES = "SFT_SAVE_MINUTES"
FORCE_TOKENIZER = "SFT_FORCE_TOKENIZER"
WATCHDOG, WATCHDOG_SECONDS = "SFT_WATCHDOG", "SFT_WATCHDOG_SECONDS"

TRAINING: dict[str, Own] = {
    FORCE_TOKENIZER: Own(
        FLAG, False, "train although tokenizer, or rows of tokens, are of another vocabulary"
    ),
    "SFT_OUTPUTS_DIR": Own(TEXT, None, "folder that holds the runs"),
    "SFT_LOGS_DIR": Own(TEXT, None, "folder that holds the logs of the stages"),
    "SFT_TRAINER_CONFIG_JSON_PATH": Own(
        TEXT, None, "a mounted JSON or YAML file with Axolotl's keys"
    ),
    "SFT_TRAINER_CONFIG_JSON_ENV_VAR": Own(
        TEXT, None, "the same as base64 JSON; stronger than the file"
    ),
    "SFT_DATASET_CONFIG": Own(
        {"type": "array", "items": TEXT, "minItems": 1},
        None,
        "the industrial pipeline's JSON that describes the data, or several of them",
    ),
    "SFT_TRAINING_CONFIG": Own(
        TEXT, None, "the industrial pipeline's JSON that describes the training"
    ),
    "SFT_TEMPLATE": Own(
        TEXT, None, "a Jinja template that lays out the YAML, or a YAML file of defaults"
    ),
    "SFT_PROFILE": Own({"enum": sorted(PROFILES)}, None, "a set of values weaker than any other"),
    "SFT_CACHE_DIR": Own(TEXT, None, "folder of the caches where HF_HOME is not set"),
    "DATA_ROOT": Own(TEXT, None, "folder in which a relative path of a data set is looked up too"),
    "CKPT_ROOT": Own(TEXT, None, "the same as SFT_OUTPUTS_DIR, which is stronger"),
    "SFT_LOCAL_FILES_ONLY": Own(
        FLAG, False, "no network: models and data sets are local folders or in the cache"
    ),
    "SFT_FETCH_SECONDS": Own(
        SECONDS,
        7200,
        "seconds that a start tries to fetch models from the Hub, and data from elsewhere",
    ),
    RESUME_FROM: Own(
        TEXT,
        LATEST,
        "latest: an unfinished run goes on from its newest whole checkpoint; off: it begins anew; "
        "a path: a new run begins there",
    ),
    "SFT_RESUME_FORCE": Own(
        FLAG, False, "go on from a checkpoint although the batches would be other ones"
    ),
    SAVE_MINUTES: Own(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]},
        None,
        "minutes after which a checkpoint is saved at the latest, beside those by steps or epochs",
    ),
    "SFT_RERUN": Own(
        FLAG,
        False,
        "train again although this configuration is finished; an unfinished run goes on",
    ),
    "SFT_STRICT": Own(FLAG, True, "an unknown name is an error (false: a warning)"),
    "SFT_GRACE_SECONDS": Own(
        SECONDS,
        25,
        "seconds between SIGTERM and the end of everything",
    ),
    WATCHDOG: Own(
        {"type": "number", "minimum": 0},
        10,
        "times the median step without a step after which training hangs: stacks, and exit 202; "
        "0: never",
    ),
    WATCHDOG_SECONDS: Own(SECONDS, 300, "seconds that a step may take at least before that"),
    "SFT_DEVICE": Own(
        {"enum": ["auto", "cpu", "cuda"]}, "auto", "where to train; auto: a GPU where there is one"
    ),
    "SFT_PRETEND_GPU": Own(
        _PRETENDED, None, "check for GPUs that are not here, e.g. h100x8; nothing can be trained"
    ),
    "SFT_IGNORE_MEMORY": Own(
        FLAG, False, "start although the plan says that a GPU's memory is not enough"
    ),
    "SFT_ACCELERATE_PRESET": Own(
        {"enum": ["auto", "single", "ddp", "fsdp2", "zero2", "zero3"]},
        "auto",
        "how training spreads over GPUs; auto: a copy each where that fits, else FSDP2",
    ),
    "SFT_ACCELERATE_LAUNCH_ARGS": Own(
        _LAUNCH_ARGS, None, "a JSON object of accelerate launch's long flags"
    ),
    "SET_NUM_PROCESSES_TO_NUM_GPUS": Own(
        FLAG, True, "one process a visible GPU, unless a number is given"
    ),
    "SFT_RENDEZVOUS_SECONDS": Own(
        SECONDS,
        1800,
        "seconds that the nodes of a run wait for each other at the start",
    ),
    "SFT_SMOKE_DDP": Own(
        FLAG, False, "first try the processes of all nodes by a small training (envtune smoke-ddp)"
    ),
    "SFT_LOG_LEVEL": Own(
        {"enum": ["DEBUG", "INFO", "WARNING", "ERROR"]},
        "INFO",
        "DEBUG shows the engine's own lines too",
    ),
    "SFT_RUN_COUNTER_SCOPE": Own(
        {"enum": ["global", "model", "model_dataset"]},
        "model_dataset",
        "which runs share one counter",
    ),
    "FORCE_RUN_NAME": Own(_RUN_NAME, None, "the run's whole name, <prefix>-run<N>"),
    "FORCE_RUN_INDEX": Own(COUNT, None, "the run's number; the prefix is computed"),
    "LEGACY_RUN_NAME": Own(_FOLDER, None, "the run's folder with USE_LEGACY_NAMING=1"),
    "USE_LEGACY_NAMING": Own(FLAG, False, "folders named <dataset>_<size>_<model>, not counted"),
}

# Keys that envtune's own plugin adds to Axolotl's YAML.
PLUGIN_KEYS: dict[str, dict[str, Any]] = {
    "response_template": {
        "anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1}, {"type": "null"}],
        "description": "Text after which a row is trained; what stands before is masked. Of "
        "several the one that a data set's input_format has.",
    },
    "instruction_template": _TEXT_OR_NULL
    | {"description": "Text with which the next question begins; masked up to the answer."},
}
