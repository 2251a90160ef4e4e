// Which keys a part of a row's span holds, where its result lies, and how the parts are joined. Parts depend on the row's own span alone: its result is the
// same whatever other rows there are. A short span fills the first parts only.
#include "attention.glsl"
#include "last_part.glsl"

const uint LEAST_SHARE = 64;

uvec2 part_range(uint row, uint split, uint splits) {
    const uint begin = p.span.v[2 * row], end = min(p.span.v[2 * row + 1], p.key_rows);
    const uint keys = end > begin ? end - begin : 0;
    const uint share = max((keys + splits - 1) / splits, LEAST_SHARE);
    const uint first = min(split * share, keys);
    return begin + uvec2(first, min(first + share, keys));
}
uint part_at(uint row, uint head, uint part) { return ((row * p.n_heads + head) * p.n_parts + part) * (HEAD_VECS + 1); }

// The parts of a row and head; `done` counts those of a row and group of heads.
layout(buffer_reference, std430, buffer_reference_align = 16) coherent buffer Parts { vec4 v[]; };

// Columns first .. first + COUNT - 1 (of four floats) of a row and head.
#define JOIN_PARTS(COUNT, row, head, first)                                                                            \
    {                                                                                                                  \
        Parts part = Parts(uvec2(p.part));                                                                             \
        const uint base = part_at(row, head, 0), pitch = HEAD_VECS + 1;                                                \
        float greatest = NO_SCORE, total = 0;                                                                          \
        vec4 joined[COUNT];                                                                                            \
        [[unroll]] for (uint d = 0; d < COUNT; d++) joined[d] = vec4(0);                                               \
        for (uint i = 0; i < p.n_parts; i++)                                                                           \
            greatest = max(greatest, part.v[base + i * pitch + HEAD_VECS].x);                                          \
        for (uint i = 0; i < p.n_parts; i++) {                                                                         \
            const vec2 stat = part.v[base + i * pitch + HEAD_VECS].xy;                                                 \
            if (stat.y == 0) /* a short span fills the first parts only */                                             \
                continue;                                                                                              \
            const float weight = exp2(stat.x - greatest);                                                              \
            total = fma(stat.y, weight, total);                                                                        \
            [[unroll]] for (uint d = 0; d < COUNT; d++)                                                                \
                joined[d] = fma(part.v[base + i * pitch + first + d], vec4(weight), joined[d]);                        \
        }                                                                                                              \
        const float inverse = total == 0 ? 0 : 1 / total;                                                              \
        [[unroll]] for (uint d = 0; d < COUNT; d++)                                                                    \
            f32x4_rw(p.o).v[(row * p.n_heads + head) * HEAD_VECS + first + d] = joined[d] * inverse;                   \
    }
