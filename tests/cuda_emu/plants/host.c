/* plant_host library name bug: opens a library of plants as fb3-dist opens libfb3_cuda.so, and runs one. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc != 4) return 3;
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 3;
    }
    int (*run)(const char *, int) = (int (*)(const char *, int))dlsym(library, "plant_main");
    return run ? run(argv[2], atoi(argv[3])) : 3;
}
