#!/usr/bin/env bash
# The default model, from data to model folder. Stopped, it goes on where it was when it is run again.
#
#     runs/ship.sh                              # everything where configs/default/*.yaml say
#     SPEECH=/data/speech OUT=/data/out runs/ship.sh
#
# SPEECH     manifests (NAME.jsonl) and noise.jsonl, rir.jsonl
# TEXT       books.txt and librispeech-train-100.txt, a sentence a line
# MOONSHINE  the published weights of Moonshine tiny: a folder with config.json and safetensors
# OUT        where everything goes; OUT/speech holds the synthetic speech, which is made beforehand:
#
#     python runs/synthetic_speech.py kokoro --voices package/voices --text TEXT/books.txt --out OUT/speech/kokoro \
#         --hours 0.6
#     python runs/synthetic_speech.py hibari --text TEXT/books.txt --out OUT/speech/hibari --hours 7
#
# Paths are absolute or relative to the root of the project. Minutes of training of each stage: ENCODER, TEACHER,
# LANGUAGE, DECODER, SPLICED. MODEL is the model folder that comes out, NAME what the model is called.
set -euo pipefail
cd "$(dirname "$0")/.."

SPEECH=${SPEECH:-../shared/speech}
TEXT=${TEXT:-../shared/text}
MOONSHINE=${MOONSHINE:-../shared/models/moonshine-tiny-en}
OUT=${OUT:-out}
MODEL=${MODEL:-$OUT/model}
NAME=${NAME:-reallm-default-en}
ENCODER=${ENCODER:-30} TEACHER=${TEACHER:-9} LANGUAGE=${LANGUAGE:-24}
DECODER=${DECODER:-20} SPLICED=${SPLICED:-12}
if [ -z "${REALLM:-}" ]; then
    if [ -x .venv/bin/reallm ]; then REALLM=.venv/bin/reallm; else REALLM=reallm; fi
fi

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
    stage "$1" "$REALLM" train "$OUT/configs/$1.yaml" --minutes "$2"
}

# head_of ROWS FROM TO: the first rows of a manifest, as a manifest
head_of() {
    [ -e "$3" ] || head -n "$1" "$2" > "$3"
}

# plain NAME: the manifest of that name, ours or synthetic
plain() {
    if [ -e "$SPEECH/$1.jsonl" ]; then echo "$SPEECH/$1.jsonl"; else echo "$OUT/speech/$1.jsonl"; fi
}

for needed in "$SPEECH/librispeech-train.jsonl" "$TEXT/books.txt" "$MOONSHINE/config.json" \
    "$OUT/speech/kokoro.jsonl" "$OUT/speech/hibari.jsonl"; do
    [ -e "$needed" ] || { echo "$needed is missing; the top of $0 says what it is" >&2; exit 2; }
done
mkdir -p "$OUT/done" "$OUT/configs" "$OUT/aligned"
head_of 1000 "$OUT/speech/hibari.jsonl" "$OUT/speech/hibari-part.jsonl"
head_of 4300 "$OUT/speech/hibari.jsonl" "$OUT/speech/hibari-6h.jsonl"
# the configurations, with the paths of this run
for config in configs/default/*.yaml; do
    sed -e "s#\.\./shared/speech/#$SPEECH/#g; s#\.\./shared/text/#$TEXT/#g" \
        -e "s#\.\./shared/models/moonshine-tiny-en#$MOONSHINE#g; s#\([ [,]\)out/#\1$OUT/#g" \
        "$config" > "$OUT/configs/$(basename "$config")"
done

stage tokenizer "$REALLM" tokenizer "$TEXT/books.txt" "$TEXT/librispeech-train-100.txt" \
    --vocab 1024 --out "$OUT/tokenizer.model"
train 1-encoder "$ENCODER"
train 2-teacher "$TEACHER"
for aligned in $(sed -n 's/.*out\/aligned\/\(.*\)\.jsonl\.gz.*/\1/p' configs/default/4-decoder.yaml); do
    stage "align-$aligned" "$REALLM" align "$OUT/teacher" "$(plain "$aligned")" "$OUT/aligned/$aligned.jsonl.gz" \
        --peaks --min-score -0.6
done
train 3-language "$LANGUAGE"
train 4-decoder "$DECODER"
train 5-spliced "$SPLICED"
stage export "$REALLM" export "$OUT/spliced" "$MODEL" --name "$NAME"
# the encoder's weights began as Moonshine's, and their licence goes with them
cp docs/licenses/moonshine.txt "$MODEL/LICENSE-moonshine.txt"
awk '{t += $1} END {printf "%.2f h in all\n", t / 3600}' "$OUT"/done/*
echo "the model is in $MODEL: $REALLM transcribe FILE --model $MODEL"
