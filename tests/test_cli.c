// The command line: what the table promises, what is refused and in which words, text made harmless, and the picture.
#include "check.h"
#include "cli/chat.h"
#include "cli/output.h"
#include "cli/plot.h"
#include "cli/term.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

// Parses words by spaces; NULL when it went well, else the message.
static const char *parse(struct Args *args, const char *line) {
    static char words[512];
    char *argv[32];
    int argc = 0;
    snprintf(words, sizeof words, "%s", line);
    for (char *word = strtok(words, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    const struct Command *command = args_find_command(argv[0]);
    if (!CHECK(command != NULL, "%s is a command", argv[0]))
        return "";
    return args_parse(args, command, argc - 1, argv + 1) ? NULL : fail_last();
}

static void check_refused(const char *line, const char *part) {
    struct Args args;
    const char *message = parse(&args, line);
    CHECK(message && strstr(message, part), "'%s': found '%s', expected '...%s...'", line,
          message ? message : "no error", part);
}

static void test_parsing(void) {
    struct Args args;
    const char *message = parse(&args, "train some/model --data=a.jsonl -o out --lr 2e-4 -b 8 --seed 7 --json");
    CHECK(!message, "found '%s'", message ? message : "");
    CHECK(args.n_operands == 1 && strcmp(args.operands[0], "some/model") == 0, "%u operands", args.n_operands);
    CHECK(strcmp(args_text(&args, "data"), "a.jsonl") == 0 && strcmp(args_text(&args, "out"), "out") == 0, "texts");
    CHECK(args_float(&args, "lr") == 2e-4 && args_int(&args, "batch") == 8 && args_int(&args, "seed") == 7, "numbers");
    CHECK(args_switch(&args, "json") && !args_switch(&args, "resume"), "switches");
    CHECK(args_given(&args, "lr") && !args_given(&args, "clip") && args_float(&args, "clip") == 1, "defaults");
    CHECK(args_choice(&args, "method", "full") && !args_choice(&args, "method", "lora"), "choices");
    CHECK(args_text(&args, "validation") == NULL, "no default");
    CHECK(!parse(&args, "generate m -p -5 --temperature 0") && strcmp(args_text(&args, "prompt"), "-5") == 0,
          "a value may begin with a dash: '%s'", fail_last());
    const char *stops[ARGS_MAX_LIST];
    CHECK(!parse(&args, "chat m --stop a --top-k 3 --stop=b") && args_list(&args, "stop", stops) == 2 &&
              strcmp(stops[0], "a") == 0 && strcmp(stops[1], "b") == 0,
          "a flag that may be given several times");
    CHECK(!parse(&args, "chat m") && args_list(&args, "stop", stops) == 0, "or not at all");
    CHECK(!parse(&args, "generate -- --odd-name") && strcmp(args.operands[0], "--odd-name") == 0, "after --");
    CHECK(!parse(&args, "train --help") && args_switch(&args, "help"), "--help needs nothing else");

    CHECK(!parse(&args, "quantize m --out a.gguf --type Q4_K_M") && args_choice(&args, "type", "q4_k_m") &&
              strcmp(args_text(&args, "type"), "q4_k_m") == 0,
          "a choice in capitals is the one of the table: '%s'", fail_last());
    CHECK(!parse(&args, "train m --data a --out b --method QLoRA --schedule=Cosine") &&
              strcmp(args_text(&args, "method"), "qlora") == 0 && strcmp(args_text(&args, "schedule"), "cosine") == 0,
          "two of them: '%s'", fail_last());

    fail_quiet(true);
    check_refused("train m --data a --out b --epohcs 3", "is --epochs meant?");
    check_refused("generate m --temp 3", "--temperature meant?");
    // As other programs call it, where the command has such a flag.
    check_refused("train m --data a --out b --learning-rate 1e-4", "is --lr meant?");
    check_refused("train m --data a --out b --learning_rate=1e-4", "is --lr meant?");
    check_refused("train m --data a --out b --bf16", "is --type bf16 meant?");
    check_refused("train m --data a --out b --num-train-epochs 3", "is --epochs meant?");
    check_refused("train m --data a --out b --per-device-train-batch-size 3", "is --batch meant?");
    check_refused("generate m --top_k 3", "is --top-k meant?");
    check_refused("generate m --n-predict 3", "is --max-tokens meant?");
    check_refused("generate m --ctx-size 3", "is --context meant?");
    check_refused("generate m --learning-rate 3", "--help` lists them");
    check_refused("quantize m --out a --bf16", "--help` lists them");
    check_refused("generate m --qwertyuiop", "--help` lists them");
    check_refused("generate m -z 3", "no flag -z");
    check_refused("train m --data a", "--out DIR is needed");
    check_refused("train --data a --out b", "MODEL");
    check_refused("info a b", "'b' is one argument too many");
    check_refused("devices a", "takes no arguments");
    check_refused("train m --data --out b", "--data needs a value");
    check_refused("train m --data a --out", "--out needs a value");
    check_refused("train m --data a --out=", "train: --out is empty");
    check_refused("eval m --data a --out=", "eval: --out is empty");
    check_refused("quantize m --out a.gguf --imatrix=", "quantize: --imatrix is empty");
    check_refused("train m --data a --data b --out c",
                  "--data is given twice; several files are written with commas: A,B");
    check_refused("train m --data a --out b --lr 1 --lr 2", "--lr is given twice");
    check_refused("train m --data a --out b --warmup 0.1", "not '0.1': steps over which");
    check_refused("train m --data a --out b --lr fast", "takes a number, not 'fast'");
    check_refused("train m --data a --out b --lr nan", "takes a number");
    check_refused("train m --data a --out b --lr 1e999", "takes a number");
    check_refused("train m --data a --out b --batch 2.5", "whole number");
    check_refused("train m --data a --out b --batch 99999999999999999999", "whole number");
    check_refused("train m --data a --out b --batch 0", "between 1 and 1048576");
    check_refused("train m --data a --out b --epsilon 0", "between 1e-18 and 1");
    check_refused("train m --data a --out b --method ful", "full|lora");
    check_refused("train m --data a --out b --method full|lora", "full|lora");
    check_refused("train m --data a --out b --resume=yes", "takes no value");
    // Common flags that a command would ignore.
    check_refused("tokenize m --device x", "no flag --device; `vkmoe tokenize --help` lists them");
    check_refused("tokenize m --seed 5", "no flag --seed");
    check_refused("plot run --device x", "no flag --device");
    check_refused("convert m --out a --device 0", "no flag --device");
    check_refused("man --json", "no flag --json");
    fail_quiet(false);
    CHECK(strcmp(args_nearest_command("trian"), "train") == 0, "nearest to trian");
    CHECK(args_nearest_command("xyzzy") == NULL, "nothing is near xyzzy");
}

// Every default must be a value that its own flag accepts, and every help must fit on a line of code's reading.
static void test_table(void) {
    for (const struct Command *c = COMMANDS; c->name; c++) {
        CHECK(c->run && c->summary && c->operands && c->example && c->max_operands <= ARGS_MAX_OPERANDS, "%s", c->name);
        CHECK(strncmp(c->example, "vkmoe ", 6) == 0 && strstr(c->example, c->name), "%s: %s", c->name, c->example);
        uint32_t n_flags = 0;
        for (const struct Flag *f = c->flags; f->name || f->help; f++, n_flags++) {
            if (!f->name || !f->fallback)
                continue;
            char line[256];
            struct Args args;
            snprintf(line, sizeof line, "%s %s --%s %s --help", c->name, c->min_operands ? "operand" : "", f->name,
                     f->fallback);
            const char *message = parse(&args, line);
            CHECK(!message, "the default of --%s: '%s'", f->name, message ? message : "");
            for (const struct Flag *g = c->flags; g < f; g++)
                CHECK(!g->name || (strcmp(g->name, f->name) != 0 && (!f->short_name || g->short_name != f->short_name)),
                      "%s: --%s is listed twice", c->name, f->name);
        }
        CHECK(n_flags + 8 < ARGS_MAX_FLAGS, "%s has %u flags", c->name, n_flags);
        FILE *to = tmpfile();
        args_help(c, to);
        CHECK(to && ftell(to) > 200, "help of %s has %ld bytes", c->name, to ? ftell(to) : 0);
        if (to)
            fclose(to);
    }
}

static int run(const char *line) {
    char words[256], *argv[16] = {(char *)"vkmoe"};
    int argc = 1;
    snprintf(words, sizeof words, "%s", line);
    for (char *word = strtok(words, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    return cli_main(argc, argv);
}

static void test_exit_status(void) {
    fflush(stdout);
    int kept = dup(STDOUT_FILENO);
    CHECK(freopen("/dev/null", "w", stdout) != NULL, "no /dev/null");
    fail_quiet(true);
    int help = run("--help"), version = run("--version"), about = run("help train"), inner = run("train --help");
    int of_help = run("help help"), of_itself = run("help --help"), more = run("help train x");
    CHECK(strstr(fail_last(), "'x' is one argument too many"), "found '%s'", fail_last());
    int unknown = run("flyy"), wrong = run("info"), failed = run("info no-such-model-anywhere");
    fail_quiet(false);
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    close(kept);
    CHECK(help == 0 && version == 0 && about == 0 && inner == 0, "%d %d %d %d", help, version, about, inner);
    CHECK(of_help == 0 && of_itself == 0 && more == EXIT_USAGE, "help of help: %d %d %d", of_help, of_itself, more);
    CHECK(unknown == EXIT_USAGE && wrong == EXIT_USAGE && failed == EXIT_FAILED, "%d %d %d", unknown, wrong, failed);
    CHECK(strstr(fail_last(), "no-such-model-anywhere"), "found '%s'", fail_last());
}

static void test_text(void) {
    CHECK(term_text_width("abc") == 3 && term_text_width("\xe4\xbd\xa0\xe5\xa5\xbd") == 4, "width");
    CHECK(term_text_width("e\xcc\x81") == 1, "a combining accent has no width");

    char *written = NULL;
    size_t bytes;
    FILE *to = open_memstream(&written, &bytes);
    const char text[] = "a\x1b[2J\a\tb\n\x7f\xc2\x9b\xff\xe2\x80\xae";
    term_write(to, text, sizeof text - 1);
    fclose(to);
    CHECK(strcmp(written, "a^[[2J^G\tb\n^?^[[\xef\xbf\xbd<U+202E>") == 0, "found '%s'", written);
    free(written);

    char out[16];
    term_format_duration(65.2, out);
    CHECK(strcmp(out, "1:05") == 0, "found %s", out);
    term_format_duration(7384, out);
    CHECK(strcmp(out, "2:03:04") == 0, "found %s", out);
    term_format_count(16375728128.0, out);
    CHECK(strcmp(out, "16.4B") == 0, "found %s", out);
    term_format_count(999.7, out);
    CHECK(strcmp(out, "1.00K") == 0, "found %s", out);
    term_format_bytes(98362432, out);
    CHECK(strcmp(out, "93.8 MiB") == 0, "found %s", out);
}

static void test_plot(void) {
    const char *path = "test-cli-plot.png";
    enum { N = 120 };
    double x[N], y[N];
    for (int i = 0; i < N; i++) {
        x[i] = i;
        y[i] = i == 60 ? NAN : 3 * exp(-i / 30.0) + 1;
    }
    const struct PlotSeries series[2] = {{"training", x, y, N, true, false}, {"held out", x, y, 1, false, true}};
    CHECK(plot_lines(path, "A title", "step", "loss", series, 2), "%s", fail_last());
    uint8_t *data;
    uint64_t bytes;
    if (CHECK(file_read(path, 1 << 22, &data, &bytes), "%s", fail_last())) {
        CHECK(bytes > 4000 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0, "%llu bytes", (unsigned long long)bytes);
        CHECK(data[18] == 1000 >> 8 && data[19] == (1000 & 255) && data[22] == 600 >> 8 && data[23] == (600 & 255),
              "1000 x 600");
        free(data);
    }
    // No values, one value, values that are all alike: still a picture.
    const struct PlotSeries none[1] = {{"nothing", x, y, 0, true, false}};
    const double same[3] = {2, 2, 2};
    const struct PlotSeries flat[1] = {{"flat", x, same, 3, false, true}};
    CHECK(plot_lines(path, "", "", "", none, 1) && plot_lines(path, "", "", "", flat, 1), "%s", fail_last());
    // A mean of equal numbers may be a last place off: an axis of that range would never come to its end.
    const double nearly[3] = {3e-5, nextafter(3e-5, 1), 3e-5};
    const struct PlotSeries hair[1] = {{"hair", x, nearly, 3, true, false}};
    CHECK(plot_lines(path, "", "", "", hair, 1), "%s", fail_last());
    // A range that is no number itself: what has no place is not drawn.
    const double far[4] = {1e308, -1e308, 1, 1.7e308};
    const struct PlotSeries huge[1] = {{"huge", x, far, 4, true, true}}, wide[1] = {{"wide", far, x, 4, true, true}};
    CHECK(plot_lines(path, "", "", "", huge, 1) && plot_lines(path, "", "", "", wide, 1), "%s", fail_last());
    unlink(path);
    fail_quiet(true);
    CHECK(!plot_lines("no/such/folder/a.png", "", "", "", none, 1) && strstr(fail_last(), "no/such/folder"),
          "found '%s'", fail_last());
    fail_quiet(false);
}

// A chart in text: as wide as was asked for, a letter a series where there are no colours, and no trouble with what is not there.
static void test_plot_terminal(void) {
    const double x[] = {1, 2, 3, 4}, up[] = {0, 1, 2, 3}, down[] = {3, NAN, 1, 0}, far[] = {1e308, -1e308, 1, 1.7e308};
    const struct PlotSeries two[] = {{.name = "up", .x = x, .y = up, .n = 4},
                                     {.name = "do\x1bwn", .x = x, .y = down, .n = 4}},
                            none = {.name = ""}, point = {.name = "point", .x = x, .y = up, .n = 1},
                            huge = {.name = "huge", .x = x, .y = far, .n = 4};
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    plot_terminal(to, "Title", two, 2, 60, 8);
    fflush(to);
    CHECK(strstr(text, "Title\n") && strstr(text, "a up\n") && strstr(text, "b do^[wn\n"), "'%s'", text);
    unsigned rows = 0, first = 0, second = 0;
    for (const char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        CHECK(end - line <= 60, "a line of %td columns", end - line);
        rows += memchr(line, '|', (size_t)(end - line)) != NULL;
        for (const char *c = line; rows && c < end; c++)
            first += *c == 'a', second += *c == 'b';
    }
    CHECK(rows == 8 && first > 20 && second > 10, "%u rows, %u and %u dots", rows, first, second);
    plot_terminal(to, "Nothing", &none, 1, 5, 0);
    plot_terminal(to, "A point", &point, 1, 30, 4);
    plot_terminal(to, "Too far apart", &huge, 1, 30, 4);
    fclose(to);
    CHECK(strstr(text, "\xe2\xa0"), "no dot of Braille: '%s'", text);
    free(text);
    const double loads[] = {0, 1, 2, 4, 1, 1};
    const uint32_t names[] = {7};
    const char *path = "test-panels.png";
    uint8_t *png = NULL;
    uint64_t n = 0;
    CHECK(plot_panels(path, "Loads", &(struct PlotPanels){loads, names, 1, 3, 2, "step", "expert"}) &&
              file_read(path, 1 << 20, &png, &n) && n > 1000 && memcmp(png, "\x89PNG", 4) == 0,
          "%s", fail_last());
    free(png);
    unlink(path);
}

// ---- A signal in the middle of a model's rows

static enum DType type_f32(void *context, const struct WeightSpec *w) {
    (void)context, (void)w;
    return DT_F32;
}
static bool rows_cut(void *context, const struct WeightSpec *w, uint64_t first, uint64_t count, void *out) {
    (void)w, (void)first, (void)count, (void)out;
    raise(*(const int *)context);
    return false;
}

// The program ends by it, and nothing is left of what it wrote; one that is ignored, as nohup has it, stays so.
static void test_signals(void) {
    static const int SIGNALS[] = {SIGINT, SIGTERM, SIGHUP, SIGHUP};
    static const char *const LINES[] = {"init --preset tiny --out test-cli-cut",
                                        "init --preset tiny --out test-cli-cut.gguf"};
    struct Config config;
    config_preset(&config, "tiny");
    for (int i = 0; i < 8; i++) {
        int number = SIGNALS[i / 2], status = 0;
        bool ignored = i / 2 == 3;
        struct Args args;
        struct WeightSource source = {&number, type_f32, rows_cut};
        CHECK(!parse(&args, LINES[i % 2]), "%s", fail_last());
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            signal(number, ignored ? SIG_IGN : SIG_DFL);
            _exit(output_write(&args, &config, DT_F32, &source, NULL, "cut") ? 0 : 9);
        }
        bool ended = waitpid(child, &status, 0) == child;
        CHECK(ended && (ignored ? WIFEXITED(status) && WEXITSTATUS(status) == 9
                                : WIFSIGNALED(status) && WTERMSIG(status) == number),
              "signal %d: status %#x", number, (unsigned)status);
        char *left = xsprintf("%s.tmp%ld", args_text(&args, "out"), (long)child);
        CHECK(!file_exists(left) && !dir_exists(left), "signal %d left %s", number, left);
        free(left);
    }
}

// ---- Settings of a saved conversation

#define SETTING(name, value) ((struct ChatSetting){(char *)(uintptr_t)(name), (char *)(uintptr_t)(value)})

// They count together, whatever is said one after the other; those that exclude each other change nothing.
static void test_settings(void) {
    struct Chat *c = xcalloc(1, sizeof *c);
    c->say = stderr;
    const struct ChatSetting good[] = {SETTING("top-k", "40"),    SETTING("mirostat", "0"), SETTING("stop", "off"),
                                       SETTING("stop", "a\\n\n"), SETTING("seed", "3"),     SETTING("max-tokens", "7")};
    const struct ChatSetting bad[] = {SETTING("top-k", "41"), SETTING("mirostat", "6"), SETTING("max-tokens", "8"),
                                      SETTING("stop", "x")};
    CHECK(!parse(&c->args, "chat m --mirostat 5 --seed 2") && load_sampling(&c->args, &c->set), "%s", fail_last());
    CHECK(chat_take_settings(c, good, 6), "%s", fail_last());
    for (int i = 0; i < 2; i++) {
        const struct SampleParams *p = &c->set.params;
        CHECK(p->top_k == 40 && p->tau == 0 && p->seed_low == 3 && c->max_tokens == 7, "top-k %u, tau %g, %u tokens",
              p->top_k, (double)p->tau, c->max_tokens);
        CHECK(c->n_stops == 2 && strcmp(c->stops[0], "off") == 0 && strcmp(c->stops[1], "a\\n\n") == 0,
              "%u stop texts, the first is %s", c->n_stops, c->n_stops ? c->stops[0] : "none");
        fail_quiet(true);
        CHECK(i || !chat_take_settings(c, bad, 4), "settings that exclude each other are taken");
        fail_quiet(false);
    }
    CHECK(strcmp(args_text(&c->args, "top-k"), "40") == 0 && !args_given(&c->args, "mirostat"), "what is shown");
    CHECK(chat_take_settings(c, good, 1) && c->n_stops == 0 && c->set.params.seed_low == 3, "one setting alone");
    for (uint32_t i = 0; i < ARGS_MAX_FLAGS; i++)
        free(c->values[i]);
    free(c);
}

int main(void) {
    test_parsing();
    test_settings();
    test_table();
    test_exit_status();
    test_text();
    test_plot();
    test_plot_terminal();
    test_signals();
    return check_done();
}
