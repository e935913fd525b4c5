"""Models, tokenizers, adapters, and the libraries that load them."""

from envtune.errors import Exit
from envtune.failures.failure import row

ROWS = (
    row(
        Exit.CONFIG,
        r"trust_remote_code|requires you to execute the (configuration|modeling|tokenizer|dataset)",
        "the model brings code of its own, which runs only if you trust it",
        "read it, and set AXOLOTL_TRUST_REMOTE_CODE=true",
        "ValueError: The repository org/model contains custom code which must be executed to "
        "correctly load the model. Please pass the argument `trust_remote_code=True` to allow "
        "custom code to be run.",
    ),
    row(
        Exit.CONFIG,
        r"does not recognize this architecture|Unrecognized configuration class|Unrecognized model "
        r"in |Should have a `model_type` key|has no attribute '?\w+For(CausalLM|Conditional)",
        "transformers here does not know this kind of model",
        "choose a model that it knows; one of a newer release needs an image with that",
        "ValueError: The checkpoint you are trying to load has model type `none4` but Transformers "
        "does not recognize this architecture.",
    ),
    row(
        Exit.CONFIG,
        r"size mismatch for |ignore_mismatched_sizes|Trying to set a tensor of shape|"
        r"mismatched sizes",
        "the weights do not fit the model's config.json",
        "let both come from the same model and revision; an adapter needs the base that it was "
        "trained on",
        "RuntimeError: Error(s) in loading state_dict for LlamaForCausalLM:\n\tsize mismatch for "
        "model.embed_tokens.weight: copying a param with shape torch.Size([32001, 64]) from "
        "checkpoint, the shape in current model is torch.Size([32000, 64]).",
    ),
    row(
        Exit.CONFIG,
        r"Weights only load failed|serious vulnerability issue in `?torch\.load|UnpicklingError|"
        r"Unsupported (global|operand|class)",
        "the weights are a pickle that could run anything, and are not loaded",
        "give them as safetensors",
        "_pickle.UnpicklingError: Weights only load failed. This file can still be loaded, to do "
        "so you have two options, do those steps only if you trust the source of the checkpoint.",
    ),
    row(
        Exit.ACCESS,
        r"SafetensorError: |deserializing header|PytorchStreamReader failed|Unable to load weights "
        r"from|unexpected EOF, expected \d+ more bytes|not fully covered",
        "a file of weights is damaged, or not whole, or a pointer of git-lfs",
        "fetch the model again: remove it from the cache, or run `git lfs pull` in its folder",
        "safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, "
        "file not fully covered",
    ),
    row(
        Exit.ACCESS,
        r"no file named .*(safetensors|pytorch_model|\.bin)|does not appear to have a file named|"
        r"EntryNotFoundError|Entry Not Found for url",
        "a file of the model is missing",
        "give the whole folder of the model, with config.json, weights and tokenizer",
        "OSError: Error no file named model.safetensors, or pytorch_model.bin, found in directory "
        "/models/mine.",
    ),
    row(
        Exit.CONFIG,
        r"untagged enum|Couldn't instantiate the backend tokenizer|Cannot instantiate this "
        r"tokenizer from a slow version|Error parsing (line|file) .*tokenizer",
        "the tokenizer cannot be read by the libraries here",
        "give its tokenizer.json of a release that they know, by AXOLOTL_TOKENIZER_CONFIG",
        "Exception: data did not match any variant of untagged enum ModelWrapper at line 1251944 "
        "column 3",
    ),
    row(
        Exit.CONFIG,
        r"(requires|needs|install).{0,30}(SentencePiece|tiktoken|protobuf)|No module named "
        r"'(sentencepiece|tiktoken|google\.protobuf)'|(sentencepiece|tiktoken)`? (is|must be) "
        r"(required|installed)",
        "the tokenizer needs a library that is not installed",
        "give a tokenizer with a tokenizer.json, or install sentencepiece, tiktoken and protobuf",
        "ImportError: LlamaTokenizer requires the SentencePiece library but it was not found in "
        "your environment.",
    ),
    row(
        Exit.CONFIG,
        r"does not have a padding token|Please select a token to use as `pad_token`",
        "the tokenizer has no token to pad with",
        'set AXOLOTL_SPECIAL_TOKENS=\'{"pad_token": "<|endoftext|>"}\' to one that it has',
        "ValueError: Asking to pad but the tokenizer does not have a padding token.",
    ),
    row(
        Exit.CONFIG,
        r"chat_template is not set|no template argument was passed|does not have a chat template|"
        r"chat_template choice is .tokenizer_default. but",
        "the tokenizer has no chat template, and rows of messages need one",
        "set AXOLOTL_CHAT_TEMPLATE, e.g. to chatml",
        "ValueError: Cannot use chat template functions because tokenizer.chat_template is not set "
        "and no template argument was passed!",
    ),
    row(
        Exit.CONFIG,
        r"FlashAttention2? has been toggled on|No module named 'flash_attn|flash[-_]attn.* (not "
        r"(be )?installed|undefined symbol)",
        "flash attention is not installed",
        "set AXOLOTL_ATTN_IMPLEMENTATION=sdpa, or use the image",
        "ImportError: FlashAttention2 has been toggled on, but it cannot be used due to the "
        "following error: the package flash_attn seems to be not installed.",
    ),
    row(
        Exit.CONFIG,
        r"(No module named|No package metadata was found for|install|requires|Using) ['`]*"
        r"bitsandbytes|CUDA Setup failed despite|bitsandbytes.*(not|no) .*(CUDA|GPU|backend)",
        "bitsandbytes cannot be used here",
        "use the image and a GPU, or do without AXOLOTL_LOAD_IN_4BIT, AXOLOTL_LOAD_IN_8BIT and "
        "8-bit optimizers",
        "importlib.metadata.PackageNotFoundError: No package metadata was found for bitsandbytes",
    ),
    row(
        Exit.CONFIG,
        r"(No module named|install|requires|Using) ['`]*deepspeed|DeepSpeed is not installed",
        "DeepSpeed is not installed",
        "use SFT_ACCELERATE_PRESET=fsdp2, or install deepspeed",
        "ModuleNotFoundError: No module named 'deepspeed'",
    ),
    row(
        Exit.CONFIG,
        r"Target modules? .* not found in the base model|No modules were targeted",
        "the adapter's targets fit no layer of the model",
        "set AXOLOTL_LORA_TARGET_LINEAR=true, or name its layers in AXOLOTL_LORA_TARGET_MODULES",
        "ValueError: Target modules {'c_attn'} not found in the base model. Please check the "
        "target modules and try again.",
    ),
    row(
        Exit.CONFIG,
        r"undefined symbol: ",
        "a library was built for another torch",
        "use the image, or install the library anew for the torch that is here",
        "ImportError: /opt/venv/lib/python3.11/site-packages/causal_conv1d_cuda.so: undefined "
        "symbol: _ZN3c104cuda9SetDeviceEi",
    ),
    row(
        Exit.CONFIG,
        r"pydantic_core\._pydantic_core\.ValidationError|validation errors? for AxolotlInputConfig"
        r"|^\s*Value error, |^DeprecationWarning: ",
        "Axolotl refused the configuration",
        "see the line above; `envtune check` shows where each value came from",
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for AxolotlInputConfig",
    ),
    row(
        Exit.CONFIG,
        r"^(ModuleNotFoundError: No module named|ImportError: .*(requires|cannot import name))|"
        r"requires comet-ml",
        "a library is not installed, or not in the version that is wanted",
        "use the image, or install it; what wants it is named in the log",
        "ModuleNotFoundError: No module named 'mamba_ssm'",
    ),
)
