#!/usr/bin/env bash
# The paper's system and its rivals on the frames of one frozen encoder, from data to docs/paper.md. Stopped, it goes on
# where it was when it is run again.
#
#     recipes/paper/run.sh                                # everything where recipes/paper/_common.yaml says
#     SPEECH=/data/speech OUT=/data/out recipes/paper/run.sh
#     SYSTEMS="joint" MINUTES=60 recipes/paper/run.sh
#     recipes/paper/run.sh --report                       # docs/paper.md and its plots, from recipes/paper/results alone
#
# SPEECH     manifests (NAME.jsonl) of the recordings; librispeech-dev and various-dev are measured on
# OUT        where everything goes
# START      the model folder that encoder and weights come from (default: the built-in model)
# SYSTEMS    names of the YAML files in recipes/paper, MINUTES of training for each of them, PROCESSES that measure
#
# Paths are absolute or relative to the root of the project.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
REALLM="$PYTHON -m speech_reallm"
if [ "${1:-}" = --report ]; then
    exec "$PYTHON" recipes/paper/report.py
fi
export SPEECH=${SPEECH:-data/speech}
export OUT=${OUT:-out/paper}
START=${START:-src/speech_reallm/models/default}
SYSTEMS=${SYSTEMS:-"joint interleaving interleaving-scratch"}
MINUTES=${MINUTES:-30}
PROCESSES=${PROCESSES:-2}
CORPORA="librispeech-train vctk queen words kathleen ljspeech commands arctic keywords games"

# stage NAME COMMAND...: run the command unless it has been done
stage() {
    local name=$1 done=$OUT/done/$1
    shift
    if [ -e "$done" ]; then
        echo "== $name: done"
        return
    fi
    echo "== $name: $*"
    "$@"
    touch "$done"
}

join() {
    for name in $CORPORA; do cat "$OUT/aligned/$name.jsonl.gz"; done > "$OUT/train.jsonl.gz"
}

# measure SYSTEM SET: by PROCESSES at once
measure() {
    local number pids=()
    for number in $(seq "$PROCESSES"); do
        OMP_NUM_THREADS=1 "$PYTHON" recipes/paper/measure.py "$OUT/$1/model" "$SPEECH/$2.jsonl" "$OUT/$1/$2" \
            --share "$number/$PROCESSES" --alignments "$OUT/aligned/$2.jsonl.gz" &
        pids+=($!)
    done
    for number in "${pids[@]}"; do wait "$number" || return 1; done
}

for needed in "$SPEECH/librispeech-train.jsonl" "$SPEECH/librispeech-dev.jsonl" "$START/config.json"; do
    [ -e "$needed" ] || { echo "$needed is missing; the top of $0 says what it is" >&2; exit 2; }
done
mkdir -p "$OUT/done" "$OUT/aligned"
cp "$START/tokenizer.model" "$OUT/tokenizer.model"
stage split "$PYTHON" recipes/paper/split.py "$SPEECH" --out "$OUT" $CORPORA
for name in $CORPORA; do
    stage "align-$name" $REALLM align hmm "$OUT/manifests/$name.jsonl" "$OUT/aligned/$name.jsonl.gz" \
        --tokenizer "$OUT/tokenizer.model" --cased
done
for name in librispeech-dev various-dev; do
    stage "align-$name" $REALLM align hmm "$SPEECH/$name.jsonl" "$OUT/aligned/$name.jsonl.gz" \
        --tokenizer "$OUT/tokenizer.model"
done
stage join join
stage start "$PYTHON" recipes/paper/start.py "$START" "$OUT/start" --delay 1
stage encoder "$PYTHON" recipes/paper/start.py "$START" "$OUT/encoder" --delay 1 --encoder-only
for system in $SYSTEMS; do
    OMP_NUM_THREADS=1 stage "train-$system" $REALLM train "recipes/paper/$system.yaml" --threads 1 --minutes "$MINUTES"
    stage "export-$system" $REALLM export "$OUT/$system" "$OUT/$system/model" --name "reallm-$system-en"
    for name in librispeech-dev various-dev; do
        stage "measure-$system-$name" measure "$system" "$name"
    done
    stage "result-$system" "$PYTHON" recipes/paper/result.py "$system" --run "$OUT/$system" --row 1 \
        --name "$(sed -n '1s/^# //p' "recipes/paper/$system.yaml")" --start "$START" \
        --measured "librispeech-dev=$OUT/$system/librispeech-dev" --measured "various-dev=$OUT/$system/various-dev"
done
"$PYTHON" recipes/paper/report.py
