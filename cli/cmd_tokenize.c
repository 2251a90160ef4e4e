// `vkmoe tokenize MODEL`: text to token numbers and back. With --json the numbers alone, else a line per token.
#include "cli/commands.h"
#include "cli/load.h"
#include "cli/term.h"
#include "model/json.h"
#include "model/modelfile.h"
#include "model/tokenizer.h"
#include "model/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t TEXT_MAX_BYTES = 1ull << 31;

static bool parse_ids(const char *text, uint32_t n_vocab, uint32_t **ids, size_t *n) {
    *ids = NULL;
    *n = 0;
    for (const char *at = text; *at;) {
        if (strchr(", []\t\n", *at)) {
            at++;
            continue;
        }
        char *end;
        errno = 0;
        unsigned long long id = strtoull(at, &end, 10);
        if (end == at || errno || id >= n_vocab || (*end && !strchr(", []\t\n", *end))) {
            free(*ids);
            return fail("tokenize: --decode, character %zu: a token number below %u is expected, '%.12s' is found",
                        (size_t)(at - text) + 1, n_vocab, at);
        }
        if ((*n & (*n - 1)) == 0)
            *ids = xrealloc(*ids, (*n ? 2 * *n : 1) * sizeof **ids);
        (*ids)[(*n)++] = (uint32_t)id;
        at = end;
    }
    return true;
}

static int decode(const struct Args *args, const struct Tokenizer *t) {
    uint32_t *ids;
    size_t n, bytes;
    if (!args_good(parse_ids(args_text(args, "decode"), t->n_vocab, &ids, &n)))
        return EXIT_FAILED;
    char *text = tokenizer_decode(t, ids, n, true, &bytes);
    if (args_switch(args, "json")) {
        size_t repaired_bytes;
        char *repaired = utf8_repair(text, bytes, &repaired_bytes), *quoted = json_quote(repaired, repaired_bytes);
        printf("{\"text\": %s}\n", quoted);
        free(quoted);
        free(repaired);
    } else {
        if (term_is_terminal(stdout))
            term_write(stdout, text, bytes);
        else
            fwrite(text, 1, bytes, stdout);
        putchar('\n');
    }
    free(text);
    free(ids);
    return EXIT_DONE;
}

static void print_ids(const struct Args *args, const struct Tokenizer *t, const uint32_t *ids, size_t n) {
    if (args_switch(args, "json")) {
        printf("{\"ids\": [");
        for (size_t i = 0; i < n; i++)
            printf("%s%u", i ? ", " : "", ids[i]);
        printf("]}\n");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        char piece[256];
        size_t bytes = tokenizer_piece(t, ids[i], piece, sizeof piece);
        bytes = bytes < sizeof piece ? bytes : sizeof piece;
        char *quoted = utf8_valid(piece, bytes, NULL) ? json_quote(piece, bytes) : NULL;
        printf("%8u  %s", ids[i], quoted ? quoted : "bytes");
        for (size_t b = 0; !quoted && b < bytes; b++)
            printf(" %02x", (unsigned char)piece[b]);
        putchar('\n');
        free(quoted);
    }
    fprintf(stderr, "%zu tokens\n", n);
}

static int encode(const struct Args *args, const struct Tokenizer *t) {
    const char *prompt = args_text(args, "prompt"), *path = args_text(args, "file");
    uint8_t *text = NULL;
    uint64_t bytes;
    if (prompt) {
        bytes = strlen(prompt);
        text = (uint8_t *)xstrdup(prompt);
    } else if (!file_read(strcmp(path, "-") == 0 ? "/dev/stdin" : path, TEXT_MAX_BYTES, &text, &bytes)) {
        return EXIT_FAILED;
    }
    unsigned flags =
        (args_switch(args, "special") ? TOKENIZE_SPECIAL : 0) | (args_switch(args, "bos") ? TOKENIZE_BOS : 0);
    uint32_t *ids = NULL;
    size_t n = 0;
    bool ok = tokenizer_encode(t, (const char *)text, bytes, flags, &ids, &n);
    if (ok)
        print_ids(args, t, ids, n);
    free(ids);
    free(text);
    return ok ? EXIT_DONE : EXIT_FAILED;
}

int cmd_tokenize(const struct Args *args) {
    int given = args_given(args, "prompt") + args_given(args, "file") + args_given(args, "decode");
    if (given != 1)
        return args_wrong(args, "one of --prompt TEXT, --file FILE and --decode IDS is needed");
    struct ModelFile f;
    if (!load_open(&f, args->operands[0], false))
        return EXIT_FAILED;
    struct Tokenizer t;
    int status = EXIT_FAILED;
    if (tokenizer_open(&t, &f)) {
        status = args_given(args, "decode") ? decode(args, &t) : encode(args, &t);
        tokenizer_free(&t);
    }
    modelfile_close(&f);
    return status;
}
