// See glsl.h.
#include "cli/glsl.h"

#include <stdlib.h>
#include <string.h>

#ifdef VKMOE_SHADERC
#include <shaderc/shaderc.h>

enum { MAX_SOURCE_BYTES = 4 << 20, MAX_DEPTH = 16, MAX_LINES = 40 };

// An answer to #include: the text, or, without a name, why there is none.
struct Include {
    shaderc_include_result result;
    char *name;
    uint8_t *text; // malloc'ed; NULL: a built-in one
};

static void include_fail(struct Include *in, const char *why) {
    in->text = (uint8_t *)xstrdup(why);
    in->result.content = (char *)in->text;
    in->result.content_length = strlen(why);
}

static void include_text(struct Include *in, const char *name, const char *text, size_t bytes) {
    in->name = xstrdup(name);
    in->result.source_name = in->name, in->result.source_name_length = strlen(name);
    in->result.content = text, in->result.content_length = bytes;
}

static bool beside(struct Include *in, const char *main_file, const char *name) {
    const char *slash = strrchr(main_file, '/');
    char *path = slash ? xsprintf("%.*s/%s", (int)(slash - main_file), main_file, name) : xstrdup(name);
    uint64_t bytes = 0;
    bool there = file_exists(path);
    if (there && file_read(path, MAX_SOURCE_BYTES, &in->text, &bytes))
        include_text(in, path, (char *)in->text, bytes);
    else if (there)
        include_fail(in, fail_last());
    free(path);
    return there;
}

static shaderc_include_result *include(void *main_file, const char *name, int type, const char *from, size_t depth) {
    (void)type, (void)from;
    struct Include *in = xcalloc(1, sizeof *in);
    in->result.user_data = in;
    if (depth > MAX_DEPTH)
        include_fail(in, "files include each other without end");
    else if (strchr(name, '/') || name[0] == '.' || name[0] == 0)
        include_fail(in, "a plain name is expected: of a file beside this one, or of vkmoe's own");
    else if (!beside(in, main_file, name)) {
        const struct ShaderSource *s = SHADER_SOURCES;
        while (s->name && strcmp(s->name, name) != 0)
            s++;
        if (s->name)
            include_text(in, name, s->text, s->bytes);
        else
            include_fail(in, "neither beside this file nor one of vkmoe's own");
    }
    return &in->result;
}

static void include_free(void *main_file, shaderc_include_result *result) {
    (void)main_file;
    struct Include *in = result->user_data;
    free(in->name);
    free(in->text);
    free(in);
}

static bool is_noise(const char *line,
                     size_t bytes) { // its count of errors, and that we made it take this version of GLSL
    return bytes == 0 || memmem(line, bytes, "forced to be (460, core)", 24) ||
           (line[0] >= '0' && line[0] <= '9' && memmem(line, bytes, " generated", 10));
}

static void show_messages(const char *text) {
    uint32_t n = 0;
    while (*text && n < MAX_LINES) {
        size_t bytes = strcspn(text, "\n");
        if (!is_noise(text, bytes)) {
            fprintf(stderr, "%.*s\n", (int)bytes, text);
            n++;
        }
        text += bytes + (text[bytes] == '\n');
    }
    if (*text)
        fprintf(stderr, "(and more)\n");
}

bool glsl_compile(const char *path, const char *const *defines, uint32_t n_defines, bool optimise, uint32_t **words,
                  uint32_t *n_words) {
    *words = NULL;
    uint8_t *text;
    uint64_t bytes;
    if (!file_read(path, MAX_SOURCE_BYTES, &text, &bytes))
        return false;
    shaderc_compiler_t compiler = shaderc_compiler_initialize();
    shaderc_compile_options_t options = shaderc_compile_options_initialize();
    shaderc_compile_options_set_target_env(options, shaderc_target_env_vulkan, shaderc_env_version_vulkan_1_3);
    shaderc_compile_options_set_optimization_level(options, optimise ? shaderc_optimization_level_performance
                                                                     : shaderc_optimization_level_zero);
    shaderc_compile_options_set_forced_version_profile(options, 460,
                                                       shaderc_profile_core); // an older one breaks glslang
    shaderc_compile_options_set_include_callbacks(options, include, include_free, (void *)path);
    for (uint32_t i = 0; i < n_defines; i++) {
        size_t name = strcspn(defines[i], "=");
        const char *value = defines[i] + name + (defines[i][name] == '=');
        shaderc_compile_options_add_macro_definition(options, defines[i], name, value, strlen(value));
    }
    shaderc_compilation_result_t result = shaderc_compile_into_spv(compiler, (const char *)text, bytes,
                                                                   shaderc_glsl_compute_shader, path, "main", options);
    bool ok = result && shaderc_result_get_compilation_status(result) == shaderc_compilation_status_success;
    if (result && optimise)
        show_messages(shaderc_result_get_error_message(result));
    if (ok) {
        *n_words = (uint32_t)(shaderc_result_get_length(result) / 4);
        *words = xmalloc((size_t)*n_words * 4);
        memcpy(*words, shaderc_result_get_bytes(result), (size_t)*n_words * 4);
    }
    if (result)
        shaderc_result_release(result);
    shaderc_compile_options_release(options);
    shaderc_compiler_release(compiler);
    free(text);
    return ok || fail("%s: does not compile", path);
}

#else

const struct ShaderSource SHADER_SOURCES[] = {{0}};

bool glsl_compile(const char *path, const char *const *defines, uint32_t n_defines, bool optimise, uint32_t **words,
                  uint32_t *n_words) {
    (void)defines, (void)n_defines, (void)optimise, (void)n_words;
    *words = NULL;
    return fail("%s cannot be compiled: this program was built without libshaderc (Debian's libshaderc-dev)", path);
}

#endif
