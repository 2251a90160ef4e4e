// GLSL text to SPIR-V while the program runs, by libshaderc, where the program was built with it.
#pragma once
#include "runtime/base.h"

// The files of shaders/ as they were when the program was built, for #include: up to a zeroed entry.
struct ShaderSource {
    const char *name, *text;
    size_t bytes;
};
extern const struct ShaderSource SHADER_SOURCES[];

// Compiles a compute shader for Vulkan 1.3. defines: NAME or NAME=VALUE. An #include is of a file beside this one, else of SHADER_SOURCES, and has a
// plain name. `optimise`: as the built-in modules are, which leaves out names. False after the compiler's own lines (file:line: text, on
// stderr) and one of ours; *words, malloc'ed, is NULL then.
bool glsl_compile(const char *path, const char *const *defines, uint32_t n_defines, bool optimise, uint32_t **words,
                  uint32_t *n_words);
