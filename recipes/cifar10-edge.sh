#!/usr/bin/env bash
# A one-step CIFAR-10 student of 9 M parameters, its rivals and its figures, in about half an hour of one large GPU,
# in pieces: run the same command until it says "finished".
#
#   recipes/cifar10-edge.sh --data CIFAR10 --judge resnet20:resnet20-12fca82f.th
#   recipes/cifar10-edge.sh --data … --judge … --minutes 8 --to OUT            stop in time, leave the rest in OUT
#   recipes/cifar10-edge.sh --data … --judge … --minutes 8 --from OUT --to OUT2   go on with it on another machine
#   recipes/cifar10-edge.sh --data … --judge … --rehearse                      all of it, tiny, moved twice, on a CPU
#
#   --minutes M        this call stops in time; compiling and evaluating can overrun it by about a minute
#   --budget M         minutes of training in all (18), divided among the stages by their measured speed; a third as
#                      much again goes into compiling, measuring and drawing
#   --work DIR         runs/cifar10-edge; a run that is moved keeps this name
#   --from, --to DIR   what has to be carried between machines, in files of at most 15 MB. Unfinished training is
#                      carried in half precision and without its optimizer (rdd-edge compact)
#   --judge SPEC       the extractor of the distances, as `rdd-edge evaluate --extractor` takes it. Where
#                      RDD_EDGE_INCEPTION names the Inception weights, the model's card has FID and IS as well
#
# Extractor → teacher → PD from 64 steps to 8 → RDD to 1; from the same 8-step student RCFD and PD with equal steps;
# the student packed, measured and drawn. Results lie in WORK/results, the model in WORK/cifar10-edge.
set -euo pipefail
began=$SECONDS
here=$(cd "$(dirname "$0")/.." && pwd)
data="" judge="" minutes="" budget=18 work=runs/cifar10-edge from="" to="" rehearse=""
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || [ "$1" = --rehearse ] || { echo "$0: $1 needs a value: see the head of the file" >&2; exit 2; }
    case $1 in
        --data) data=$2 ;; --judge) judge=$2 ;; --minutes) minutes=$2 ;; --budget) budget=$2 ;;
        --work) work=$2 ;; --from) from=$2 ;; --to) to=$2 ;;
        --rehearse) rehearse=yes; shift; continue ;;
        *) echo "$0: there is no option $1: see the head of the file" >&2; exit 2 ;;
    esac
    shift 2
done
[ -n "$data" ] && [ -n "$judge" ] || { echo "$0: give --data and --judge: see the head of the file" >&2; exit 2; }

python=${PYTHON:-python3}
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
say() { echo "[$(((SECONDS - began) / 60)) min] $*"; }
failed="" # the exit code of the command that failed; what is done by then is carried all the same
fail() {
    [ -z "$failed" ] || exit "$failed"
    failed=$1
    [ -z "$to" ] || carry
    exit "$failed"
}
edge() { "$python" -m rdd_edge "$@" || fail $?; }

if [ -n "$rehearse" ] && [ -z "$minutes" ]; then # three machines: each has what the one before it has left to carry
    [ ! -e "$work" ] || { echo "$0: $work is there already: choose another --work to rehearse in" >&2; exit 2; }
    for call in "1 0" "2 0.3" "3 100000"; do
        set -- $call
        carried=()
        [ "$1" = 1 ] || carried=(--from "$work-carried-$(($1 - 1))")
        "$0" --rehearse --data "$data" --judge "$judge" --work "$work" --minutes "$2" \
            "${carried[@]}" --to "$work-carried-$1"
        [ "$1" = 3 ] || mv "$work" "$work-machine-$1"
    done
    exit
fi

left() { # minutes of this call
    [ -n "$minutes" ] || { echo 100000; return; }
    awk -v all="$minutes" -v used=$((SECONDS - began)) 'BEGIN { m = all - used / 60; print (m > 0 ? m : 0) }'
}
in_time() { awk -v left="$(left)" 'BEGIN { exit !(left > 0) }'; }

# What does not depend on the machine's speed. Dropout, which a teacher of 800,000 steps needs, only slows a short one.
settings=(
    network.dropout=0
    'extractor={"name":"cifar10_densenet","architecture":"densenet","widths":[6,6,6,6],"growth":24,"stem":48}'
    extractor_training.batch=256
    teacher.batch=512 teacher.rate=5e-4 teacher.warmup=500 teacher.cosine=true teacher.ema=0.9995
    first_steps=64 pd.batch=512 pd.rate=1e-4 pd_late=false
    distillation.batch=512 distillation.rate=1e-4
    compute.device_noise=true
)
samples=10000 teacher_steps=64 measured=30
if [ -n "$rehearse" ]; then
    settings=(
        network.channels='[16,32]' network.attention='[]' network.blocks=1 network.groups=8 network.dropout=0
        'extractor={"name":"tiny","architecture":"densenet","widths":[1,1,1],"growth":4,"stem":8}'
        extractor_training.batch=256 teacher.batch=16 teacher.rate=1e-3 teacher.warmup=5 teacher.cosine=true
        teacher.ema=0.9 first_steps=16 pd.batch=8 pd.rate=1e-4 pd_late=false distillation.batch=8
        distillation.rate=1e-4 memory.capacity=64 memory.draw=16 compute.device_noise=true
    )
    samples=100 teacher_steps=16 measured=2 budget=0.4
fi
flags() { for setting in "$@"; do printf -- '--set\0%s\0' "$setting"; done; }

measure() { # Writes WORK/settings: how many steps of each stage fit into its share of the budget.
    say "measuring a step of each stage"
    mapfile -d '' -t given < <(flags "${settings[@]}")
    "$python" "$here/benchmarks/train_step.py" --preset cifar10-edge "${given[@]}" --steps "$measured" \
        --stage extractor --stage teacher --stage pd --stage rcfd --stage rdd --json "$work/results/speed.json" ||
        fail $?
    "$python" - "$work/results/speed.json" "$budget" "${settings[@]}" > "$work/settings.new" <<'PYTHON' || fail $?
import json, sys

path, budget, *settings = sys.argv[1:]
step = {name: found["step_seconds"] for name, found in json.load(open(path))["stages"].items()}
told = dict(setting.split("=", 1) for setting in settings)
seconds = 60 * float(budget)
epoch = step["extractor"] * 45_000 / int(told["extractor_training.batch"])
folds = (int(told["first_steps"]) // 8).bit_length() - 1
counts = {
    "extractor_training.epochs": min(60, 0.08 * seconds / epoch),
    "teacher.steps": 0.52 * seconds / step["teacher"],
    "pd.steps": 0.10 * seconds / (folds * step["pd"]),
    "distillation.steps": 0.30 * seconds / (3 * (step["pd"] + step["rcfd"] + step["rdd"])),
}
print("\n".join([*settings, *(f"{name}={max(1, int(count))}" for name, count in counts.items())]))
PYTHON
    mv "$work/settings.new" "$work/settings"
}

train() { # train NAME [OPTION…]: true where the run has its one-step student
    local out=$work/$1
    shift
    mapfile -t lines < "$work/settings"
    mapfile -d '' -t given < <(flags "${lines[@]}")
    [ -d "$out/student-1" ] || edge distill --preset cifar10-edge --data "$data" "${given[@]}" "$@" \
        --out "$out" --save-seconds 120 --max-minutes "$(left)"
    [ -d "$out/student-1" ]
}

measured_as() { # measured_as NAME CHECKPOINT [STEPS]: the distance and the grid of one checkpoint
    local out=$work/results/$1 steps=(${3:+--steps "$3"})
    [ -f "$out.json" ] && return
    edge sample "$2" --n 64 --seed 0 "${steps[@]}" --out "$out.png"
    edge evaluate "$2" --n "$samples" --seed 0 "${steps[@]}" --data "$data" --extractor "$judge" --out "$out.json"
}

chain() { # The teacher and the students of the RDD run, and the model.
    local run=$work/run
    measured_as teacher "$run/teacher" "$teacher_steps" && in_time || return 1
    for steps in 8 4 2 1; do
        measured_as "rdd-$steps" "$run/student-$steps" && in_time || return 1
    done
    local inception=(${RDD_EDGE_INCEPTION:+--extractor inception})
    [ -d "$work/cifar10-edge" ] || edge pack "$run" --name cifar10-edge --out "$work/cifar10-edge" --n "$samples" \
        --data "$data" --extractor "$judge" "${inception[@]}"
    touch "$work/results/chain"
}

everything() { # true where nothing is left to do
    [ -f "$work/settings" ] || measure
    if [ ! -f "$work/results/chain" ]; then
        train run && in_time && chain || return 1
    fi
    for rival in rcfd pd; do
        [ -f "$work/results/$rival-1.json" ] && continue
        in_time && train "$rival" --method "$rival" --start-from "$work/run" && measured_as "$rival-1" "$work/$rival" ||
            return 1
    done
}

summary() { # Each figure, and the three comparisons that matter, as results/summary.md
    "$python" - "$work/results" <<'PYTHON' || fail $?
import json, pathlib, sys

folder = pathlib.Path(sys.argv[1])
names = ("teacher", "rdd-8", "rdd-4", "rdd-2", "rdd-1", "rcfd-1", "pd-1")
found = {name: json.loads((folder / f"{name}.json").read_text()) for name in names}
fd = {name: value["rows"][0]["distance"] for name, value in found.items()}
first = found["teacher"]
lines = [
    f"{first['metric']}, {first['samples']} samples of seed {first['seed']}; real against real {first['floor']:.3f}",
    "",
    "| | steps | distance |",
    "|---|---:|---:|",
    *(f"| {name} | {value['rows'][0]['steps']} | {fd[name]:.3f} |" for name, value in found.items()),
    "",
    f"8 steps over the teacher's: {fd['rdd-8'] / fd['teacher']:.2f}",
    f"one step over 8: {fd['rdd-1'] / fd['rdd-8']:.2f}",
    f"RDD over PD, one step: {fd['rdd-1'] / fd['pd-1']:.2f}; RDD over RCFD: {fd['rdd-1'] / fd['rcfd-1']:.2f}",
]
for name, value in json.loads((folder / "speed.json").read_text())["stages"].items():
    rate, part = value["images_per_second"], value["fraction_of_peak"]
    lines.append(f"{name}: {rate:.0f} images/s, {part:.1%} of the measured matrix peak")
(folder / "summary.md").write_text("\n".join(lines) + "\n")
print("\n".join(lines))
PYTHON
}

carry() { # Into --to: of a finished chain what its rivals start from, of an unfinished one what continuing it takes.
    local beside
    beside=$(mktemp -d)
    mkdir -p "$to" "$beside/work"
    cp -r "$work/results" "$work/settings" "$beside/work/"
    [ ! -d "$work/cifar10-edge" ] || cp -r "$work/cifar10-edge" "$beside/work/"
    if [ -f "$work/run/run.json" ]; then
        edge compact "$work/run" --out "$beside/work/run"
        [ ! -f "$work/results/chain" ] || rm -r "$beside/work/run"/student-[421]
    fi
    rm -f "$to"/part.*
    tar c -C "$beside/work" . | split -b 15000000 -d -a 3 - "$to/part."
    rm -r "$beside"
    say "to be carried: $(cat "$to"/part.* | wc -c) bytes in $(ls "$to" | wc -l) files"
}

{ # read whole before it runs, so that the file may change meanwhile
    if [ -n "$from" ] && [ ! -e "$from/part.000" ]; then
        echo "$0: $from holds no part.000: --from takes the folder that --to has filled" >&2
        exit 3
    fi
    mkdir -p "$work/results"
    if [ -n "$from" ] && [ ! -f "$work/settings" ]; then
        cat "$from"/part.* | tar x -C "$work"
        say "continuing what lies in $from"
    fi
    if everything; then
        summary
        [ -z "$to" ] || carry
        say "finished: $work/results and $work/cifar10-edge"
    else
        [ -z "$to" ] || carry
        say "not finished: the same command continues it"
    fi
    exit
}
