// One token per row: top-k, then typical, then top-p of what is left, then min-p, then the temperature, then mirostat's cut, then one draw.
// Nothing is sorted: what is kept is all keys above a threshold and, of those equal to it, the first by index; the threshold is built bit by
// bit from counts or masses. For that a few passes over the row first bracket it between two cuts, so that the candidates between them fit in
// a list in shared memory; only where too many logits are equal does the search walk the whole row. What is typical is a band of logits
// round their mean, found in the same way. A workgroup is a row. Where PARTS share one, each takes some lanes of the first pass (all
// that a greedy choice needs), and the last to end does the rest.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "logits.glsl"
#include "last_part.glsl"
#include "philox.glsl"

layout(constant_id = 3) const uint WANTED = 0; // 1: logprob, 2: chance
layout(constant_id = 4) const uint PARTS = 1;  // workgroups that share a row

const uint PARAMS = 12; // words of struct SampleParams

layout(buffer_reference, std430, buffer_reference_align = 16) coherent buffer Lanes { uvec4 v[]; };

const uint LIST = 1024;
shared uint list_key[LIST], list_index[LIST];
shared uint lane_count[LOCAL_SIZE];
shared float lane_sum[LOCAL_SIZE];

uint row, lane;
RowTop t;
bool listed;        // candidates are the list, else the whole row
uint n_candidates;
uint above_count;   // of what lies above all candidates
float above_mass;
uint threshold = 0; // kept: key above it, or equal and index up to tie_limit
uint tie_limit = 0xffffffffu;
bool banded = false; // kept: within `band` of `center` as well
float center, band;
float min_p, inverse_temperature;
float kept_top;      // the greatest logit that is kept
float least_weight = 0;

// Floats in an order of unsigned numbers.
uint key_of(float l) {
    uint bits = floatBitsToUint(l);
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
float logit_of(uint key) { return uintBitsToFloat((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key); }

uint candidate(uint i, out uint index) {
    index = listed ? list_index[i] : i;
    return listed ? list_key[i] : key_of(logit(row, i));
}
bool kept(uint key, uint index) {
    bool in_band = !banded || abs(logit_of(key) - center) <= band;
    return in_band && (key > threshold || (key == threshold && index <= tie_limit));
}

uint count_from(uint least) {
    uint count = 0, index;
    for (uint i = lane; i < n_candidates; i += LOCAL_SIZE)
        count += candidate(i, index) >= least ? 1 : 0;
    return group_add(count);
}
float mass_from(uint least) {
    float mass = 0;
    uint index;
    for (uint i = lane; i < n_candidates; i += LOCAL_SIZE) {
        uint key = candidate(i, index);
        if (key >= least && kept(key, index))
            mass += exp(logit_of(key) - t.top);
    }
    return group_add(mass);
}
uint ties_upto(uint equal_key, uint last) {
    uint count = 0, index;
    for (uint i = lane; i < n_candidates; i += LOCAL_SIZE) {
        uint key = candidate(i, index);
        count += key == equal_key && index <= last && kept(key, index) ? 1 : 0;
    }
    return group_add(count);
}
// The index of tie number `count` (from 1) of a key.
uint tie_index(uint key, uint count) {
    uint last = 0;
    for (uint bit = 0x80000000u; bit > 0; bit >>= 1)
        if (ties_upto(key, last + bit - 1) < count)
            last += bit;
    return last;
}

void keep_top_k(uint k) {
    uint found = 0;
    for (uint bit = 0x80000000u; bit > 0; bit >>= 1)
        if (above_count + count_from(found | bit) >= k)
            found |= bit;
    uint wanted = k - above_count - count_from(found + 1);
    if (ties_upto(found, 0xffffffffu) > wanted)
        tie_limit = tie_index(found, wanted);
    threshold = found;
}

void keep_top_p(float target) {
    uint found = 0;
    for (uint bit = 0x80000000u; bit > 0; bit >>= 1) {
        float mass = mass_from(found | bit);
        if (above_mass + mass >= target && mass > 0)
            found |= bit;
    }
    if (found < threshold) // rounding near top_p = 1: all that is kept
        return;
    float missing = target - above_mass - mass_from(found + 1), each = exp(logit_of(found) - t.top);
    uint ties = ties_upto(found, 0xffffffffu), wanted = uint(clamp(ceil(missing / each), 1.0, float(ties)));
    if (wanted < ties)
        tie_limit = tie_index(found, wanted);
    else if (found > threshold)
        tie_limit = 0xffffffffu;
    threshold = found;
}

// What has about the surprise that the distribution has on the whole, up to a mass of `share`. A token's surprise is less or more than
// the entropy by as much as its logit lies above or below the mean of all logits.
void keep_typical(float share) {
    float mass = 0, mean = 0, most = -uintBitsToFloat(0x7f7fffffu);
    uint index;
    for (uint i = lane; i < n_candidates; i += LOCAL_SIZE) {
        uint key = candidate(i, index);
        float l = logit_of(key), e = kept(key, index) ? exp(l - t.top) : 0;
        mass += e;
        mean += e > 0 ? e * (l - t.top) : 0;
    }
    mass = group_add(mass);
    center = t.top + group_add(mean) / mass;
    uint low = 0, high = 0x7f7fffffu; // between them lie the band's bits
    while (low < high) {
        uvec4 cuts = min(low + (high - low) / 5 * uvec4(1, 2, 3, 4), uvec4(high - 1));
        vec4 masses = vec4(0);
        for (uint i = lane; i < n_candidates; i += LOCAL_SIZE) {
            uint key = candidate(i, index);
            float l = logit_of(key), e = kept(key, index) ? exp(l - t.top) : 0;
            masses += mix(vec4(0), vec4(e), lessThanEqual(uvec4(floatBitsToUint(abs(l - center))), cuts));
        }
        bool enough = false;
        [[unroll]] for (uint j = 0; j < 4; j++) {
            float inside = group_add(masses[j]);
            if (!enough) {
                enough = inside >= share * mass;
                if (enough)
                    high = cuts[j];
                else
                    low = cuts[j] + 1;
            }
        }
    }
    band = uintBitsToFloat(high);
    banded = true;
    for (uint i = lane; i < n_candidates; i += LOCAL_SIZE) {
        uint key = candidate(i, index);
        most = kept(key, index) ? max(most, logit_of(key)) : most;
    }
    kept_top = group_max(most);
}

void candidates_all() {
    listed = false;
    n_candidates = p.vocab;
    above_count = 0;
    above_mass = 0;
}

// Makes the candidates those with low <= logit < high (`own` of them in this lane, `total` in all): the list in shared memory.
void candidates_list(float low, float high, uint own, uint total) {
    barrier();
    lane_count[lane] = own;
    barrier();
    uint at = 0, quads = lane_quads();
    [[dont_unroll]] for (uint i = 0; i < lane; i++)
        at += lane_count[i];
    for (uint first = 0; first < quads; first += AHEAD) {
        vec4 ahead[AHEAD] = logits_ahead(row, lane, first);
        [[unroll]] for (uint j = 0; j < AHEAD; j++) {
            vec4 l = ahead[j];
            if (first + j < quads && any(greaterThanEqual(l, vec4(low))))
                [[unroll]] for (uint i = 0; i < 4; i++)
                    if (l[i] >= low && l[i] < high && at < LIST) {
                        list_key[at] = key_of(l[i]);
                        list_index[at++] = 4 * ((first + j) * LOCAL_SIZE + lane) + i;
                    }
        }
    }
    for (uint i = 4 * whole_quads() + lane; i < p.vocab; i += LOCAL_SIZE) {
        float l = logit(row, i);
        if (l >= low && l < high && at < LIST) {
            list_key[at] = key_of(l);
            list_index[at++] = i;
        }
    }
    barrier();
    listed = true;
    n_candidates = total;
}

// Brackets the threshold of the count k (where not 0) or else of the mass `target` between two cuts that have at most LIST candidates between
// them. Every pass counts and weighs at four cuts; where that comes to no end the candidates are the whole row.
void bracket(uint k, float target) {
    float high = uintBitsToFloat(0x7f800000u), low = -high;
    uint quads = lane_quads(), own_high = 0, own_low = 0, low_count = 0xffffffffu;
    vec4 cuts = vec4(t.top) - vec4(3, 6, 9, 13);
    candidates_all();
    for (uint round = 0; round < 8; round++) {
        uvec4 counts = uvec4(0);
        vec4 masses = vec4(0);
        for (uint first = 0; first < quads; first += AHEAD) {
            vec4 ahead[AHEAD] = logits_ahead(row, lane, first);
            [[unroll]] for (uint j = 0; j < AHEAD; j++) {
                if (first + j >= quads)
                    break;
                uint q = (first + j) * LOCAL_SIZE + lane;
                vec4 l = ahead[j], e = exp(l - t.top);
                [[unroll]] for (uint i = 0; i < 4; i++) {
                    bvec4 in_cut = greaterThanEqual(vec4(l[i]), cuts);
                    counts += uvec4(in_cut);
                    masses += mix(vec4(0), vec4(kept(key_of(l[i]), 4 * q + i) ? e[i] : 0), in_cut);
                }
            }
        }
        for (uint i = 4 * whole_quads() + lane; i < p.vocab; i += LOCAL_SIZE) {
            float l = logit(row, i), e = kept(key_of(l), i) ? exp(l - t.top) : 0;
            bvec4 in_cut = greaterThanEqual(vec4(l), cuts);
            counts += uvec4(in_cut);
            masses += mix(vec4(0), vec4(e), in_cut);
        }
        bool enough = false;
        uint count;
        [[unroll]] for (uint j = 0; j < 4; j++) {
            count = group_add(counts[j]);
            float mass = group_add(masses[j]);
            if (enough)
                continue;
            enough = k > 0 ? count >= k : mass >= target * 1.00001;
            if (enough) {
                low = cuts[j];
                low_count = count;
                own_low = counts[j];
            } else {
                high = cuts[j];
                above_count = count;
                above_mass = mass;
                own_high = counts[j];
            }
        }
        bool found_low = low_count != 0xffffffffu;
        if (found_low && low_count - above_count <= LIST) {
            candidates_list(low, high, own_low - own_high, low_count - above_count);
            return;
        }
        if (!found_low && count == p.vocab)
            break;
        cuts = found_low ? mix(vec4(min(high, t.top)), vec4(low), vec4(0.2, 0.4, 0.6, 0.8))
                         : vec4(high) - vec4(4, 9, 16, 30) * float(round + 1);
    }
    candidates_all();
}

float weight(float l, uint index) {
    if (!kept(key_of(l), index) || exp(l - kept_top) < min_p)
        return 0;
    float w = exp((l - kept_top) * inverse_temperature);
    return w < least_weight ? 0 : w;
}

// The lanes' candidates one after the other: adds up their weights until the sum passes `rest`; `index` is then where it did, or else the last
// candidate with any weight. Gives the sum.
float walk(float rest, out uint index) {
    float sum = 0;
    uint quads = listed ? 0 : lane_quads();
    index = t.index;
    for (uint first = 0; first < quads && sum <= rest; first += AHEAD) {
        vec4 ahead[AHEAD] = logits_ahead(row, lane, first);
        [[unroll]] for (uint j = 0; j < AHEAD; j++)
            if (first + j < quads)
                [[unroll]] for (uint i = 0; i < 4; i++) {
                    uint at = 4 * ((first + j) * LOCAL_SIZE + lane) + i;
                    float w = weight(ahead[j][i], at);
                    if (w > 0 && sum <= rest)
                        index = at;
                    sum += sum <= rest ? w : 0;
                }
    }
    for (uint i = 4 * quads * LOCAL_SIZE + lane; i < n_candidates && sum <= rest; i += LOCAL_SIZE) {
        uint at, key = candidate(i, at);
        float w = weight(logit_of(key), at);
        if (w > 0)
            index = at;
        sum += w;
    }
    return sum;
}

// Weights of all lanes, one after the other: lane_sum, and their sum.
float weigh() {
    uint index;
    float own = walk(uintBitsToFloat(0x7f7fffffu), index), total = 0;
    barrier();
    lane_sum[lane] = own;
    barrier();
    [[dont_unroll]] for (uint i = 0; i < LOCAL_SIZE; i++)
        total += lane_sum[i];
    return total;
}

void finish(uint id, float chance) {
    p.ids.v[row] = id;
    if ((WANTED & 1) != 0)
        p.logprob.v[row] = logit(row, id) - t.top - t.log_sum;
    if ((WANTED & 2) != 0)
        p.chance.v[row] = chance;
}

void main() {
    uint part = group_index() % PARTS;
    row = group_index() / PARTS;
    lane = gl_LocalInvocationID.x;
    if (row >= p.rows)
        return;
    uint base = row * PARAMS;
    float temperature = uintBitsToFloat(p.params.v[base]), top_p = uintBitsToFloat(p.params.v[base + 1]);
    float typical = uintBitsToFloat(p.params.v[base + 8]), surprise = uintBitsToFloat(p.params.v[base + 9]);
    uint top_k = p.params.v[base + 3];
    LaneTop own;
    bool mine = lane / (LOCAL_SIZE / PARTS) == part;
    if (mine)
        own = lane_top(row, lane);
    if (PARTS > 1) {
        Lanes lanes = Lanes(uvec2(p.part));
        uint at = row * LOCAL_SIZE + lane;
        if (mine)
            lanes.v[at] = uvec4(floatBitsToUint(own.top), own.index, floatBitsToUint(own.sum), own.found_nan);
        if (!is_last_part(row, PARTS))
            return;
        uvec4 words = lanes.v[at];
        own = LaneTop(uintBitsToFloat(words.x), words.y, uintBitsToFloat(words.z), words.w != 0);
    }
    t = join_lanes(own);
    if (!(temperature > 0) || !(t.sum > 0)) { // greedy, or nothing to draw from
        if (lane == 0)
            finish(t.index, t.sum > 0 ? 0 : t.sum);
        return;
    }
    min_p = uintBitsToFloat(p.params.v[base + 2]);
    inverse_temperature = 1 / temperature;
    kept_top = t.top;
    candidates_all();
    bool limit_k = top_k > 0 && top_k < p.vocab;
    float target = max(top_p, 0.0) * t.sum;
    if (limit_k) {
        bracket(top_k, 0);
        keep_top_k(top_k);
        target = max(top_p, 0.0) * (above_mass + mass_from(0));
    }
    if (typical > 0 && typical < 1) {
        if (above_count > 0)
            candidates_all();
        keep_typical(typical);
        target = max(top_p, 0.0) * mass_from(0);
    }
    if (top_p < 1) {
        if (!listed || above_count > 0)
            bracket(0, target);
        keep_top_p(target);
    }
    if (above_count > 0) // the list is not all that is kept
        candidates_all();

    float total = weigh(), before = 0, rest = 0;
    if (surprise > 0) { // mirostat: nothing that surprises by more bits than it may, but always the likeliest
        least_weight = min(total * exp2(-uintBitsToFloat(p.params.v[base + 11])), 1.0);
        total = weigh();
    }
    uvec4 r = philox(uvec2(p.params.v[base + 4], p.params.v[base + 5]), uvec2(p.params.v[base + 6], 0),
                     uvec2(p.params.v[base + 7], 0));
    float at = uniform_from(r.x) * total;
    uint owner = 0, index;
    bool found = false;
    [[dont_unroll]] for (uint i = 0; i < LOCAL_SIZE; i++) {
        if (lane_sum[i] > 0 && !found) {
            owner = i;
            rest = at - before;
            found = at < before + lane_sum[i];
        }
        before += lane_sum[i];
    }
    if (lane == owner) {
        walk(rest, index);
        finish(index, log(weight(logit(row, index), index) / total));
    }
}
