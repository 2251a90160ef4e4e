// Which keys a part of a row's span holds, and where its result lies. Parts depend on the row's own span alone: its result is the
// same whatever other rows there are. A short span fills the first parts only.
#include "attention.glsl"

const uint LEAST_SHARE = 64;

uvec2 part_range(uint row, uint split, uint splits) {
    const uint begin = p.span.v[2 * row], end = min(p.span.v[2 * row + 1], p.key_rows);
    const uint keys = end > begin ? end - begin : 0;
    const uint share = max((keys + splits - 1) / splits, LEAST_SHARE);
    const uint first = min(split * share, keys);
    return begin + uvec2(first, min(first + share, keys));
}
uint part_at(uint row, uint head, uint part) { return ((row * p.n_heads + head) * p.n_parts + part) * (HEAD_VECS + 1); }
