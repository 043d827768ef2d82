/* libcuda of the GPU simulator: it answers that there is no device to compute on.
 *
 * Tools that look for a driver find one and learn its version. A program that wants to compute gets
 * CUDA_ERROR_NO_DEVICE: nothing here ever pretends to run a kernel.
 */
#include "simulator.h"

#define EXPORT __attribute__((visibility("default")))

typedef enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_NOT_INITIALIZED = 3,
    CUDA_ERROR_NO_DEVICE = 100,
} CUresult;

EXPORT CUresult cuInit(unsigned int flags)
{
    return flags == 0 ? CUDA_ERROR_NO_DEVICE : CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuDriverGetVersion(int *version)
{
    struct simulator simulator;
    if (version == NULL) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    simulator_load(&simulator, (const void *)(size_t)&cuDriverGetVersion);
    *version = simulator.cuda_version;
    return CUDA_SUCCESS;
}

/* cuInit never succeeds, so every later call comes before it did. */
EXPORT CUresult cuDeviceGetCount(int *count)
{
    (void)count;
    return CUDA_ERROR_NOT_INITIALIZED;
}

static const char *describe(CUresult error, int name)
{
    switch (error) {
    case CUDA_SUCCESS: return name ? "CUDA_SUCCESS" : "no error";
    case CUDA_ERROR_INVALID_VALUE: return name ? "CUDA_ERROR_INVALID_VALUE" : "invalid argument";
    case CUDA_ERROR_NOT_INITIALIZED: return name ? "CUDA_ERROR_NOT_INITIALIZED" : "initialization error";
    case CUDA_ERROR_NO_DEVICE: return name ? "CUDA_ERROR_NO_DEVICE" : "simulated GPU: no CUDA-capable device";
    }
    return NULL;
}

EXPORT CUresult cuGetErrorName(CUresult error, const char **text)
{
    *text = describe(error, 1);
    return *text != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuGetErrorString(CUresult error, const char **text)
{
    *text = describe(error, 0);
    return *text != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
