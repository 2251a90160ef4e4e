// What a compute module asks of whoever runs it: its push-constant block, specialisation constants, width, capabilities and memory. Read from
// SPIR-V that a compiler made; words that are none give an empty answer.
#pragma once
#include "runtime/kernel.h"

enum SpirvKind { SPIRV_POINTER, SPIRV_UINT, SPIRV_INT, SPIRV_FLOAT, SPIRV_BOOL, SPIRV_OTHER };

enum { SPIRV_MAX_FIELDS = 32, SPIRV_MAX_CONSTANTS = 32, SPIRV_MAX_CAPABILITIES = 64 };
struct SpirvModule {
    struct SpirvField {
        char name[32]; // empty where the compiler left names out
        enum SpirvKind kind;
        uint32_t offset;
    } fields[SPIRV_MAX_FIELDS]; // of the push-constant block
    uint32_t n_fields;
    struct SpirvConstant {
        uint32_t id, value; // constant_id, and the bits that the text gives it
        enum SpirvKind kind;
    } constants[SPIRV_MAX_CONSTANTS];
    uint32_t n_constants;
    uint32_t width[3];      // of a workgroup, with the constants as they are
    int width_id;           // constant_id of width[0]; -1: none
    uint64_t shared_bytes;  // of a workgroup, likewise
    uint32_t n_descriptors; // variables with a binding
    uint32_t capabilities[SPIRV_MAX_CAPABILITIES], n_capabilities;
};
// `spec`: values of the first n_spec constants; NULL, 0: those of the text.
void spirv_read(const uint32_t *words, uint32_t n_words, const uint32_t *spec, uint32_t n_spec, struct SpirvModule *m);
