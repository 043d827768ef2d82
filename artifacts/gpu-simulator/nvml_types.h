/* The part of NVML's binary interface that the simulator answers: return codes, enumerations and the
 * layout of structures, as documented in NVIDIA's NVML API reference. */
#ifndef DEEPHDC_NVML_TYPES_H
#define DEEPHDC_NVML_TYPES_H

typedef enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_LIBRARY_NOT_FOUND = 12,
    NVML_ERROR_FUNCTION_NOT_FOUND = 13,
    NVML_ERROR_UNKNOWN = 999,
} nvmlReturn_t;

enum { NVML_BRAND_NVIDIA = 14 };
enum { NVML_TOPOLOGY_SYSTEM = 50 };
enum { NVML_P2P_STATUS_NOT_SUPPORTED = 5 };
enum { NVML_FEATURE_DISABLED = 0 };

typedef const struct device *nvmlDevice_t;
typedef struct nvmlEventSet *nvmlEventSet_t;

typedef struct {
    unsigned long long total;
    unsigned long long free;
    unsigned long long used;
} nvmlMemory_t;

typedef struct {
    unsigned int version;
    unsigned long long total;
    unsigned long long reserved;
    unsigned long long free;
    unsigned long long used;
} nvmlMemory_v2_t;

typedef struct {
    unsigned int gpu;
    unsigned int memory;
} nvmlUtilization_t;

/* What versions 1 and 2 of the call fill in; version 3 adds the long form of the bus identifier. */
typedef struct {
    char busIdLegacy[16];
    unsigned int domain;
    unsigned int bus;
    unsigned int device;
    unsigned int pciDeviceId;
    unsigned int pciSubSystemId;
} nvmlPciInfoShort_t;

typedef struct {
    nvmlPciInfoShort_t common;
    char busId[32];
} nvmlPciInfo_t;

#endif
