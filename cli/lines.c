// libedit's native interface. Ctrl-C is an ordinary key while a line is edited: it throws the line away and cannot hit the program in
// the middle of anything.
#include "cli/lines.h"
#include "cli/term.h"
#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HISTORY_LINES = 1000 };

struct Lines {
    EditLine *edit; // NULL: plain lines
    History *history;
    char *history_path;
    const char *prompt;
    bool interrupted;
};

static char *prompt_of(EditLine *edit) {
    struct Lines *l;
    el_get(edit, EL_CLIENTDATA, &l);
    return (char *)(uintptr_t)l->prompt;
}

static unsigned char key_interrupt(EditLine *edit, int key) {
    struct Lines *l;
    (void)key;
    el_get(edit, EL_CLIENTDATA, &l);
    l->interrupted = true;
    fputs("^C\n", stdout);
    fflush(stdout);
    return CC_NEWLINE;
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
    history(l->history, &event, H_SETSIZE, HISTORY_LINES);
    history(l->history, &event, H_SETUNIQUE, 1);
    if (history_path) {
        l->history_path = xstrdup(history_path);
        history(l->history, &event, H_LOAD, history_path); // there is none the first time
    }
    el_set(l->edit, EL_CLIENTDATA, l);
    el_set(l->edit, EL_PROMPT_ESC, prompt_of, '\1');
    el_set(l->edit, EL_EDITOR, "emacs");
    el_set(l->edit, EL_HIST, history, l->history);
    el_set(l->edit, EL_ADDFN, "vkmoe-interrupt", "throw the line away", key_interrupt);
    el_set(l->edit, EL_SETTY, "-d", "-isig", NULL);
    el_set(l->edit, EL_BIND, "^C", "vkmoe-interrupt", NULL);
    el_set(l->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(l->edit, NULL);
    return l;
}

bool lines_edited(const struct Lines *l) { return l->edit != NULL; }

static enum LineEvent read_plain(char **line) {
    size_t room = 0;
    ssize_t n = getline(line, &room, stdin);
    if (n < 0) {
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
    const char *text = el_gets(l->edit, &n);
    if (l->interrupted)
        return LINE_INTERRUPTED;
    if (!text || n <= 0)
        return n < 0 && errno == EINTR ? LINE_INTERRUPTED : LINE_END;
    *line = xstrdup(text);
    (*line)[strcspn(*line, "\r\n")] = 0;
    return LINE_TEXT;
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
    free(l);
}
