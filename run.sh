#!/usr/bin/env bash
#
# Flags the anomalous purchases of this project's log_input/stream_log.json in
# its log_output/flagged_purchases.json. Works from any directory and through
# symbolic links. Arguments are passed on, and names in them are relative to the
# caller's directory (try: ./run.sh --help). Without the site packages (-I -S),
# which the program does not use, Python starts in a quarter of the time.

script=${BASH_SOURCE[0]}
while [ -L "$script" ]; do
    target=$(readlink -- "$script") || exit 2
    case $target in
    /*) script=$target ;;
    *) script=${script%"${script##*/}"}$target ;;     # relative to the link's directory
    esac
done

exec "${PYTHON:-python3}" -I -S -- "${script%"${script##*/}"}src/anomaly_detection.py" "$@"
