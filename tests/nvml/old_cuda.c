/* A libcuda whose driver runs CUDA 12.8 at most: all that the CUDA runtime asks before it gives up for that reason. */

#include <string.h>

int cuDriverGetVersion(int *version) {
    *version = 12080;
    return 0;
}

static int unknown_error(void) { return 999; }

int cuGetProcAddress_v2(const char *symbol, void **function, int version, unsigned long long flags, int *status) {
    (void)version, (void)flags;
    int is_version = !strcmp(symbol, "cuDriverGetVersion");
    int is_self = !strcmp(symbol, "cuGetProcAddress");
    *function = is_version ? (void *)cuDriverGetVersion
                : is_self  ? (void *)cuGetProcAddress_v2
                           : (void *)unknown_error;
    if (status)
        *status = 0;
    return 0;
}
