/* nvidia-smi of the GPU simulator: the listings that scripts read, from libnvidia-ml.so.1.
 *
 *   nvidia-smi                                   a table that says it is simulated
 *   nvidia-smi -L                                one line per device
 *   nvidia-smi --query-gpu=FIELD,... --format=csv[,noheader][,nounits]
 *
 * Exit codes as NVIDIA's program: 2 wrong usage, 6 no device, 9 no driver, 12 no library.
 */
#include "nvml_types.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

enum { EXIT_USAGE = 2, EXIT_NO_DEVICE = 6, EXIT_NO_DRIVER = 9, EXIT_NO_LIBRARY = 12 };
enum { TEXT = 96, MAX_FIELDS = 8 };

static struct {
    nvmlReturn_t (*init)(void);
    nvmlReturn_t (*shutdown)(void);
    nvmlReturn_t (*driver_version)(char *, unsigned int);
    nvmlReturn_t (*cuda_version)(int *);
    nvmlReturn_t (*count)(unsigned int *);
    nvmlReturn_t (*handle)(unsigned int, nvmlDevice_t *);
    nvmlReturn_t (*uuid)(nvmlDevice_t, char *, unsigned int);
    nvmlReturn_t (*name)(nvmlDevice_t, char *, unsigned int);
    nvmlReturn_t (*pci)(nvmlDevice_t, nvmlPciInfo_t *);
    nvmlReturn_t (*memory)(nvmlDevice_t, nvmlMemory_t *);
    nvmlReturn_t (*capability)(nvmlDevice_t, int *, int *);
} nvml;

struct gpu {
    unsigned int index;
    char uuid[TEXT], name[TEXT], driver[TEXT];
    nvmlPciInfo_t pci;
    nvmlMemory_t memory;
    int major, minor;
};

static int load(void)
{
    const struct {
        void *slot;
        const char *symbol;
    } wanted[] = {
        {&nvml.init, "nvmlInit_v2"},
        {&nvml.shutdown, "nvmlShutdown"},
        {&nvml.driver_version, "nvmlSystemGetDriverVersion"},
        {&nvml.cuda_version, "nvmlSystemGetCudaDriverVersion"},
        {&nvml.count, "nvmlDeviceGetCount_v2"},
        {&nvml.handle, "nvmlDeviceGetHandleByIndex_v2"},
        {&nvml.uuid, "nvmlDeviceGetUUID"},
        {&nvml.name, "nvmlDeviceGetName"},
        {&nvml.pci, "nvmlDeviceGetPciInfo_v3"},
        {&nvml.memory, "nvmlDeviceGetMemoryInfo"},
        {&nvml.capability, "nvmlDeviceGetCudaComputeCapability"},
    };
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (library == NULL) {
        return 0;
    }
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *address = dlsym(library, wanted[i].symbol);
        if (address == NULL) {
            return 0;
        }
        (void)memcpy(wanted[i].slot, &address, sizeof address);
    }
    return 1;
}

static int read_gpu(unsigned int index, struct gpu *gpu)
{
    nvmlDevice_t device;
    *gpu = (struct gpu){.index = index};
    return nvml.handle(index, &device) == NVML_SUCCESS && nvml.uuid(device, gpu->uuid, TEXT) == NVML_SUCCESS &&
           nvml.name(device, gpu->name, TEXT) == NVML_SUCCESS && nvml.pci(device, &gpu->pci) == NVML_SUCCESS &&
           nvml.memory(device, &gpu->memory) == NVML_SUCCESS &&
           nvml.capability(device, &gpu->major, &gpu->minor) == NVML_SUCCESS &&
           nvml.driver_version(gpu->driver, TEXT) == NVML_SUCCESS;
}

static unsigned long long mib(unsigned long long bytes)
{
    return bytes / (1024ULL * 1024ULL);
}

/* Print one field of a query; false if there is no such field. With a null GPU only the check. */
static int print_field(const char *field, const struct gpu *gpu, const char *memory_unit)
{
    static const char *const KNOWN[] = {"index",       "uuid",        "name",        "driver_version", "pci.bus_id",
                                        "memory.total", "memory.used", "compute_cap", "count"};
    size_t which = 0;
    const size_t known = sizeof KNOWN / sizeof *KNOWN;
    while (which < known && strcmp(field, KNOWN[which]) != 0) {
        which++;
    }
    if (which == known || gpu == NULL) {
        return which < known;
    }
    switch (which) {
    case 0: printf("%u", gpu->index); break;
    case 1: printf("%s", gpu->uuid); break;
    case 2: printf("%s", gpu->name); break;
    case 3: printf("%s", gpu->driver); break;
    case 4: printf("%s", gpu->pci.busId); break;
    case 5: printf("%llu%s", mib(gpu->memory.total), memory_unit); break;
    case 6: printf("%llu%s", mib(gpu->memory.used), memory_unit); break;
    case 7: printf("%d.%d", gpu->major, gpu->minor); break;
    default: {
        unsigned int count = 0;
        (void)nvml.count(&count);
        printf("%u", count);
    }
    }
    return 1;
}

/* Split at commas in place; the number of fields, or 0 if one is unknown or there are too many. */
static int split(char *list, char **fields)
{
    int count = 0;
    for (char *field = strtok(list, ","); field != NULL; field = strtok(NULL, ",")) {
        field += strspn(field, " ");
        if (count == MAX_FIELDS || !print_field(field, NULL, "")) {
            fprintf(stderr, "Field \"%s\" is not a valid field to query.\n", field);
            return 0;
        }
        fields[count++] = field;
    }
    return count;
}

static int print_query(char *query, const char *format, unsigned int count)
{
    char *fields[MAX_FIELDS];
    const char *unit = strstr(format, "nounits") != NULL ? "" : " MiB";
    const int field_count = split(query, fields);
    if (field_count == 0 || strncmp(format, "csv", 3) != 0) {
        return EXIT_USAGE;
    }
    for (int i = 0; strstr(format, "noheader") == NULL && i < field_count; i++) {
        const char *header_unit = strncmp(fields[i], "memory.", 7) == 0 ? " [MiB]" : "";
        printf("%s%s%s", fields[i], header_unit, i + 1 < field_count ? ", " : "\n");
    }
    for (unsigned int index = 0; index < count; index++) {
        struct gpu gpu;
        if (!read_gpu(index, &gpu)) {
            return EXIT_NO_DRIVER;
        }
        for (int i = 0; i < field_count; i++) {
            (void)print_field(fields[i], &gpu, unit);
            fputs(i + 1 < field_count ? ", " : "\n", stdout);
        }
    }
    return 0;
}

static int print_list(unsigned int count)
{
    struct gpu gpu;
    for (unsigned int index = 0; index < count; index++) {
        if (!read_gpu(index, &gpu)) {
            return EXIT_NO_DRIVER;
        }
        printf("GPU %u: %s (UUID: %s)\n", index, gpu.name, gpu.uuid);
    }
    return 0;
}

static int print_table(unsigned int count)
{
    char driver[TEXT] = "";
    int cuda = 0;
    struct gpu gpu;
    (void)nvml.driver_version(driver, TEXT);
    (void)nvml.cuda_version(&cuda);
    printf("NVIDIA-SMI %s (simulated: nothing here computes)   Driver Version: %s   CUDA Version: %d.%d\n", driver,
           driver, cuda / 1000, cuda % 1000 / 10);
    for (unsigned int index = 0; index < count; index++) {
        if (!read_gpu(index, &gpu)) {
            return EXIT_NO_DRIVER;
        }
        printf("| %3u  %-32s  %s  %6lluMiB / %6lluMiB |\n", index, gpu.name, gpu.pci.busId, mib(gpu.memory.used),
               mib(gpu.memory.total));
    }
    return 0;
}

static int run(int argc, char **argv, unsigned int count)
{
    char *query = NULL;
    const char *format = "";
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--query-gpu=", 12) == 0) {
            query = argv[i] + 12;
        } else if (strncmp(argv[i], "--format=", 9) == 0) {
            format = argv[i] + 9;
        } else if (argc == 2 && (strcmp(argv[i], "-L") == 0 || strcmp(argv[i], "--list-gpus") == 0)) {
            return print_list(count);
        } else {
            fprintf(stderr, "Invalid combination of input arguments: %s\n", argv[i]);
            return EXIT_USAGE;
        }
    }
    return query != NULL ? print_query(query, format, count) : print_table(count);
}

int main(int argc, char **argv)
{
    unsigned int count = 0;
    if (!load()) {
        fputs("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.\n", stderr);
        return EXIT_NO_LIBRARY;
    }
    if (nvml.init() != NVML_SUCCESS || nvml.count(&count) != NVML_SUCCESS) {
        fputs("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", stderr);
        return EXIT_NO_DRIVER;
    }
    if (count == 0) {
        fputs("No devices were found\n", stderr);
    }
    const int status = count == 0 ? EXIT_NO_DEVICE : run(argc, argv, count);
    (void)nvml.shutdown();
    return status;
}
