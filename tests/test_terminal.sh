# chat on a terminal, as somebody would sit before it: keys, Chinese, Ctrl-C in the middle of an answer, /undo, /regen, /edit, pasting, other
# widths, the end of input. tmux is the terminal; what it shows and what the program sent to it are both looked at. The random model says
# bytes of every kind, escapes too. $VKMOE is the program, the working directory the build folder.
work=test-terminal
. "${BASH_SOURCE%/*}/check.sh"

note() { # note OK TEXT
    checks=$((checks + 1))
    if [[ $1 != 0 ]]; then
        failed=$((failed + 1))
        echo "failed: $2" >&2
        screen >&2
    fi
}

if ! command -v tmux >/dev/null; then
    echo "SKIP: no tmux to make a terminal with"
    exit 77
fi
if ! "$VKMOE" devices >"$work/out" 2>&1; then
    echo "SKIP: no Vulkan device: $(tail -n 1 "$work/out")"
    exit 77
fi
"$VKMOE" init --preset tiny-moe --out "$work/tiny" --seed 3 >/dev/null 2>&1

sockets=$(mktemp -d) # a socket's path must be short
t() { LC_ALL=C.UTF-8 TMUX_TMPDIR=$sockets tmux -u -L vkmoe -f /dev/null "$@"; }
screen() { t capture-pane -p -J -S -200 2>/dev/null; }
trap 't kill-server 2>/dev/null; rm -rf "$sockets"' EXIT
type() { t send-keys -l -- "$1"; }
key() { t send-keys "$@"; }
begin() { # begin ENVIRONMENT FLAGS...: starts a chat in a terminal of 60 x 24; what it writes goes to $work/raw, its status to $work/status
    local environment=$1
    shift
    rm -f "$work/status" "$work/raw"
    t new-session -d -x 60 -y 24 "sleep 0.2; env $environment '$VKMOE' chat '$work/tiny' $*; echo \$? >'$work/status'"
    t pipe-pane -o "cat >'$work/raw'"
}
# The last line that is not empty, and the number of answers so far.
last() { screen | grep -v '^ *$' | tail -n 1; }
answers() { tr -d '\r\n' <"$work/raw" 2>/dev/null | grep -aoE '[0-9]/s; prompt [0-9]+' | wc -l; }
# waits SECONDS CONDITION...: until the command succeeds; tells how it went.
waits() {
    local i what="$*"
    for ((i = 0; i < 1200; i++)); do
        if "$@"; then
            note 0 ""
            return
        fi
        sleep 0.1
    done
    note 1 "waited in vain: $what"
}
shows() { [[ $(screen | tr -d ' \n') == *"$(printf %s "$1" | tr -d ' \n')"* ]]; }
prompted() { [[ $(last) == ">"* && $(last) != ">"*[a-z]* ]]; }
answered() { (($(answers) >= $1)) && prompted; }
speaking() { (($(wc -c <"$work/raw") > $1)); }
ended() { [[ -s $work/status ]]; }

# In a C locale too what is typed is UTF-8.
begin "LC_ALL=C NO_COLOR=1 VKMOE_CACHE=$VKMOE_CACHE" -n 12 --temperature 0
waits prompted
type '你好，世界! héllo'
waits shows '> 你好，世界! héllo'
key BSpace BSpace
type 'p'
key Enter
waits answered 1
waits shows '> 你好，世界! hélp'

# Ctrl-C in the middle of a long answer, and another width meanwhile.
type '/set max-tokens 100000'
key Enter
waits shows 'max-tokens 100000'
before=$(wc -c <"$work/raw")
type 'talk'
key Enter
waits speaking $((before + 60))
t resize-window -x 37 -y 20
sleep 0.3
key C-c
waits answered 2
waits shows '; stopped'
type '/set max-tokens 5'
key Enter
waits shows 'max-tokens 5 '

# /undo and /regen; a line typed over the edge of windows of even and odd width, changed while it stands there.
type '/undo'
key Enter
waits shows 'taken back; 2 messages remain'
waits prompted
type '/regen'
key Enter
waits answered 3
type '中文字一二三四五六七八九十甲乙丙丁戊己庚辛壬癸'
waits shows '中文字一二三四五六七八九十甲乙丙丁戊己庚辛壬癸'
t resize-window -x 24 -y 20
sleep 0.3
type '子丑寅'
waits shows '辛壬癸子丑寅'
key Enter
waits answered 4
t resize-window -x 60 -y 24

# /edit opens the last message; a paste of several lines is one message; Ctrl-C throws a line away.
type '/edit'
key Enter
waits shows '> 中文字一二三四五六七八九十甲乙丙丁戊己庚辛壬癸子丑寅'
sleep 0.3
type '卯'
key Enter
waits answered 5
waits shows '子丑寅卯'
printf 'first 一\nsecond 二' | t load-buffer -
t paste-buffer -p
waits shows 'second 二'
note "$([[ $(answers) == 5 ]]; echo $?)" "pasting alone asks nothing"
type ' third'
key Enter
waits answered 6
told=$(screen | grep -c 'once more')
for draft in 'nothing' 'nothing either'; do # a draft thrown away ends nothing
    type "$draft"
    waits shows "> $draft"
    key C-c
    waits prompted
done
note "$([[ $(screen | grep -c 'once more') == "$told" ]]; echo $?)" "Ctrl-C on a draft was counted"
# Nor is a signal that stops the program for a while a key.
shell=$(t list-panes -F '#{pane_pid}')
chat=$(pgrep -P "$shell" -f 'vkmoe chat' | head -n 1)
kill -TSTP "${chat:-$shell}" && sleep 0.3
kill -CONT "${chat:-$shell}" && sleep 0.3
waits prompted
note "$([[ $(screen | grep -c 'once more') == "$told" ]]; echo $?)" "a signal was taken for Ctrl-C"
key C-c
waits shows 'Ctrl-C once more ends'
waits prompted
type '/show'
key Enter
waits shows '6 messages'
key C-d
waits ended
note "$([[ $(<"$work/status") == 0 ]]; echo $?)" "Ctrl-D ends with 0, not $(<"$work/status")"

# What the program sent: whole characters; no control characters but those of line editing, and no colours, as NO_COLOR asks.
iconv -f UTF-8 -t UTF-8 "$work/raw" >/dev/null
note $? "what was written is valid UTF-8"
note "$(LC_ALL=C grep -aqE $'\033\\[[0-9;]*m' "$work/raw"; echo $((1 - $?)))" "colours in spite of NO_COLOR"
t kill-server 2>/dev/null

# A model that says anything: 300 tokens, of which one in sixteen is a control character. None of them reaches the terminal.
begin "LC_ALL=C.UTF-8 VKMOE_CACHE=$VKMOE_CACHE" -n 300 --temperature 5 --top-p 1
waits prompted
type 'hello'
key Enter
waits answered 1
note "$(grep -aq '\^[A-Z[]' "$work/raw"; echo $?)" "control characters are shown as ^X"
note "$(LC_ALL=C grep -aq $'\033\\[32m' "$work/raw"; echo $?)" "colours on a terminal"
LC_ALL=C sed -E $'s/\033\\[\\??[0-9;]*[A-Za-z]//g; s/\033[()][A-Z0-9]//g; s/[\r\t\b]//g' "$work/raw" | LC_ALL=C grep -aq '[[:cntrl:]]'
note $((1 - $?)) "no other control character is sent: $(LC_ALL=C sed -E $'s/\033\\[\\??[0-9;]*[A-Za-z]//g' "$work/raw" | od -c | head -n 20)"
key C-c
waits shows 'Ctrl-C once more ends'
key C-c
waits ended
note "$([[ $(<"$work/status") == 0 ]]; echo $?)" "Ctrl-C twice ends with 0"
note "$([[ $(stat -c %a "$VKMOE_CACHE/history") == 600 ]]; echo $?)" "the history is for its owner alone"
note "$(grep -q hello "$VKMOE_CACHE/history"; echo $?)" "the history holds what was typed"

finish
