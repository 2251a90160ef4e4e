// Several workgroups make the parts of one result, and the one that ends last puts them together, in their order: so it does not matter which one that
// is. `done` counts those of a result that are through and is 0 again when all are. Words of parts cross from workgroup to workgroup: their
// buffers are coherent, and a barrier of memory stands between them and the count on both sides.
#ifndef VKMOE_LAST_PART_GLSL
#define VKMOE_LAST_PART_GLSL

shared uint ended[WHOLE_WORDS];

bool is_last_part(uint result, uint n_parts) {
    memoryBarrierBuffer();
    barrier();
    if (gl_LocalInvocationIndex == 0) {
        ended[0] = atomicAdd(p.done.v[result], 1);
        if (ended[0] == n_parts - 1)
            atomicExchange(p.done.v[result], 0);
    }
    barrier();
    memoryBarrierBuffer();
    return ended[0] == n_parts - 1;
}

#endif
