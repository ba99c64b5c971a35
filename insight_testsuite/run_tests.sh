#!/usr/bin/env bash
#
# Runs every case of tests/ the way the challenge's grader does, each in a copy
# of the project under temp/ and as many at once as there are processors, then
# the unit tests. The last line counts both: "N passed, N failed". The exit
# status is 0 when all passed.
#
# Arguments go to the unit tests: names select tests, --fail-fast ends at the
# first failure (also of the cases), --help tells more.
#
# A case is a folder with log_input/batch_log.json, log_input/stream_log.json
# and the expected log_output/flagged_purchases.json. The grader's `diff -bB`
# overlooks blanks; we do not, so an answer that is not the same byte for byte
# fails too.

set -u
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" || exit 1
suite=$(pwd)
project=$(dirname -- "$suite")
temp=$suite/temp
passed=0
failed=0

finish() {
    rm -rf -- "$temp"
    local counts="$passed passed, $failed failed"
    printf '[%s] %s\n' "$(date '+%Y-%m-%d %H:%M:%S')" "$counts" >> "$suite/results.txt"
    printf '%s\n' "$counts"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
    exit
}

pass() {
    printf '[PASS]: %s\n' "$1"
}

fail() {    # fail NAME REASON: standard input, indented, follows the line
    printf '[FAIL]: %s: %s\n' "$1" "$2"
    sed 's/^/    /'
}

# Prints what was said of some cases and counts them.
count() {
    local said=$1
    printf '%s\n' "$said"
    passed=$((passed + $(grep -c '^\[PASS\]: ' <<< "$said")))
    failed=$((failed + $(grep -c '^\[FAIL\]: ' <<< "$said")))
}

check_layout() {
    local name
    for name in run.sh src log_input log_output; do
        if [ ! -e "$project/$name" ]; then
            count "$(fail layout "no $name in $project" < /dev/null)"
        fi
    done
    [ "$failed" -eq 0 ] || finish
}

# Puts into $copy a fresh copy of the project with the case's logs and no answer.
set_up() {
    mkdir -- "$copy" &&
    cp -R "$project/src" "$project/run.sh" "$project/log_input" "$project/log_output" "$copy" &&
    rm -rf -- "$copy/log_input" "$copy/log_output" &&
    mkdir -- "$copy/log_input" "$copy/log_output" &&
    cp "$1/log_input/batch_log.json" "$1/log_input/stream_log.json" "$copy/log_input"
}

run_case() {
    local folder=$1 name copy expected actual file status difference
    name=$(basename -- "$folder")
    copy=$temp/$name
    expected=$folder/log_output/flagged_purchases.json
    actual=$copy/log_output/flagged_purchases.json

    for file in log_input/batch_log.json log_input/stream_log.json \
                log_output/flagged_purchases.json; do
        if [ ! -f "$folder/$file" ]; then
            fail "$name" "the case has no $file" < /dev/null
            return
        fi
    done
    if ! set_up "$folder"; then
        fail "$name" "cannot prepare $copy" < /dev/null
        return
    fi

    (cd -- "$copy" && exec bash run.sh) > "$copy/said" 2>&1 < /dev/null
    status=$?
    if [ "$status" -ne 0 ]; then
        fail "$name" "exit status $status" < "$copy/said"
    elif [ ! -f "$actual" ]; then
        fail "$name" "no log_output/flagged_purchases.json was written" < "$copy/said"
    elif cmp -s "$expected" "$actual"; then
        pass "$name"
    elif difference=$(diff -bB "$expected" "$actual" 2>&1); then
        difference=$(diff "$expected" "$actual")
        fail "$name" "differs only in blanks: expected (<), got (>)" <<< "$difference"
    else
        fail "$name" "expected (<), got (>)" <<< "$difference"
    fi
    rm -rf -- "$copy"
}

# Runs those of the cases whose number leaves the remainder K by N: every_nth K N FOLDER...
every_nth() {
    local k=$1 n=$2 number=0 folder
    shift 2
    for folder in "$@"; do
        if [ $((number % n)) -eq "$k" ]; then
            run_case "${folder%/}" > "$temp/$(basename -- "$folder").said"
        fi
        number=$((number + 1))
    done
}

run_cases() {
    local processors k
    set -- "$suite"/tests/*/
    if [ ! -d "$1" ]; then
        count "$(fail "grader cases" "none in $suite/tests" < /dev/null)"
        return
    fi
    processors=$(getconf _NPROCESSORS_ONLN 2> /dev/null) || processors=2
    for ((k = 0; k < processors; k++)); do
        every_nth "$k" "$processors" "$@" &
    done
    wait
    count "$(cat "$temp"/*.said)"
}

# The runner's report goes to standard error; its standard output ends with
# the two counts.
run_unit_tests() {
    local counts
    counts=$("${PYTHON:-python3}" "$suite/unit_tests" "$@" | tail -n 1)
    case $counts in
    *[!0-9\ ]* | '' | ' '* | *' ' | *' '*' '*) ;;
    *' '*)
        passed=$((passed + ${counts% *}))
        failed=$((failed + ${counts#* }))
        return ;;
    esac
    count "$(fail "unit tests" "the runner did not finish" < /dev/null)"
}

if ! { rm -rf -- "$temp" && mkdir -- "$temp" && : >> "$suite/results.txt"; } 2> /dev/null; then
    printf 'run_tests.sh: cannot write in %s\n' "$suite" >&2
    exit 1
fi
trap 'wait; rm -rf -- "$temp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

check_layout
run_cases
case " $* " in
*' --fail-fast '*) [ "$failed" -eq 0 ] || finish ;;
esac
run_unit_tests "$@"
finish
