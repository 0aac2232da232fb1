/* A library that speaks the binary interface of NVML, for tests where there is no GPU: nvidia-ml-py loads it as it would
   the driver's. Two chips, and a MIG slice of the second. A test sets what they show and which calls fail with what. */

#include <stdio.h>
#include <string.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };
enum { ANY_DEVICE = -1, DEVICES = 3, POLICIES = 12, FAILURES = 64 };

static const char *const names[] = {"utilization_pct", "memory_bytes", "power_mw", "clock_mhz", "temperature_c",
                                    "energy_mj", "clock_reasons", "processes", "mig_mode"};
enum { UTILIZATION, MEMORY, POWER, CLOCK, TEMPERATURE, ENERGY, CLOCK_REASONS, PROCESSES, MIG_MODE, VALUES };

typedef struct {
    const char *uuid;
    unsigned long long values[VALUES];
    unsigned long long violations_ns[POLICIES];
} Device;

static Device devices[DEVICES] = {
    {.uuid = "GPU-11111111-2222-3333-4444-555555555555",
     .values = {70, 1000000000, 150500, 1410, 45, 5000, 0, 1, 0}},
    {.uuid = "GPU-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
     .values = {30, 2000000000, 250500, 1980, 65, 9000, 0, 3, 0}},
    {.uuid = "MIG-99999999-8888-7777-6666-555555555555", .values = {30, 500000000, 250500, 1980, 65, 9000, 0, 1, 0}},
};

static struct {
    char call[64];
    int device, code;
} failures[FAILURES];

static int initialized;

/* What tests steer with. A name or number that is not known gives -1. */

int steer_value(int device, const char *name, unsigned long long value) {
    for (int index = 0; device >= 0 && device < DEVICES && index < VALUES; index++)
        if (!strcmp(names[index], name)) {
            devices[device].values[index] = value;
            return 0;
        }
    return -1;
}

int steer_violation_ns(int device, int policy, unsigned long long value) {
    if (device < 0 || device >= DEVICES || policy < 0 || policy >= POLICIES)
        return -1;
    devices[device].violations_ns[policy] = value;
    return 0;
}

/* Let a call, or "*" for all of a device's, fail with a code, until all is forgotten. */
int steer_failure(const char *call, int device, int code) {
    for (int index = 0; index < FAILURES; index++)
        if (!failures[index].code) {
            snprintf(failures[index].call, sizeof failures[index].call, "%s", call);
            failures[index].device = device;
            failures[index].code = code;
            return 0;
        }
    return -1;
}

void steer_no_failures(void) { memset(failures, 0, sizeof failures); }

static int fails(const char *call, const Device *device) {
    for (int index = 0; index < FAILURES && failures[index].code; index++) {
        int is_call = !strcmp(failures[index].call, call) || (device && !strcmp(failures[index].call, "*"));
        int is_device = failures[index].device == ANY_DEVICE || (device && device == &devices[failures[index].device]);
        if (is_call && is_device)
            return failures[index].code;
    }
    return OK;
}

#define CHECK(device)                                                                                                  \
    do {                                                                                                               \
        if (!initialized)                                                                                              \
            return UNINITIALIZED;                                                                                      \
        int code = fails(__func__, device);                                                                            \
        if (code)                                                                                                      \
            return code;                                                                                               \
    } while (0)

/* The interface, with the structures as nvml.h has them. */

typedef struct {
    unsigned int gpu, memory;
} Utilization;
typedef struct {
    unsigned long long total, free, used;
} Memory;
typedef struct {
    unsigned long long reference_ns, violation_ns;
} Violation;
typedef struct {
    unsigned int pid;
    unsigned long long memory_bytes;
    unsigned int gpu_instance, compute_instance;
} Process;
typedef struct {
    unsigned int version;
    int sensor, temperature;
} TemperatureReading;

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    int code = fails(__func__, NULL);
    initialized = !code;
    return code;
}

/* What torch asks by itself, without nvidia-ml-py, to count GPUs: the chips, not the slice. */

int nvmlInit(void) { return nvmlInitWithFlags(0); }

int nvmlDeviceGetCount_v2(unsigned int *count) {
    CHECK(NULL);
    *count = 2;
    return OK;
}

const char *nvmlErrorString(int code) {
    static char words[64];
    snprintf(words, sizeof words, "the driver's words for code %d", code);
    return words;
}

int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    CHECK(NULL);
    snprintf(version, length, "580.95.05");
    return OK;
}

int nvmlSystemGetCudaDriverVersion(int *version) {
    CHECK(NULL);
    *version = 12080;
    return OK;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    CHECK(NULL);
    *version = 13000;
    return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Device **device) {
    CHECK(NULL);
    for (int index = 0; index < DEVICES; index++)
        if (!strcmp(devices[index].uuid, uuid)) {
            CHECK(&devices[index]);
            *device = &devices[index];
            return OK;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetMigMode(Device *device, unsigned int *current, unsigned int *pending) {
    CHECK(device);
    *current = *pending = device->values[MIG_MODE];
    return OK;
}

int nvmlDeviceGetUtilizationRates(Device *device, Utilization *rates) {
    CHECK(device);
    rates->gpu = device->values[UTILIZATION];
    rates->memory = 1;
    return OK;
}

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    CHECK(device);
    memory->total = 80000000000;
    memory->used = device->values[MEMORY];
    memory->free = memory->total - memory->used;
    return OK;
}

int nvmlDeviceGetPowerUsage(Device *device, unsigned int *power_mw) {
    CHECK(device);
    *power_mw = device->values[POWER];
    return OK;
}

int nvmlDeviceGetClockInfo(Device *device, int type, unsigned int *clock_mhz) {
    CHECK(device);
    *clock_mhz = type == 1 ? device->values[CLOCK] : 7;
    return OK;
}

int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned int *temperature_c) {
    CHECK(device);
    if (sensor != 0)
        return INVALID_ARGUMENT;
    *temperature_c = device->values[TEMPERATURE];
    return OK;
}

int nvmlDeviceGetTemperatureV(Device *device, TemperatureReading *reading) {
    CHECK(device);
    if (reading->version != (sizeof *reading | 1 << 24) || reading->sensor != 0)
        return INVALID_ARGUMENT;
    reading->temperature = device->values[TEMPERATURE];
    return OK;
}

int nvmlDeviceGetTotalEnergyConsumption(Device *device, unsigned long long *energy_mj) {
    CHECK(device);
    *energy_mj = device->values[ENERGY];
    return OK;
}

int nvmlDeviceGetCurrentClocksEventReasons(Device *device, unsigned long long *reasons) {
    CHECK(device);
    *reasons = device->values[CLOCK_REASONS];
    return OK;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, unsigned long long *reasons) {
    CHECK(device);
    *reasons = device->values[CLOCK_REASONS];
    return OK;
}

int nvmlDeviceGetViolationStatus(Device *device, int policy, Violation *violation) {
    CHECK(device);
    if (policy < 0 || policy >= POLICIES)
        return INVALID_ARGUMENT;
    violation->reference_ns = 123456789;
    violation->violation_ns = device->violations_ns[policy];
    return OK;
}

static int list_processes(const Device *device, unsigned int *count, Process *found) {
    unsigned int number = device->values[PROCESSES], room = *count;
    *count = number;
    if (number > room)
        return INSUFFICIENT_SIZE;
    for (unsigned int index = 0; index < number; index++)
        found[index] = (Process){.pid = 100 + index, .memory_bytes = 1};
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v2(Device *device, unsigned int *count, Process *found) {
    CHECK(device);
    return list_processes(device, count, found);
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned int *count, Process *found) {
    CHECK(device);
    return list_processes(device, count, found);
}
