"""GPUs, their driver, and what goes on between the ranks of a training."""

from envtune.errors import Exit
from envtune.failures.failure import row

_AGAIN = "the next start resumes; if it comes back, use another machine"

ROWS = (
    row(
        Exit.CONFIG,
        r"no kernel image is available|is not compatible with the current PyTorch installation",
        "this build of torch, or of a library, has no code for the GPU",
        "use a GPU that the image is made for, or the image of another CUDA",
        "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the "
        "device",
    ),
    row(
        Exit.CONFIG,
        r"NVIDIA driver on your system is too old|driver version is insufficient|"
        r"unsupported display driver|forward compatibility was attempted|Error 80[34]\b",
        "the GPU's driver is too old",
        "take a host with a newer driver",
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12040). Please "
        "update your GPU driver",
    ),
    row(
        Exit.CONFIG,
        r"No CUDA GPUs are available|Found no NVIDIA driver|invalid device ordinal|"
        r"CUDA unknown error|libcuda\.so\.1: cannot open|no CUDA-capable device is detected|"
        r"not compiled with CUDA enabled",
        "no GPU can be used here",
        "start the container with --gpus all, and let CUDA_VISIBLE_DEVICES name GPUs that are "
        "there; or set SFT_DEVICE=cpu",
        "RuntimeError: No CUDA GPUs are available",
    ),
    row(
        Exit.HARDWARE,
        r"devices are busy or unavailable|system not yet initialized|Error 802\b",
        "a GPU is not ready, or somebody else's",
        "look after the host's fabric manager and who works on the GPU; the next start resumes",
        "torch.AcceleratorError: CUDA error: all CUDA-capable devices are busy or unavailable",
    ),
    row(
        Exit.DATA,
        r"device-side assert triggered|Target -?\d+ is out of bounds|^IndexError: index out of "
        r"range in self|Assertion `(srcIndex < srcSelectDimSize|t >= 0 && t < n_classes)",
        "an id of a row or a label lies outside of the model's vocabulary",
        "let AXOLOTL_TOKENIZER_CONFIG be the model's own, and rows of ids be of that tokenizer; "
        "new tokens go into AXOLOTL_TOKENS",
        "torch.AcceleratorError: CUDA error: device-side assert triggered",
    ),
    row(
        Exit.CONFIG,
        r"doesn't support bf16|bf16 .*not supported|does not support bfloat16|bf16/gpu|"
        r"Bfloat16 is only supported on",
        "this device cannot compute in bf16",
        "set AXOLOTL_BF16=false, and AXOLOTL_FP16=true on a GPU",
        "ValueError: Your setup doesn't support bf16/gpu.",
    ),
    row(
        Exit.CONFIG,
        r"FlashAttention only supports? (Ampere|fp16|head)|FlashAttention forward only supports",
        "flash attention does not work on this GPU, or in this precision",
        "set AXOLOTL_ATTN_IMPLEMENTATION=sdpa",
        "RuntimeError: FlashAttention only supports Ampere GPUs or newer.",
    ),
    row(
        Exit.CONFIG,
        r"triton\S*OutOfResources|out of resource: shared memory",
        "a kernel of Triton's wants more than the GPU has",
        "set AXOLOTL_LORA_MLP_KERNEL, AXOLOTL_LORA_QKV_KERNEL and AXOLOTL_LORA_O_KERNEL to false, "
        "and leave out AXOLOTL_PLUGINS that bring kernels",
        "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 196608, "
        "Hardware limit: 101376. Reducing block sizes or `num_stages` may help.",
    ),
    row(
        Exit.CONFIG,
        r"Failed to find C compiler",
        "Triton finds no C compiler",
        "use the image, or install gcc and let CC name it",
        "RuntimeError: Failed to find C compiler. Please specify via CC environment variable.",
    ),
    row(
        Exit.CONFIG,
        r"torch\._dynamo\.exc\.|BackendCompilerFailed|torch\._inductor\.exc\.",
        "torch.compile failed on the model",
        "set AXOLOTL_TORCH_COMPILE=false",
        "torch._dynamo.exc.BackendCompilerFailed: backend='inductor' raised",
    ),
    row(
        Exit.NETWORK,
        r"cannot be retrieved \(gai error|failed to resolve hostname",
        "the name in MASTER_ADDR leads nowhere",
        "let it name node 0 as the other nodes know it; in Kubernetes by a headless service with "
        "publishNotReadyAddresses",
        "[c10d] The IPv4 network addresses of (node-0.train, 29500) cannot be retrieved (gai "
        "error: -2 - Name or service not known).",
    ),
    row(
        Exit.CONFIG,
        r"Tried to launch distributed communication on port|EADDRINUSE|address already in use",
        "the port where the nodes meet is taken",
        "set MASTER_PORT to one that is free on node 0, the same on every node",
        "torch.distributed.DistNetworkError: The server socket has failed to listen on any local "
        "network address. port: 29500, useIpv6: false, code: -98, name: EADDRINUSE, message: "
        "address already in use",
    ),
    row(
        Exit.NETWORK,
        r"DistStoreError: Timed out|RendezvousTimeoutError|RendezvousConnectionError|"
        r"client socket has (timed out|failed to connect)",
        "not every node came",
        "start each of NNODES with the same MASTER_ADDR and MASTER_PORT; they wait for each other "
        "for SFT_RENDEZVOUS_SECONDS",
        "torch.distributed.DistStoreError: Timed out after 1801 seconds waiting for clients. 1/2 "
        "clients joined.",
    ),
    row(
        Exit.HARDWARE,
        r"collective operation timeout|ran for \d+ milliseconds before timing out|"
        r"Timed out waiting \d+ms for (recv|send)|monitoredBarrier",
        "a rank waited in vain for another",
        "see above which rank came late; the next start resumes, AXOLOTL_DDP_TIMEOUT allows more",
        "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=812, "
        "OpType=ALLREDUCE, NumelIn=1048576, Timeout(ms)=1800000) ran for 1800034 milliseconds "
        "before timing out.",
    ),
    row(
        Exit.CONFIG,
        r"Duplicate GPU detected",
        "two ranks would share a GPU",
        "start one process a GPU: unset SFT_ACCELERATE_LAUNCH_ARGS, or let CUDA_VISIBLE_DEVICES "
        "name as many GPUs as there are processes",
        "ncclInvalidUsage: This usually reflects invalid usage of NCCL library. Last error: "
        "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 3b000",
    ),
    row(
        Exit.CONFIG,
        r"no socket interface found|Unable to find address for: |"
        r"GLOO_SOCKET_IFNAME|NCCL_SOCKET_IFNAME",
        "the network interface that is named is not there",
        "let NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME name one of `ip -br addr`, or unset it",
        "NCCL WARN Bootstrap : no socket interface found",
    ),
    row(
        Exit.HARDWARE,
        r"NCCL error|nccl(InternalError|SystemError|RemoteError|UnhandledCudaError)|NCCL WARN .*"
        r"(Connection refused|Timeout)",
        "the link between GPUs or nodes failed",
        _AGAIN,
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3699, unhandled "
        "system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.28.9\n"
        "ncclSystemError: System call (e.g. socket, malloc) or external library call failed.",
    ),
    row(
        Exit.HARDWARE,
        r"CUDA error|\bNVRM: Xid|Connection closed by peer|gloo[/\w]*\.cc|GPU is lost|Unable to "
        r"determine the device handle|uncorrectable ECC",
        "a GPU or the link between GPUs failed",
        _AGAIN,
        "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered",
    ),
    row(
        Exit.CONFIG,
        r"Expected to have finished reduction in the prior iteration",
        "some parameters take no part in the loss",
        "set AXOLOTL_DDP_FIND_UNUSED_PARAMETERS=true",
        "RuntimeError: Expected to have finished reduction in the prior iteration before starting "
        "a new one.",
    ),
    row(
        Exit.CONFIG,
        r"Must flatten tensors with uniform dtype|Cannot flatten integer dtype tensors",
        "FSDP cannot shard weights of several precisions",
        "use SFT_ACCELERATE_PRESET=ddp, or leave AXOLOTL_FSDP_CONFIG to its defaults",
        "ValueError: Must flatten tensors with uniform dtype but got torch.bfloat16 and "
        "torch.float32",
    ),
    row(
        Exit.CONFIG,
        r"Expected all tensors to be on the same device",
        "parts of the model are on different devices",
        "unset AXOLOTL_DEVICE_MAP and AXOLOTL_MAX_MEMORY; what does not fit on one GPU is shared "
        "by SFT_ACCELERATE_PRESET=fsdp2",
        "RuntimeError: Expected all tensors to be on the same device, but found at least two "
        "devices, cuda:0 and cpu!",
    ),
    row(
        Exit.CONFIG,
        r"must have the same dtype|expected scalar type \w+ but found|Attempting to unscale FP16 "
        r"gradients|expected m1 and m2 to have the same dtype",
        "weights of different precisions meet",
        "set one of AXOLOTL_BF16 and AXOLOTL_FP16, and not both",
        "RuntimeError: expected scalar type BFloat16 but found Float",
    ),
    row(
        Exit.CONFIG,
        r"element 0 of tensors does not require grad",
        "nothing that is trained takes part in the loss",
        "set AXOLOTL_GRADIENT_CHECKPOINTING_KWARGS='{\"use_reentrant\": false}', and look at "
        "AXOLOTL_UNFROZEN_PARAMETERS and AXOLOTL_LORA_TARGET_MODULES",
        "RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn",
    ),
)
