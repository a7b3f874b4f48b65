// A compiler like the one it is linked with, but that refuses the source named by NVRTC_REFUSES.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

typedef const char *const *Texts;

static int is_refused;

int nvrtcCreateProgram(void **program, const char *text, const char *name, int n, Texts headers, Texts names) {
    const char *refused = getenv("NVRTC_REFUSES");
    is_refused = refused && strcmp(refused, name) == 0;
    int (*create)(void **, const char *, const char *, int, Texts, Texts) = dlsym(RTLD_NEXT, "nvrtcCreateProgram");
    return create(program, text, name, n, headers, names);
}

int nvrtcCompileProgram(void *program, int n, Texts options) {
    int (*compile)(void *, int, Texts) = dlsym(RTLD_NEXT, "nvrtcCompileProgram");
    return is_refused ? 6 : compile(program, n, options);
}
