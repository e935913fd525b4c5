/* A stand-in for NVIDIA's management library, which needs a GPU. It answers what a check asks. */
#include <stdlib.h>
#include <string.h>

typedef void *device;
typedef struct { unsigned long long total, available, used; } memory;

static int asked(const char *name) {
  const char *value = getenv(name);
  return value ? atoi(value) : 0;
}

int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "stand-in"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = asked("NVML_STANDIN_GPUS"); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = asked("NVML_STANDIN_CUDA"); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device *handle) {
  *handle = (device)(unsigned long)(index + 1);
  return 0;
}
int nvmlDeviceGetName(device handle, char *name, unsigned length) {
  strncpy(name, "NVIDIA H100 80GB HBM3", length);
  return 0;
}
int nvmlDeviceGetUUID(device handle, char *uuid, unsigned length) {
  strncpy(uuid, "GPU-00000000-0000-0000-0000-000000000000", length);
  return 0;
}
int nvmlDeviceGetMemoryInfo(device handle, memory *info) {
  info->total = 85520809984ULL;
  info->available = info->total;
  info->used = 0;
  return 0;
}
int nvmlDeviceGetCudaComputeCapability(device handle, int *major, int *minor) {
  *major = 9;
  *minor = 0;
  return 0;
}
