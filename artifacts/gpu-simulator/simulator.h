/* What the simulated driver knows about itself and its devices: shared by libnvidia-ml and libcuda. */
#ifndef DEEPHDC_GPU_SIMULATOR_H
#define DEEPHDC_GPU_SIMULATOR_H

#include <stddef.h>

#ifndef SIMULATOR_CONFIG
#define SIMULATOR_CONFIG "/etc/deephdc/gpu-simulator.conf"
#endif
#ifndef SIMULATOR_DEVICES
#define SIMULATOR_DEVICES "/dev"
#endif

enum { MAX_DEVICES = 16, TEXT_LENGTH = 80, BUS_ID_LENGTH = 32 };

struct device {
    unsigned int minor; /* N of /dev/nvidiaN */
    char uuid[TEXT_LENGTH];
    char bus_id[BUS_ID_LENGTH];
};

struct simulator {
    char driver_version[TEXT_LENGTH];
    int cuda_version; /* 1000 * major + 10 * minor, as CUDA writes it */
    char name[TEXT_LENGTH];
    unsigned long long memory_mib;
    int capability_major;
    int capability_minor;
    unsigned int count;
    struct device devices[MAX_DEVICES];
};

/* Fill `found` from the configuration file, the name of the calling library's own file and the
 * device nodes that are visible here. `self` is the address of any function of that library.
 * Never fails: what is not said anywhere has a default. */
void simulator_load(struct simulator *found, const void *self);

#endif
