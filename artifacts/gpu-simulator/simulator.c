/* The configuration of the GPU simulator.
 *
 * The driver version is the suffix of the library's own file (libnvidia-ml.so.535.183.01), as with a
 * real driver, so that one compiled object serves several versions side by side. A device is visible
 * when its node /dev/nvidiaN is: a container that was given one node sees one GPU. The configuration
 * file adds what a node cannot tell; containers without it still work, with the defaults below.
 */
#define _GNU_SOURCE
#include "simulator.h"

#include <ctype.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A name that nobody can take for a real device: every report quotes it. */
#define NAME_PREFIX "NVIDIA Simulated "
/* A PCI domain that no machine has, so that sysfs never answers for another device. */
#define BUS_ID_FORMAT "0000FFFF:%02X:00.0"
#define UUID_FORMAT "GPU-de0de0de-0000-4000-8000-%012x"

/* Newest CUDA version that each driver branch supports (NVIDIA's CUDA Toolkit release notes, table
 * "CUDA Toolkit and Corresponding Driver Versions"). */
static const struct {
    int branch;
    int cuda_version;
} CUDA_OF_BRANCH[] = {
    {450, 11000}, {460, 11020}, {470, 11040}, {510, 11060}, {515, 11070}, {520, 11080}, {525, 12000},
    {530, 12010}, {535, 12020}, {545, 12030}, {550, 12040}, {555, 12050}, {560, 12060}, {570, 12080},
    {575, 12090}, {580, 13000}, {590, 13010},
};

struct settings {
    char driver_version[TEXT_LENGTH];
    int cuda_version;
    unsigned int listed;
    struct device devices[MAX_DEVICES];
};

static void copy_text(char *to, const char *from)
{
    (void)snprintf(to, TEXT_LENGTH, "%.79s", from);
}

static int cuda_of_driver(const char *driver_version)
{
    const int branch = atoi(driver_version);
    int cuda_version = CUDA_OF_BRANCH[0].cuda_version;
    for (size_t i = 0; i < sizeof CUDA_OF_BRANCH / sizeof *CUDA_OF_BRANCH; i++) {
        if (CUDA_OF_BRANCH[i].branch <= branch) {
            cuda_version = CUDA_OF_BRANCH[i].cuda_version;
        }
    }
    return cuda_version;
}

static void name_device(struct device *device, unsigned int minor, const char *uuid)
{
    device->minor = minor;
    (void)snprintf(device->bus_id, sizeof device->bus_id, BUS_ID_FORMAT, minor + 1);
    if (uuid != NULL) {
        copy_text(device->uuid, uuid);
    } else {
        (void)snprintf(device->uuid, sizeof device->uuid, UUID_FORMAT, minor);
    }
}

/* One `gpu = MINOR UUID` line. */
static void add_listed(struct settings *settings, const char *value)
{
    unsigned int minor;
    char uuid[TEXT_LENGTH];
    if (settings->listed < MAX_DEVICES && sscanf(value, "%u %79s", &minor, uuid) == 2 && minor < 256) {
        name_device(&settings->devices[settings->listed++], minor, uuid);
    }
}

static void apply(struct simulator *found, struct settings *settings, const char *key, const char *value)
{
    int major, minor;
    if (strcmp(key, "driver_version") == 0) {
        copy_text(settings->driver_version, value);
    } else if (strcmp(key, "cuda_version") == 0 && sscanf(value, "%d.%d", &major, &minor) == 2) {
        settings->cuda_version = major * 1000 + minor * 10;
    } else if (strcmp(key, "model") == 0) {
        (void)snprintf(found->name, sizeof found->name, NAME_PREFIX "%.60s", value);
    } else if (strcmp(key, "memory_mib") == 0 && strtoull(value, NULL, 10) > 0) {
        found->memory_mib = strtoull(value, NULL, 10);
    } else if (strcmp(key, "compute_capability") == 0 && sscanf(value, "%d.%d", &major, &minor) == 2) {
        found->capability_major = major;
        found->capability_minor = minor;
    } else if (strcmp(key, "gpu") == 0) {
        add_listed(settings, value);
    }
}

/* `key = value` lines; anything else, comments included, is passed over. */
static void read_settings(struct simulator *found, struct settings *settings)
{
    char line[256], key[32], value[TEXT_LENGTH];
    FILE *file = fopen(SIMULATOR_CONFIG, "re");
    if (file == NULL) {
        return;
    }
    while (fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, " %31[a-z_] = %79[^\n]", key, value) == 2) {
            apply(found, settings, key, value);
        }
    }
    (void)fclose(file);
}

/* The version in the name of the file that `self` was loaded from, links resolved; "" if none. */
static void version_of_file(const void *self, char *version)
{
    char path[PATH_MAX];
    Dl_info info;
    version[0] = '\0';
    if (dladdr(self, &info) == 0 || info.dli_fname == NULL || realpath(info.dli_fname, path) == NULL) {
        return;
    }
    const char *suffix = strstr(path, ".so.");
    if (suffix != NULL && isdigit((unsigned char)suffix[4]) && strchr(suffix + 4, '.') != NULL) {
        copy_text(version, suffix + 4);
    }
}

static int is_visible(unsigned int minor)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/nvidia%u", SIMULATOR_DEVICES, minor);
    return access(path, F_OK) == 0;
}

static void find_devices(struct simulator *found, const struct settings *settings)
{
    if (settings->listed > 0) {
        for (unsigned int i = 0; i < settings->listed; i++) {
            if (is_visible(settings->devices[i].minor)) {
                found->devices[found->count++] = settings->devices[i];
            }
        }
        return;
    }
    for (unsigned int minor = 0; minor < 255 && found->count < MAX_DEVICES; minor++) {
        if (is_visible(minor)) {
            name_device(&found->devices[found->count++], minor, NULL);
        }
    }
}

void simulator_load(struct simulator *found, const void *self)
{
    struct settings settings = {.driver_version = "580.95.05"};
    char own_version[TEXT_LENGTH];

    *found = (struct simulator){
        .name = NAME_PREFIX "T4", .memory_mib = 15360, .capability_major = 7, .capability_minor = 5};
    read_settings(found, &settings);
    version_of_file(self, own_version);
    copy_text(found->driver_version, own_version[0] != '\0' ? own_version : settings.driver_version);
    /* The file speaks of the node's driver; a library of another version follows its own branch. */
    if (settings.cuda_version > 0 && strcmp(found->driver_version, settings.driver_version) == 0) {
        found->cuda_version = settings.cuda_version;
    } else {
        found->cuda_version = cuda_of_driver(found->driver_version);
    }
    find_devices(found, &settings);
}
