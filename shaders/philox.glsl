// Counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011), the twin of philox() in runtime/base.c, bit for bit.
// 64-bit numbers are pairs (low, high).
#ifndef VKMOE_PHILOX_GLSL
#define VKMOE_PHILOX_GLSL

uvec4 philox(uvec2 seed, uvec2 stream, uvec2 index) {
    uvec4 c = uvec4(index, stream);
    for (uint round = 0; round < 10; round++) {
        uint a_high, a_low, b_high, b_low;
        umulExtended(c.x, 0xd2511f53u, a_high, a_low);
        umulExtended(c.z, 0xcd9e8d57u, b_high, b_low);
        c = uvec4(b_high ^ c.y ^ seed.x, b_low, a_high ^ c.w ^ seed.y, a_low);
        seed += uvec2(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}

// [0, 1), as random_uniform() in runtime/base.c.
float uniform_from(uint word) { return float(word >> 8) * (1.0 / 16777216.0); }

#endif
