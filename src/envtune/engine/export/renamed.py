"""Models whose tensors have other names in their files than in memory, where adapters are made."""

from collections.abc import Iterable
from pathlib import Path

from envtune.artifacts.modelfiles import read_json


def names_in_memory(folder: Path, stored: Iterable[str]) -> dict[str, str]:
    """What transformers calls each tensor in memory -> what the files call it.

    Without the tensors that it joins or turns, such as experts one by one. Empty for a model
    whose class transformers does not have.
    """
    import torch
    import transformers
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, rename_source_key

    named = read_json(folder / "config.json").get("architectures") or [""]
    if (kind := getattr(transformers, named[0], None)) is None:
        return {}
    with torch.device("meta"):
        model = kind(kind.config_class.from_pretrained(folder))
    steps = get_model_conversion_mapping(model)
    joins = [step for step in steps if isinstance(step, WeightConverter)]
    renames = [step for step in steps if not isinstance(step, WeightConverter)]
    known, found = model.state_dict(), {}
    for name in stored:
        new, joined = rename_source_key(name, renames, joins, model.base_model_prefix, known)
        if joined is None:
            found[new] = name
    return found
