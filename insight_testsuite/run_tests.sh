#!/usr/bin/env bash
#
# Runs every case of tests/ the way the challenge's grader does, in a copy of
# the project under temp/, then the unit tests. The last line counts both:
# "N passed, N failed". The exit status is 0 when all passed.
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
    passed=$((passed + 1))
    printf '[PASS]: %s\n' "$1"
}

fail() {    # fail NAME REASON: what standard input says goes below
    failed=$((failed + 1))
    printf '[FAIL]: %s: %s\n' "$1" "$2"
    sed 's/^/    /'
}

check_layout() {
    local missing=0 name
    for name in run.sh src log_input log_output; do
        if [ ! -e "$project/$name" ]; then
            missing=1
            fail layout "no $name in $project" < /dev/null
        fi
    done
    [ "$missing" -eq 0 ] || finish
}

# A fresh copy of the project with the case's logs and no answer.
set_up() {
    rm -rf -- "$temp" &&
    mkdir -- "$temp" &&
    cp -R "$project/src" "$project/run.sh" "$project/log_input" "$project/log_output" "$temp" &&
    rm -rf -- "$temp/log_input" "$temp/log_output" &&
    mkdir -- "$temp/log_input" "$temp/log_output" &&
    cp "$1/log_input/batch_log.json" "$1/log_input/stream_log.json" "$temp/log_input"
}

run_case() {
    local folder=$1 name expected actual file status difference
    name=$(basename -- "$folder")
    expected=$folder/log_output/flagged_purchases.json
    actual=$temp/log_output/flagged_purchases.json

    for file in log_input/batch_log.json log_input/stream_log.json \
                log_output/flagged_purchases.json; do
        if [ ! -f "$folder/$file" ]; then
            fail "$name" "the case has no $file" < /dev/null
            return
        fi
    done
    if ! set_up "$folder"; then
        fail "$name" "cannot prepare $temp" < /dev/null
        return
    fi

    (cd -- "$temp" && exec bash run.sh) > "$temp/said" 2>&1 < /dev/null
    status=$?
    if [ "$status" -ne 0 ]; then
        fail "$name" "exit status $status" < "$temp/said"
    elif [ ! -f "$actual" ]; then
        fail "$name" "no log_output/flagged_purchases.json was written" < "$temp/said"
    elif ! difference=$(diff -bB "$expected" "$actual" 2>&1); then
        fail "$name" "expected (<), got (>)" <<< "$difference"
    elif ! cmp -s "$expected" "$actual"; then
        difference=$(diff "$expected" "$actual")
        fail "$name" "differs only in blanks: expected (<), got (>)" <<< "$difference"
    else
        pass "$name"
    fi
}

run_cases() {
    local folder found=0
    for folder in "$suite"/tests/*/; do
        [ -d "$folder" ] || continue
        found=1
        run_case "${folder%/}"
    done
    [ "$found" -eq 1 ] || fail "grader cases" "none in $suite/tests" < /dev/null
}

# The runner's own report goes to standard error; its standard output ends
# with the two counts.
run_unit_tests() {
    local counts
    counts=$("${PYTHON:-python3}" "$suite/unit_tests" | tail -n 1)
    case $counts in
    *[!0-9\ ]* | '' | ' '* | *' ' | *' '*' '*) ;;
    *' '*)
        passed=$((passed + ${counts% *}))
        failed=$((failed + ${counts#* }))
        return ;;
    esac
    fail "unit tests" "the runner did not finish" < /dev/null
}

trap 'rm -rf -- "$temp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

check_layout
run_cases
run_unit_tests
finish
