#!/usr/bin/env bash
# The default model, from data to model folder. Stopped, it goes on where it was when it is run again.
#
#     runs/ship.sh                              # everything where configs/default/*.yaml say
#     SPEECH=/data/speech OUT=/data/out runs/ship.sh
#
# SPEECH     manifests (NAME.jsonl) and noise.jsonl, rir.jsonl
# TEXT       books.txt, a sentence a line: which pieces of the published vocabulary are kept
# MOONSHINE  the published weights of Moonshine tiny: a folder with config.json and safetensors
# OUT        where everything goes
#
# Paths are absolute or relative to the root of the project. Minutes of training of each stage: ENCODER, JOINT.
# PROCESSES train together, a thread each. MODEL is the model folder that comes out, NAME what it is called.
set -euo pipefail
cd "$(dirname "$0")/.."

SPEECH=${SPEECH:-../shared/speech}
TEXT=${TEXT:-../shared/text}
MOONSHINE=${MOONSHINE:-../shared/models/moonshine-tiny-en}
OUT=${OUT:-out}
MODEL=${MODEL:-$OUT/model}
NAME=${NAME:-reallm-default-en}
ENCODER=${ENCODER:-60} JOINT=${JOINT:-95}
PROCESSES=${PROCESSES:-2}
if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
REALLM="$PYTHON -m speech_reallm"

# hours FILE: the seconds in it, as hours
hours() {
    awk '{printf "%.2f h\n", $1 / 3600}' "$1"
}

# stage NAME COMMAND...: run the command unless it has been done, and say how long it took
stage() {
    local name=$1 done=$OUT/done/$1 begun=$SECONDS code=0
    shift
    if [ -e "$done" ]; then
        echo "== $name: done, $(hours "$done")"
        return
    fi
    echo "== $name: $*"
    "$@" || code=$?
    # the time of a stage that was stopped and resumed adds up
    echo $(($(cat "$done.part" 2> /dev/null || echo 0) + SECONDS - begun)) > "$done.part"
    [ "$code" = 0 ] || exit "$code"
    mv "$done.part" "$done"
    echo "== $name: $(hours "$done")"
}

# train STAGE MINUTES: a stage of configs/default
train() {
    OMP_NUM_THREADS=1 stage "$1" "$PYTHON" -m torch.distributed.run --nproc-per-node "$PROCESSES" -m speech_reallm \
        train "$OUT/configs/$1.yaml" --threads 1 --minutes "$2"
}

# recase NAME WER: case and punctuation for a manifest without, less the rows that the recogniser hears otherwise
recase() {
    stage "recase-$1" "$PYTHON" runs/recase.py "$SPEECH/$1.jsonl" "$OUT/manifests/$1.jsonl" --model "$MOONSHINE" \
        --max-wer "$2"
}

# align NAME MANIFEST
align() {
    stage "align-$1" $REALLM align hmm "$2" "$OUT/aligned/$1.jsonl.gz" --tokenizer "$OUT/tokenizer.model" --cased
}

for needed in "$SPEECH/librispeech-train.jsonl" "$TEXT/books.txt" "$MOONSHINE/config.json"; do
    [ -e "$needed" ] || { echo "$needed is missing; the top of $0 says what it is" >&2; exit 2; }
done
mkdir -p "$OUT/done" "$OUT/configs" "$OUT/aligned" "$OUT/manifests"
# the configurations, with the paths of this run
for config in configs/default/*.yaml; do
    sed -e "s#\.\./shared/speech/#$SPEECH/#g; s#\.\./shared/text/#$TEXT/#g" \
        -e "s#\.\./shared/models/moonshine-tiny-en#$MOONSHINE#g; s#\([ [,]\)out/#\1$OUT/#g" \
        "$config" > "$OUT/configs/$(basename "$config")"
done

stage tokenizer $REALLM tokenizer --moonshine "$MOONSHINE" "$TEXT/books.txt" --vocab 8192 --out "$OUT/tokenizer.model"
recase librispeech-train 0.5
recase speechocean762 0.34
for name in librispeech-train speechocean762; do
    align "$name" "$OUT/manifests/$name.kept.jsonl"
done
for name in kathleen ljspeech asterisk-allison; do
    align "$name" "$SPEECH/$name.jsonl"
done
stage quiet "$PYTHON" runs/quiet.py "$SPEECH/noise.jsonl" "$OUT/speech/quiet"
train 1-encoder "$ENCODER"
train 2-joint "$JOINT"
stage export $REALLM export "$OUT/joint" "$MODEL" --name "$NAME"
# the weights began as Moonshine's, and their licence goes with them
cp docs/licenses/moonshine.txt "$MODEL/LICENSE-moonshine.txt"
awk '{t += $1} END {printf "%.2f h in all\n", t / 3600}' "$OUT"/done/*
echo "the model is in $MODEL: $REALLM transcribe FILE --model $MODEL"
