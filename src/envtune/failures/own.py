"""What the engine's own exceptions say, which are named after what they tell."""

from envtune.errors import Exit
from envtune.failures.failure import row

ROWS = (
    row(
        Exit.CONFIG,
        r"^envtune\S*\.NotLoaded\b",
        "the checkpoint cannot be loaded",
        "name another one in SFT_RESUME_FROM (or AXOLOTL_RESUME_FROM_CHECKPOINT), or unset it",
        "envtune.engine.trainer.NotLoaded: UnpicklingError: invalid load key",
    ),
    row(
        Exit.CONFIG,
        r"^envtune\S*\.BeyondTheEnd\b",
        "the checkpoint is of a later step than the last",
        "raise AXOLOTL_NUM_EPOCHS or AXOLOTL_MAX_STEPS to go on from it, or name an earlier one in "
        "SFT_RESUME_FROM",
        "envtune.engine.trainer.BeyondTheEnd: it is of step 9 and the training ends at 2",
    ),
    row(
        Exit.ARTIFACT,
        r"^envtune\S*\.NotFinite\b",
        "the training has diverged",
        "lower AXOLOTL_LEARNING_RATE, or set AXOLOTL_MAX_GRAD_NORM; nothing of it is saved, and "
        "the same settings go on from the last whole checkpoint",
        "envtune.engine.trainer.NotFinite: the loss of step 7 is nan, on a batch of 8 rows of "
        "128 tokens",
    ),
    row(
        Exit.HARDWARE,
        r"^envtune\S*\.Hung\b",
        "the training hangs",
        "the next start resumes; if steps may take so long, raise SFT_WATCHDOG_SECONDS",
        "envtune.supervise.watchdog.Hung: no step for 312 s where one takes 0.8 s: rank 1 is in "
        "`__getitem__` (/data/rows.py:12)",
    ),
    row(
        Exit.DATA,
        r"^envtune\S*\.NothingToLearn\b",
        "nothing would be learned",
        "the type of the data says which parts of a row are; see the rows that are shown",
        "envtune.engine.learned.NothingToLearn: every label of the rows is masked",
    ),
    row(
        Exit.CONFIG,
        r"^envtune\S*\.OtherOrder\b",
        "the checkpoint was made with other batches",
        "name another checkpoint in SFT_RESUME_FROM, or go on all the same with "
        "SFT_RESUME_FORCE=true",
        "envtune.engine.packing.order.OtherOrder: seed was 1 and is 2",
    ),
    row(
        Exit.DATA,
        r"^envtune\S*\.RanksDiffer\b",
        "the processes would train different batches",
        "mount the same data on every node",
        "envtune.engine.packing.order.RanksDiffer: rank 1 has other rows",
    ),
    row(
        Exit.HARDWARE,
        r"^RankLost\b",
        "a process of the training was lost",
        "the next start resumes; if it comes back, use another machine",
        "RankLost: node 1 ended with code 1",
    ),
    row(
        Exit.DATA,
        r"no label holds the end of a turn",
        "no answer would learn to stop",
        "name the template's end of a turn in AXOLOTL_EOT_TOKENS, or choose a template that ends "
        "a turn with the tokenizer's own end of a text",
        "ValueError: no label holds the end of a turn, <|im_end|>",
    ),
)
