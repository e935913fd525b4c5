"""Logs in where there are keys, and says in one line each what was done or why not.

A login never stops a run: what a run cannot reach is found out when it is needed. The
keys stay in the environment; nothing is written to disk or put on a command line.
"""

from collections.abc import Mapping

from envtune.sources import HUB_TOKENS, USERINFO, redact

_HUB = "https://huggingface.co"
_WANDB_MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")


def token(environ: Mapping[str, str]) -> str | None:
    """The Hub's token, under its name or one of the two old ones."""
    given = (environ.get(name, "").strip() for name in HUB_TOKENS)  # a plain text again
    return next(filter(None, given), None)


def hugging_face(environ: Mapping[str, str]) -> str:
    """Asks the Hub who the token belongs to."""
    secret = token(environ)
    endpoint = environ.get("HF_ENDPOINT") or _HUB
    if secret is None:
        return "Hugging Face: no token (HF_TOKEN is not set); only public files can be fetched"
    if environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return "Hugging Face: offline (HF_HUB_OFFLINE is set); the token was not tried"
    return redact(
        f"Hugging Face: {_whoami(endpoint, secret)}", (secret, *USERINFO.findall(endpoint))
    )


def _whoami(endpoint: str, secret: str) -> str:
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        name = HfApi(endpoint=endpoint, token=secret).whoami()["name"]
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            return (
                f"the token was refused by {endpoint} (status {status}); make a new one at "
                f"{endpoint}/settings/tokens"
            )
        return f"{endpoint} answered with status {status}; going on without a login"
    except (httpx.HTTPError, OSError) as error:
        return f"no network: {endpoint} cannot be reached ({type(error).__name__}); going on"
    return f"logged in as {name}"


def weights_and_biases(environ: Mapping[str, str]) -> str:
    """What will happen to tracking. The run itself logs in, by the key in its environment."""
    mode = environ.get("WANDB_MODE", "").lower()
    if mode and mode not in _WANDB_MODES:
        return f"W&B: WANDB_MODE={mode} is none of {', '.join(_WANDB_MODES)}; W&B will refuse it"
    if mode == "disabled":
        return "W&B: off (WANDB_MODE=disabled)"
    if mode in ("offline", "dryrun"):
        return "W&B: offline (WANDB_MODE); `wandb sync` uploads later"
    if not environ.get("WANDB_API_KEY"):
        return "W&B: off (WANDB_API_KEY is not set)"
    return "W&B: on, with the key of WANDB_API_KEY"
