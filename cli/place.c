// See place.h. Experts go first, because a token needs few of them; then whole layers, the last ones first.
#include "cli/place.h"
#include "cli/term.h"
#include "model/adapter.h"
#include "model/experts.h"
#include <stdlib.h>
#include <string.h>

struct Plan {
    uint64_t weights, cache, rest; // on the device
    uint64_t host;
    uint64_t mapped; // read where the file is; in the page cache, which gives way to everything else
    struct ExpertUse use;
};

static uint64_t on_device(const struct Plan *p) { return p->weights + p->cache + p->rest; }

// Builds everything on a device that only counts.
static bool plan_make(struct Loaded *l, const struct Args *args, const struct SessionOptions *session,
                      const struct ModelOptions *o, struct Plan *p) {
    struct Device dry;
    struct Model m = {0};
    struct Session s = {0};
    const char *adapter = args_text(args, "adapter");
    device_open_dry(&dry, &l->dev);
    struct ModelOptions quiet = *o;
    quiet.progress = NULL;
    bool ok = load_weights(l, &dry, &m, &quiet) && (!adapter || adapter_load(&m, adapter));
    uint64_t weights = dry.allocated_bytes;
    ok = ok && session_init(&s, &m, session);
    uint64_t cache = ok ? s.cache.peak_bytes : 0;
    *p = (struct Plan){weights,          cache,          dry.peak_bytes - weights - cache, dry.host_bytes,
                       dry.mapped_bytes, experts_use(&m)};
    session_free(&s);
    if (m.dev)
        model_free(&m);
    return ok;
}

// Integrated devices hold on to what is mapped; where the processor computes, the page cache gives it back.
static uint64_t on_host(const struct Loaded *l, const struct Plan *p) {
    return p->host + (l->dev.is_cpu ? 0 : p->mapped);
}

static bool fits(const struct Loaded *l, const struct Plan *p) {
    return memory_holds(&l->dev, on_device(p), on_host(l, p));
}

static bool layers_asked(const struct Args *args, uint32_t n_layers, bool *automatic, uint32_t *host_layers) {
    const char *text = args_text(args, "gpu-layers");
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    *automatic = strcmp(text, "auto") == 0;
    *host_layers = 0;
    if (*automatic || strcmp(text, "all") == 0)
        return true;
    if (text[0] < '0' || text[0] > '9' || *end)
        return args_good(fail("--gpu-layers %s: auto, all or a number of layers is expected", text));
    *host_layers = n < n_layers ? n_layers - (uint32_t)n : 0;
    return true;
}

// As many slots as what is left on the device holds.
static bool slots_grow(struct Loaded *l, const struct Args *args, const struct SessionOptions *session,
                       struct ModelOptions *o, struct Plan *p) {
    struct Plan twice;
    uint32_t least = o->expert_slots;
    o->expert_slots *= 2;
    if (!plan_make(l, args, session, o, &twice))
        return false;
    uint32_t more = twice.use.slots - p->use.slots;
    uint64_t each = more ? (on_device(&twice) - on_device(p)) / more : 0, all = l->dev.limits.memory_bytes;
    uint64_t room = all - min_u64(all, on_device(p) + all / 50); // a little is left to the driver
    room = min_u64(room, l->dev.limits.both_bytes - on_device(p) - on_host(l, p));
    uint64_t slots = each ? min_u64(least + room / each, p->use.experts) : least;
    o->expert_slots = (uint32_t)max_u64(slots, least);
    while (plan_make(l, args, session, o, p)) {
        if (fits(l, p) || o->expert_slots == least)
            return true;
        o->expert_slots = (uint32_t)max_u64(least, o->expert_slots - o->expert_slots / 16 - 1);
    }
    return false;
}

static void tell(const struct Loaded *l, const struct SessionOptions *session, const struct ModelOptions *o,
                 const struct Plan *p) {
    char weights[16], cache[16], rest[16], host[16], mapped[16];
    if (!o->expert_slots && !o->host_layers && on_device(p) + p->mapped < UINT64_C(1) << 30)
        return;
    term_format_bytes(p->weights, weights), term_format_bytes(p->cache, cache);
    term_format_bytes(p->rest, rest), term_format_bytes(p->host, host);
    term_format_bytes(p->mapped, mapped);
    fprintf(stderr, "%son the device: weights %s, keys and values of %u tokens %s, the rest %s; in host memory %s",
            term_paint(stderr, PAINT_DIM), weights, session->context * session->n_sequences, cache, rest, host);
    if (p->mapped)
        fprintf(stderr, "; %s mapped from the file%s", mapped,
                p->mapped > l->dev.limits.host_bytes ? ", more than there is memory: the disk will be read again" : "");
    if (o->host_layers)
        fprintf(stderr, "; the last %u of %u layers in host memory", o->host_layers, l->file.config.n_layers);
    if (o->expert_slots)
        fprintf(stderr, "; room for %u of %u experts", p->use.slots, p->use.experts);
    fprintf(stderr, "%s\n", term_paint(stderr, PAINT_NONE));
}

// What a smaller type would need, for the message.
static const char *remedy(const struct Loaded *l, const struct Args *args, const struct Plan *p, char out[96]) {
    uint64_t small = model_weight_bytes(&l->file.config, DT_Q4_1), need = on_device(p) - p->weights + small;
    char text[16];
    term_format_bytes(need, text);
    out[0] = 0;
    if (small < p->weights && l->dev.limits.memory_bytes > need && args_text(args, "type") == NULL)
        snprintf(out, 96, "--type q4_1 needs %s; ", text);
    return out;
}

static bool refuse(const struct Loaded *l, const struct Args *args, const struct SessionOptions *session,
                   const struct Plan *p) {
    const struct DeviceLimits *limits = &l->dev.limits;
    char all[16], have[16], w[16], kv[16], rest[16], host[64] = "", part[16], beside[64] = "", small[96];
    term_format_bytes(on_device(p), all), term_format_bytes(limits->memory_bytes, have);
    term_format_bytes(p->weights, w), term_format_bytes(p->cache, kv), term_format_bytes(p->rest, rest);
    term_format_bytes(on_host(l, p), part);
    if (on_host(l, p) > UINT64_C(64) << 20)
        snprintf(host, sizeof host, ", and %s in host memory", part);
    if (on_device(p) <= limits->memory_bytes) { // so it is not the device's memory that is short
        uint64_t left = limits->both_bytes - min_u64(limits->both_bytes, on_device(p));
        term_format_bytes(min_u64(limits->host_bytes, left), part);
        snprintf(beside, sizeof beside, " and beside it %s of host memory", part);
    }
    return fail("%s needs %s (weights %s, keys and values of %u tokens %s, the rest %s%s), and %s has %s%s; %sa "
                "smaller --context or another --device helps too",
                l->file.path, all, w, session->context * session->n_sequences, kv, rest, host, l->dev.name, have,
                beside, remedy(l, args, p, small));
}

bool place_model(struct Loaded *l, const struct Args *args, const struct SessionOptions *session,
                 struct ModelOptions *o) {
    const struct Config *c = &l->file.config;
    bool automatic, moe = config_moe_layers(c) > 0, off = moe && args_choice(args, "experts-on", "cpu");
    bool may_stream = moe && !args_choice(args, "experts-on", "gpu");
    struct Plan all, p;
    if (!layers_asked(args, c->n_layers, &automatic, &o->host_layers))
        return false;
    o->expert_slots = off ? c->n_experts : 0;
    if (!plan_make(l, args, session, o, &p))
        return false;
    all = p;
    // Drivers for AMD's integrated cards tell one memory as two, of which the smaller takes what is mapped: copies may fit.
    if (!fits(l, &p) && l->dev.is_integrated && p.mapped) {
        o->map = false;
        if (!plan_make(l, args, session, o, &p))
            return false;
        o->map = !fits(l, &p);
        if (o->map && !plan_make(l, args, session, o, &p))
            return false;
    }
    if (!fits(l, &p) && may_stream && !off) {
        o->expert_slots = c->n_experts;
        if (!plan_make(l, args, session, o, &p))
            return false;
    }
    for (uint32_t step = c->n_layers / 8 + 1; !fits(l, &p) && automatic && o->host_layers < c->n_layers;) {
        o->host_layers = (uint32_t)min_u64(c->n_layers, o->host_layers + step);
        if (!plan_make(l, args, session, o, &p))
            return false;
    }
    if (!fits(l, &p))
        return refuse(l, args, session, &all);
    if (o->expert_slots && !slots_grow(l, args, session, o, &p))
        return false;
    tell(l, session, o, &p);
    return true;
}
