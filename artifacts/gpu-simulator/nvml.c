/* libnvidia-ml of the GPU simulator: what NVIDIA's toolkit, runtime, device plugin and feature
 * discovery ask of the management library, answered from simulator_load().
 *
 * Every function that NVML 13 exports is exported here: those without an answer return
 * NVML_ERROR_NOT_SUPPORTED (nvml_unsupported.def), because a missing symbol kills a Go program at the
 * moment of the call, long after it started well.
 */
#define _GNU_SOURCE
#include "nvml_types.h"
#include "simulator.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))
#define NVML_VERSION_PREFIX "13."
/* Vendor 10de with a device number that NVIDIA does not use. */
#define PCI_DEVICE_ID 0xFFFF10DEU
#define PCI_DOMAIN 0xFFFFU
#define MIB (1024ULL * 1024ULL)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct simulator simulator;
static unsigned int users; /* calls of Init without a Shutdown yet */

static int is_ready(void)
{
    pthread_mutex_lock(&lock);
    const int ready = users > 0;
    pthread_mutex_unlock(&lock);
    return ready;
}

static int is_device(nvmlDevice_t device)
{
    return device >= simulator.devices && device < simulator.devices + simulator.count;
}

/* Leave the calling function unless the library is initialised and CONDITION holds. */
#define REQUIRE(condition)                      \
    do {                                        \
        if (!is_ready()) {                      \
            return NVML_ERROR_UNINITIALIZED;    \
        }                                       \
        if (!(condition)) {                     \
            return NVML_ERROR_INVALID_ARGUMENT; \
        }                                       \
    } while (0)

static nvmlReturn_t put_text(char *to, unsigned int length, const char *text)
{
    if (length <= strlen(text)) {
        return NVML_ERROR_INSUFFICIENT_SIZE;
    }
    (void)memcpy(to, text, strlen(text) + 1);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    pthread_mutex_lock(&lock);
    if (users == 0) {
        simulator_load(&simulator, (const void *)(size_t)&nvmlInitWithFlags);
    }
    users++;
    pthread_mutex_unlock(&lock);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlInit(void)
{
    return nvmlInitWithFlags(0);
}

EXPORT nvmlReturn_t nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

EXPORT nvmlReturn_t nvmlShutdown(void)
{
    pthread_mutex_lock(&lock);
    const nvmlReturn_t result = users > 0 ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
    users -= users > 0;
    pthread_mutex_unlock(&lock);
    return result;
}

EXPORT const char *nvmlErrorString(nvmlReturn_t result)
{
    switch (result) {
    case NVML_SUCCESS: return "Success";
    case NVML_ERROR_UNINITIALIZED: return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT: return "Invalid Argument";
    case NVML_ERROR_NOT_SUPPORTED: return "Not Supported";
    case NVML_ERROR_NOT_FOUND: return "Not Found";
    case NVML_ERROR_INSUFFICIENT_SIZE: return "Insufficient Size";
    case NVML_ERROR_DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case NVML_ERROR_TIMEOUT: return "Timeout";
    case NVML_ERROR_LIBRARY_NOT_FOUND: return "Library Not Found";
    case NVML_ERROR_FUNCTION_NOT_FOUND: return "Function Not Found";
    case NVML_ERROR_UNKNOWN: break;
    }
    return "Unknown Error";
}

EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    REQUIRE(version != NULL);
    return put_text(version, length, simulator.driver_version);
}

EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    char text[TEXT_LENGTH + sizeof NVML_VERSION_PREFIX];
    REQUIRE(version != NULL);
    (void)snprintf(text, sizeof text, NVML_VERSION_PREFIX "%s", simulator.driver_version);
    return put_text(version, length, text);
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    REQUIRE(version != NULL);
    *version = simulator.cuda_version;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    return nvmlSystemGetCudaDriverVersion(version);
}

EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    REQUIRE(count != NULL);
    *count = simulator.count;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetCount(unsigned int *count)
{
    return nvmlDeviceGetCount_v2(count);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    REQUIRE(device != NULL && index < simulator.count);
    *device = &simulator.devices[index];
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    REQUIRE(uuid != NULL && device != NULL);
    for (unsigned int i = 0; i < simulator.count; i++) {
        if (strcmp(uuid, simulator.devices[i].uuid) == 0) {
            *device = &simulator.devices[i];
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

/* The short form of a bus identifier has a domain of four digits. */
static const char *short_bus_id(nvmlDevice_t device)
{
    return device->bus_id + 4;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
    REQUIRE(bus_id != NULL && device != NULL);
    for (unsigned int i = 0; i < simulator.count; i++) {
        const nvmlDevice_t candidate = &simulator.devices[i];
        if (strcasecmp(bus_id, candidate->bus_id) == 0 || strcasecmp(bus_id, short_bus_id(candidate)) == 0) {
            *device = candidate;
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *bus_id, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByPciBusId_v2(bus_id, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    REQUIRE(is_device(device) && uuid != NULL);
    return put_text(uuid, length, device->uuid);
}

EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
    REQUIRE(is_device(device) && name != NULL);
    return put_text(name, length, simulator.name);
}

/* One number asked of a device. */
#define NUMBER(function, type, expression)                       \
    EXPORT nvmlReturn_t function(nvmlDevice_t device, type *out) \
    {                                                            \
        REQUIRE(is_device(device) && out != NULL);               \
        *out = (type)(expression);                               \
        return NVML_SUCCESS;                                     \
    }

static unsigned int architecture(void)
{
    static const struct {
        int capability; /* 10 * major + minor, the first of the architecture */
        unsigned int code;
    } KNOWN[] = {{100, 10}, {90, 9}, {89, 8}, {80, 7}, {75, 6}, {70, 5}, {60, 4}, {50, 3}};
    const int capability = simulator.capability_major * 10 + simulator.capability_minor;
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) {
        if (capability >= KNOWN[i].capability) {
            return KNOWN[i].code;
        }
    }
    return 0xFFFFFFFFU;
}

NUMBER(nvmlDeviceGetIndex, unsigned int, device - simulator.devices)
NUMBER(nvmlDeviceGetMinorNumber, unsigned int, device->minor)
NUMBER(nvmlDeviceGetBoardId, unsigned int, device->minor)
NUMBER(nvmlDeviceGetBrand, unsigned int, NVML_BRAND_NVIDIA)
NUMBER(nvmlDeviceGetArchitecture, unsigned int, architecture())
NUMBER(nvmlDeviceGetPersistenceMode, unsigned int, NVML_FEATURE_DISABLED)
NUMBER(nvmlDeviceGetComputeMode, unsigned int, 0)
NUMBER(nvmlDeviceGetVirtualizationMode, unsigned int, 0)
NUMBER(nvmlDeviceIsMigDeviceHandle, unsigned int, 0)
NUMBER(nvmlDeviceGetMaxMigDeviceCount, unsigned int, 0)
NUMBER(nvmlDeviceGetSupportedEventTypes, unsigned long long, 0)

EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    REQUIRE(is_device(device) && major != NULL && minor != NULL);
    *major = simulator.capability_major;
    *minor = simulator.capability_minor;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    REQUIRE(is_device(device) && memory != NULL);
    *memory = (nvmlMemory_t){.total = simulator.memory_mib * MIB, .free = simulator.memory_mib * MIB};
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    REQUIRE(is_device(device) && memory != NULL);
    *memory = (nvmlMemory_v2_t){
        .version = memory->version, .total = simulator.memory_mib * MIB, .free = simulator.memory_mib * MIB};
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates)
{
    REQUIRE(is_device(device) && rates != NULL);
    *rates = (nvmlUtilization_t){0, 0};
    return NVML_SUCCESS;
}

/* Nothing ever runs on a simulated device. */
#define NO_PROCESSES(function)                                                              \
    EXPORT nvmlReturn_t function(nvmlDevice_t device, unsigned int *count, void *processes) \
    {                                                                                       \
        (void)processes;                                                                    \
        REQUIRE(is_device(device) && count != NULL);                                        \
        *count = 0;                                                                         \
        return NVML_SUCCESS;                                                                \
    }
NO_PROCESSES(nvmlDeviceGetComputeRunningProcesses)
NO_PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2)
NO_PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3)
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses)
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2)
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3)
NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses)
NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2)
NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3)

static void put_pci_info(nvmlDevice_t device, nvmlPciInfoShort_t *info)
{
    *info = (nvmlPciInfoShort_t){.domain = PCI_DOMAIN, .bus = device->minor + 1, .pciDeviceId = PCI_DEVICE_ID};
    (void)snprintf(info->busIdLegacy, sizeof info->busIdLegacy, "%.15s", short_bus_id(device));
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *info)
{
    REQUIRE(is_device(device) && info != NULL);
    put_pci_info(device, &info->common);
    (void)memcpy(info->busId, device->bus_id, sizeof info->busId);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfoShort_t *info)
{
    REQUIRE(is_device(device) && info != NULL);
    put_pci_info(device, info);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfoShort_t *info)
{
    return nvmlDeviceGetPciInfo_v2(device, info);
}

/* What two devices are to each other; devices of the simulator share a machine and nothing else. */
#define RELATION(function, out_type, expression)                                      \
    EXPORT nvmlReturn_t function(nvmlDevice_t one, nvmlDevice_t other, out_type *out) \
    {                                                                                 \
        REQUIRE(is_device(one) && is_device(other) && out != NULL);                   \
        *out = (expression);                                                          \
        return NVML_SUCCESS;                                                          \
    }
RELATION(nvmlDeviceGetTopologyCommonAncestor, unsigned int, NVML_TOPOLOGY_SYSTEM)
RELATION(nvmlDeviceOnSameBoard, int, one == other)

EXPORT nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t one, nvmlDevice_t other, unsigned int kind, unsigned int *out)
{
    (void)kind;
    REQUIRE(is_device(one) && is_device(other) && out != NULL);
    *out = NVML_P2P_STATUS_NOT_SUPPORTED;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    REQUIRE(set != NULL);
    *set = malloc(1);
    return *set != NULL ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

EXPORT nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    REQUIRE(set != NULL);
    free(set);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set)
{
    (void)types;
    REQUIRE(is_device(device) && set != NULL);
    return NVML_SUCCESS;
}

/* No event ever comes, but the wait takes as long as it was asked to: callers loop on it. */
EXPORT nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, void *event, unsigned int timeout_ms)
{
    REQUIRE(set != NULL && event != NULL);
    const struct timespec pause = {.tv_sec = timeout_ms / 1000, .tv_nsec = (long)(timeout_ms % 1000) * 1000000L};
    (void)nanosleep(&pause, NULL);
    return NVML_ERROR_TIMEOUT;
}

EXPORT nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, void *event, unsigned int timeout_ms)
{
    return nvmlEventSetWait_v2(set, event, timeout_ms);
}

/* Whatever the arguments of these functions, nothing is read from them or written through them. */
#define UNSUPPORTED(function)                                                 \
    EXPORT nvmlReturn_t function(void);                                       \
    EXPORT nvmlReturn_t function(void)                                        \
    {                                                                         \
        return is_ready() ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_UNINITIALIZED; \
    }
#include "nvml_unsupported.def"
