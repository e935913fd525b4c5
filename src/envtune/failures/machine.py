"""Memory, disks and what else a container has too little of."""

from envtune.errors import Exit
from envtune.failures.failure import row

ROWS = (
    row(
        Exit.MEMORY,
        r"torch\.(cuda\.)?OutOfMemoryError|CUDA out of memory|CUDA error: out of memory|"
        r"cudaErrorMemoryAllocation|Error out of memory at line|"
        r"NVML_SUCCESS == r INTERNAL ASSERT FAILED",
        "the GPU's memory was not enough",
        "lower AXOLOTL_MICRO_BATCH_SIZE or AXOLOTL_SEQUENCE_LEN, or set "
        "AXOLOTL_GRADIENT_CHECKPOINTING=true",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
        "capacity of 79.11 GiB of which 1.51 GiB is free.",
    ),
    row(
        Exit.MEMORY,
        r"(CUBLAS|CUDNN|CUSOLVER)_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)",
        "the GPU's memory was not enough for the work space of a library",
        "lower AXOLOTL_MICRO_BATCH_SIZE or AXOLOTL_SEQUENCE_LEN; where the memory is free, an id "
        "outside of the vocabulary may be why",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ),
    row(
        Exit.MEMORY,
        r"Some modules are dispatched on the CPU or the disk|Cannot copy out of meta tensor",
        "the model does not fit on the GPU",
        "set AXOLOTL_ADAPTER=qlora, use more GPUs with SFT_ACCELERATE_PRESET=fsdp2, or choose a "
        "smaller model",
        "ValueError: Some modules are dispatched on the CPU or the disk. Make sure you have enough "
        "GPU RAM to fit the quantized model.",
    ),
    row(
        Exit.CONFIG,
        r"killed by signal: Bus error|failed to extend /dev/shm|No space left on device.*/dev/shm|"
        r"insufficient shared memory|"
        r"unable to (write to|open|mmap|allocate|resize) .*(/torch_|shared memory)",
        "/dev/shm is too small",
        "start the container with --shm-size=8g, or set AXOLOTL_DATALOADER_NUM_WORKERS=0",
        "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Bus error. It is possible "
        "that dataloader's workers are out of shared memory. Please try to raise your shared "
        "memory limit.",
    ),
    row(
        Exit.MEMORY,
        r"DefaultCPUAllocator: can't allocate memory|^MemoryError\b|Cannot allocate memory|"
        r"std::bad_alloc|killed by signal: Killed|node running low on memory|Memory cgroup out of "
        r"memory|Unable to allocate .* for an array|ArrowMemoryError|malloc of size \d+ failed",
        "the host's memory was not enough",
        "give the container more memory or choose a smaller model",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: can't "
        "allocate memory: you tried to allocate 8589934592 bytes. Error code 12 (Cannot allocate "
        "memory)",
    ),
    row(
        Exit.MEMORY,
        r"DataLoader worker \(pid(\(s\))? [\d, ]+\) exited unexpectedly",
        "a worker that loads rows was ended, for want of memory as a rule",
        "set AXOLOTL_DATALOADER_NUM_WORKERS=0, or give the container more memory and --shm-size",
        "RuntimeError: DataLoader worker (pid(s) 4711, 4712) exited unexpectedly",
    ),
    row(
        Exit.DISK,
        r"Disk quota exceeded|\[Errno 122\]|os error 122\b",
        "the quota of the disk is used up",
        "free space under SFT_OUTPUTS_DIR or have the quota raised; the next start resumes",
        "OSError: [Errno 122] Disk quota exceeded: '/outputs/run1/checkpoints/checkpoint-40'",
    ),
    row(
        Exit.DISK,
        r"No space left on device|ENOSPC|\[Errno 27\]|os error 27|Not enough disk space|"
        r"PytorchStreamWriter failed writing|unexpected pos \d+ vs|^envtune\S*\.NoRoom\b",
        "the disk is full",
        "free space under SFT_OUTPUTS_DIR; the next start resumes",
        "safetensors_rust.SafetensorError: Error while serializing: I/O error: No space left on "
        "device (os error 28)",
    ),
    row(
        Exit.DISK,
        r"\[Errno (5|107|116)\]|Input/output error|os error (5|107|116)\b|Stale file handle|"
        r"Transport endpoint is not connected",
        "the volume does not answer",
        "look after the volume under SFT_OUTPUTS_DIR; the next start resumes",
        "OSError: [Errno 116] Stale file handle: '/outputs/run1/metrics.jsonl'",
    ),
    row(
        Exit.CONFIG,
        r"\[Errno 30\]|Read-only file system|os error 30\b",
        "a volume is mounted to be read alone",
        "mount it writable, or name a folder of another one: SFT_OUTPUTS_DIR, SFT_CACHE_DIR, "
        "HF_HOME",
        "OSError: [Errno 30] Read-only file system: '/models/cache/.locks'",
    ),
    row(
        Exit.CONFIG,
        r"\[Errno 24\]|Too many open files|os error 24\b",
        "more files are open than may be",
        "start the container with --ulimit nofile=65535:65535, or lower "
        "AXOLOTL_DATALOADER_NUM_WORKERS",
        "OSError: [Errno 24] Too many open files: '/data/part-0007.parquet'",
    ),
    row(
        Exit.CONFIG,
        r"can't start new thread|pthread_create failed|Thread creation failed|"
        r"\[Errno 11\] Resource temporarily unavailable",
        "more processes and threads are wanted than may be",
        "raise the limit of processes (--pids-limit, ulimit -u), or lower OMP_NUM_THREADS and "
        "AXOLOTL_DATALOADER_NUM_WORKERS",
        "OpenBLAS blas_thread_init: pthread_create failed for thread 63 of 64: Resource "
        "temporarily unavailable",
    ),
    row(
        Exit.HARDWARE,
        r"Fatal Python error: |Signal 11 \(SIGSEGV\)|killed by signal: Segmentation fault|"
        r"^Segmentation fault|exitcode\s*: -(6|11)\b",
        "a library crashed",
        "the next start resumes; if it comes back at the same step, tell its authors",
        "Fatal Python error: Segmentation fault",
    ),
    row(
        Exit.CONFIG,
        r"Signal 4 \(SIGILL\)|^Illegal instruction|exitcode\s*: -4\b",
        "the processor lacks instructions that a library was built for",
        "use a machine with a newer processor (AVX2)",
        "Signal 4 (SIGILL) received by PID 4711",
    ),
    row(
        Exit.CONFIG,
        r"GLIBC(XX)?_[\d.]+' not found",
        "a library was built for a newer system",
        "use the image, or install the library for this system",
        "ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.32' not found (required by "
        "flash_attn_2_cuda.so)",
    ),
)
