#!/usr/bin/env bash
#
# Flags the anomalous purchases of ./log_input/stream_log.json in
# ./log_output/flagged_purchases.json. Works from any directory. Arguments are
# passed on (try: ./run.sh --help). Without the site packages (-I -S), which the
# program does not use, Python starts in a quarter of the time.

script=${BASH_SOURCE[0]}
CDPATH='' cd -- "${script%"${script##*/}"}." || exit 2

exec "${PYTHON:-python3}" -I -S src/anomaly_detection.py "$@"
