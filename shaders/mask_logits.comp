// A copy of logits in which the tokens that are not allowed are out of reach. A lane is one logit.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"

layout(constant_id = 2) const uint MASKED = 0;
const float FORBIDDEN = -1e30; // finite: no infinity minus infinity behind it

void main() {
    uint i = group_index() * LOCAL_SIZE + gl_LocalInvocationID.x;
    if (i >= p.rows * p.vocab)
        return;
    uint row = i / p.vocab, token = i % p.vocab;
    bool allowed = MASKED == 0 || (p.mask.v[row * p.mask_words + token / 32] >> token % 32 & 1) != 0;
    float l = p.logits.v[i];
    p.y.v[i] = allowed || is_nan(l) ? l : FORBIDDEN;
}
