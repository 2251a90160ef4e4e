// How many of the slots s .. end-1 are on `expert`, four slots a load: the inner loop of the sort. s is a multiple of 4.
uint count_equal(uint s, uint end, uint expert) {
    uint count = 0;
    for (; s + 4 <= end; s += 4) {
        uvec4 same = uvec4(equal(u32x4_in(p.experts).v[s / 4], uvec4(expert)));
        count += (same.x + same.y) + (same.z + same.w);
    }
    for (; s < end; s++)
        count += p.experts.v[s] == expert ? 1 : 0;
    return count;
}
