// libedit's native interface. Ctrl-C is an ordinary key while a line is edited: it throws the line away and cannot hit the program in
// the middle of anything. Pasted text comes between two escape sequences (bracketed paste) and is put in as a whole, its newlines too.
#include "cli/lines.h"
#include "cli/term.h"
#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

enum { HISTORY_LINES = 1000, PASTE_MAX_CHARACTERS = 1 << 20 };
static const char PASTE_BEGIN[] = "\033[200~", PASTE_ON[] = "\033[?2004h", PASTE_OFF[] = "\033[?2004l";
// A key that no keyboard has: it is pushed before a line that begins with a text to change.
static const char KEY_PREFILL[] = "\033[9999~";

struct Lines {
    EditLine *edit; // NULL: plain lines
    History *history;
    char *history_path;
    const char *prompt;
    char *prefill;                  // what the next line begins with
    bool interrupted, empty, paste; // empty: the line was, at the key that interrupted it
};

static struct Lines *lines_of(EditLine *edit) {
    struct Lines *l;
    el_get(edit, EL_CLIENTDATA, &l);
    return l;
}

static char *prompt_of(EditLine *edit) { return (char *)(uintptr_t)lines_of(edit)->prompt; }

static unsigned char key_interrupt(EditLine *edit, int key) {
    struct Lines *l = lines_of(edit);
    const LineInfoW *line = el_wline(edit);
    (void)key;
    l->interrupted = true;
    l->empty = line->lastchar == line->buffer;
    fputs("^C\n", stdout);
    fflush(stdout);
    return CC_NEWLINE;
}

static unsigned char key_suspend(EditLine *edit, int key) {
    (void)edit, (void)key;
    raise(SIGTSTP); // libedit gives the terminal back, and takes it again afterwards
    return CC_REDISPLAY;
}

static unsigned char key_newline(EditLine *edit, int key) {
    (void)key;
    return el_winsertstr(edit, L"\n") == 0 ? CC_REFRESH : CC_ERROR;
}

static unsigned char key_prefill(EditLine *edit, int key) {
    struct Lines *l = lines_of(edit);
    (void)key;
    size_t room = l->prefill ? strlen(l->prefill) + 1 : 0;
    wchar_t *wide = room ? xcalloc(room, sizeof *wide) : NULL;
    bool ok = wide && mbstowcs(wide, l->prefill, room) != (size_t)-1 && el_winsertstr(edit, wide) == 0;
    free(wide);
    return ok ? CC_REFRESH : CC_ERROR;
}

// Everything up to ESC [ 201 ~. Terminals send CR for a newline; other control characters have no business in a message.
static unsigned char key_paste(EditLine *edit, int key) {
    static const wchar_t END[] = L"\033[201~";
    size_t n = 0, room = 0, matched = 0;
    wchar_t *text = NULL, c, before = 0;
    (void)key;
    while (matched < sizeof END / sizeof *END - 1 && el_wgetc(edit, &c) == 1) {
        matched = c == END[matched] ? matched + 1 : c == END[0] ? 1 : 0;
        if (matched || (c == L'\n' && before == L'\r')) {
            before = c;
            continue;
        }
        before = c;
        if (n + 2 > room) {
            room = room ? 2 * room : 1024;
            text = xrealloc(text, room * sizeof *text);
        }
        if (c == L'\r')
            c = L'\n';
        if (n < PASTE_MAX_CHARACTERS && (c >= 0x20 || c == L'\n' || c == L'\t') && !(c >= 0x7f && c < 0xa0))
            text[n++] = c;
    }
    bool ok = true;
    if (n) {
        text[n] = 0;
        ok = el_winsertstr(edit, text) == 0;
    }
    free(text);
    return ok ? CC_REFRESH : CC_ERROR;
}

struct Lines *lines_open(const char *history_path) {
    struct Lines *l = xcalloc(1, sizeof *l);
    if (!term_is_terminal(stdin) || !term_is_terminal(stdout))
        return l;
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0 && !setlocale(LC_CTYPE, "C.UTF-8"))
        warn("no UTF-8 locale: letters beyond ASCII may be shown wrongly while they are typed");
    l->edit = el_init("vkmoe", stdin, stdout, stderr);
    if (!l->edit)
        return l;
    HistEvent event;
    l->history = history_init();
    if (!l->history)
        heap_exhausted(0);
    history(l->history, &event, H_SETSIZE, HISTORY_LINES);
    history(l->history, &event, H_SETUNIQUE, 1);
    if (history_path) {
        l->history_path = xstrdup(history_path);
        history(l->history, &event, H_LOAD, history_path); // there is none the first time
    }
    el_set(l->edit, EL_CLIENTDATA, l);
    el_set(l->edit, EL_PROMPT_ESC, prompt_of, '\1');
    el_set(l->edit, EL_EDITOR, "emacs");
    el_set(l->edit, EL_SIGNAL, 1); // a new window size, and the terminal as it was when the program is killed
    el_set(l->edit, EL_HIST, history, l->history);
    el_set(l->edit, EL_ADDFN, "vkmoe-interrupt", "throw the line away", key_interrupt);
    el_set(l->edit, EL_ADDFN, "vkmoe-suspend", "stop the program for a while", key_suspend);
    el_set(l->edit, EL_ADDFN, "vkmoe-newline", "put in a newline", key_newline);
    el_set(l->edit, EL_ADDFN, "vkmoe-paste", "put in what is pasted", key_paste);
    el_set(l->edit, EL_ADDFN, "vkmoe-prefill", "put in the text to change", key_prefill);
    el_set(l->edit, EL_SETTY, "-d", "-isig", NULL);
    el_set(l->edit, EL_BIND, "^C", "vkmoe-interrupt", NULL);
    el_set(l->edit, EL_BIND, "^Z", "vkmoe-suspend", NULL);
    el_set(l->edit, EL_BIND, "\033\r", "vkmoe-newline", NULL); // Alt-Enter
    el_set(l->edit, EL_BIND, "\033\n", "vkmoe-newline", NULL);
    el_set(l->edit, EL_BIND, PASTE_BEGIN, "vkmoe-paste", NULL);
    el_set(l->edit, EL_BIND, KEY_PREFILL, "vkmoe-prefill", NULL);
    el_set(l->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(l->edit, NULL);
    const char *term = getenv("TERM");
    l->paste = term && strcmp(term, "dumb") != 0;
    return l;
}

bool lines_edited(const struct Lines *l) { return l->edit != NULL; }

static enum LineEvent read_plain(char **line) {
    size_t room = 0;
    ssize_t n = getline(line, &room, stdin);
    if (n < 0) {
        if (errno == ENOMEM && !feof(stdin))
            heap_exhausted(0);
        free(*line);
        *line = NULL;
        return LINE_END;
    }
    if (n > 0 && (*line)[n - 1] == '\n')
        (*line)[--n] = 0;
    if (n > 0 && (*line)[n - 1] == '\r')
        (*line)[--n] = 0;
    if (strlen(*line) != (size_t)n) // a zero byte would cut the message without a word
        for (ssize_t i = 0; i < n; i++)
            (*line)[i] = (*line)[i] ? (*line)[i] : ' ';
    return LINE_TEXT;
}

enum LineEvent lines_read(struct Lines *l, const char *prompt, char **line) {
    *line = NULL;
    if (!l->edit)
        return read_plain(line);
    int n = 0;
    l->prompt = prompt;
    l->interrupted = false;
    el_resize(l->edit); // the window may have changed while the model spoke
    if (l->prefill)
        el_push(l->edit, KEY_PREFILL);
    if (l->paste)
        fputs(PASTE_ON, stdout);
    const char *text = el_gets(l->edit, &n);
    int error = errno;
    if (l->paste)
        fputs(PASTE_OFF, stdout);
    fflush(stdout);
    free(l->prefill);
    l->prefill = NULL;
    if (l->interrupted)
        return l->empty ? LINE_INTERRUPTED : LINE_DISCARDED;
    if (!text || n <= 0) // a signal from outside, such as one that stops or continues the program, is no key
        return n < 0 && error == EINTR ? LINE_DISCARDED : LINE_END;
    *line = xstrdup(text);
    size_t length = strlen(*line);
    if (length > 0 && (*line)[length - 1] == '\n') // the one of the key; those within are the text's
        (*line)[length - 1] = 0;
    return LINE_TEXT;
}

void lines_prefill(struct Lines *l, const char *text) {
    free(l->prefill);
    l->prefill = xstrdup(text);
}

void lines_remember(struct Lines *l, const char *line) {
    if (!l->edit || !*line)
        return;
    HistEvent event;
    history(l->history, &event, H_ENTER, line);
    if (l->history_path)
        history(l->history, &event, H_SAVE, l->history_path);
}

void lines_close(struct Lines *l) {
    if (l->edit) {
        el_end(l->edit);
        history_end(l->history);
    }
    free(l->history_path);
    free(l->prefill);
    free(l);
}
