"""The Hub, stores of objects, trackers, and the network before them."""

from envtune.errors import Exit
from envtune.failures.failure import row

ROWS = (
    row(
        Exit.ACCESS,
        r"GatedRepoError|is gated|is a gated dataset|awaiting a review from the repo",
        "the repository's licence is not accepted, or no token shows that it is",
        "accept it on the repository's page, and set HF_TOKEN to a token of that account",
        "huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo for url "
        "https://huggingface.co/meta-llama/Llama-3.1-8B/resolve/main/config.json. Access to model "
        "meta-llama/Llama-3.1-8B is restricted. You must have access to it and be authenticated",
    ),
    row(
        Exit.ACCESS,
        r"fine-grained token settings|403 Forbidden: (Authorization|None)|403 Client Error",
        "the token may not read this repository",
        "give HF_TOKEN the right to read gated and private repositories, or accept the licence",
        "huggingface_hub.errors.HfHubHTTPError: 403 Forbidden: Please enable access to public "
        "gated repositories in your fine-grained token settings to view this repository.",
    ),
    row(
        Exit.ACCESS,
        r"Invalid user token|Invalid username or password|Invalid credentials in Authorization",
        "the Hub does not know the token",
        "set HF_TOKEN to a valid one, or unset it for what is public",
        "huggingface_hub.errors.HfHubHTTPError: 401 Client Error: Unauthorized for url: "
        "https://huggingface.co/api/whoami-v2. Invalid user token.",
    ),
    row(
        Exit.ACCESS,
        r"RevisionNotFoundError|Invalid rev id",
        "the repository has no such revision",
        "name a branch, tag or commit of its; a data set's is `revision` in AXOLOTL_DATASETS",
        "huggingface_hub.errors.RevisionNotFoundError: 404 Client Error. Revision Not Found for "
        "url: https://huggingface.co/org/model/resolve/v9/config.json. Invalid rev id: v9",
    ),
    row(
        Exit.ACCESS,
        r"RepositoryNotFoundError|401 Client Error|DatasetNotFoundError",
        "the Hub has no such repository, or shows it to nobody without a token",
        "look at its name, and set HF_TOKEN if it is private",
        "huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error. Repository Not Found "
        "for url: https://huggingface.co/api/models/org/none. Please make sure you specified the "
        "correct `repo_id` and `repo_type`.",
    ),
    row(
        Exit.ACCESS,
        r"(NoCredentials|PartialCredentials|DefaultCredentials)Error|InvalidAccessKeyId|"
        r"SignatureDoesNotMatch|^PermissionError: (Access Denied|Forbidden)|\(AccessDenied\)",
        "the store refused access to the data",
        "set the keys that its client reads: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://",
        "botocore.exceptions.NoCredentialsError: Unable to locate credentials",
    ),
    row(
        Exit.ACCESS,
        r"No API key configured|api_key not configured|API key must (be|have) .*\d+ characters|"
        r"wandb\S*\.AuthenticationError|wandb: ERROR .*(permission denied|not logged in)",
        "W&B refused the key",
        "set WANDB_API_KEY to a valid one, or WANDB_MODE=offline",
        "wandb.errors.errors.UsageError: No API key configured. Use `wandb login` to log in.",
    ),
    row(
        Exit.CONFIG,
        r"CERTIFICATE_VERIFY_FAILED",
        "a certificate is not trusted",
        "set SFT_CA_BUNDLE to a file with your company's certificates",
        "ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
        "unable to get local issuer certificate",
    ),
    row(
        Exit.NETWORK,
        r"429 Client Error|Too Many Requests|rate limit(ed)? (exceeded|reached)",
        "the Hub asks to come back later",
        "wait and start again, which resumes; HF_TOKEN raises the limit",
        "huggingface_hub.errors.HfHubHTTPError: 429 Client Error: Too Many Requests for url: "
        "https://huggingface.co/api/datasets/org/rows",
    ),
    row(
        Exit.NETWORK,
        r"\b50[0234] Server Error|\b50[234] (Bad Gateway|Service Unavailable|Gateway Time-?out)|"
        r"500 Internal Server Error",
        "the Hub, or a server before it, has a failure of its own",
        "the next start resumes; see https://status.huggingface.co",
        "huggingface_hub.errors.HfHubHTTPError: 503 Server Error: Service Temporarily Unavailable "
        "for url: https://huggingface.co/api/models/org/model",
    ),
    row(
        Exit.NETWORK,
        r"Consistency check failed: file should be of size|IncompleteRead|ChunkedEncodingError|"
        r"RemoteProtocolError|peer closed connection without sending complete",
        "a download ended before its end",
        "the next start fetches the rest; HF_HUB_DISABLE_XET=1 takes the plain way",
        "OSError: Consistency check failed: file should be of size 4976698672 but has size "
        "1073741824 (model-00001-of-00004.safetensors).",
    ),
    row(
        Exit.NETWORK,
        r"ProxyError|407 Proxy Authentication|Tunnel connection failed",
        "the proxy does not let it through",
        "set HTTPS_PROXY with what the proxy wants, or NO_PROXY for what needs none",
        "requests.exceptions.ProxyError: HTTPSConnectionPool(host='huggingface.co', port=443): "
        "Unable to connect to proxy",
    ),
    row(
        Exit.NETWORK,
        r"ConnectionError|ConnectError|ConnectTimeout|ReadTimeout|ReadError|Max retries exceeded|"
        r"Name or service not known|Temporary failure in name resolution|Connection reset by peer|"
        r"RemoteDisconnected|Network is unreachable|SSLEOFError",
        "the network failed",
        "the next start resumes",
        "ConnectionResetError: [Errno 104] Connection reset by peer",
    ),
    row(
        Exit.ACCESS,
        r"OfflineModeIsEnabled|LocalEntryNotFoundError|couldn't connect to .* to load|"
        r"Can't load (the )?(configuration|tokenizer|model|feature extractor|image processor)|"
        r"is not a local folder and is not a valid model identifier",
        "a file of the model or data set is neither local nor in the cache",
        "unset HF_HUB_OFFLINE, or give a local folder",
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't "
        "find them in the cached files.",
    ),
)
