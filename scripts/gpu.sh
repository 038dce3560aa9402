#!/usr/bin/env bash
# What a GPU's owner types first: bash scripts/gpu.sh [pytest's arguments]
# Two minutes of tests, and steps that take a T4 at least 2.3 minutes by arithmetic: the line of steps below with --minutes for --every FILE.
# Says what the device is; compares every method with the CPU within the tolerances that tests/trainers/test_gpu.py names; and measures a step of
# every trainer on random weights of ViT-B/16 in fp32, amp and fp16: milliseconds, memory and share of the GPU's peak, as a table for
# docs/performance.md and as output/gpu.csv, from which run.py --plan and scripts/paper.sh --plan say how many hours their trainings take.
# Without a GPU all of it runs on a pretended one with a tiny CLIP: this shows that it works, and measures nothing.
source "$(dirname "$0")/setup.sh"
set_up demo test
device="$(python -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")')"
if [ -n "$device" ]; then
    echo "Device: $device"
    steps=(--shape ViT-B/16 --classes 50 500 --every output/gpu.csv)
else
    echo "Device: none that torch sees ($(python -c 'import torch; print("torch", torch.__version__)')). The tests and the steps run on a pretended GPU: their times and memory are the CPU's"
    steps=(--shape smallest --classes 3 --batch 2 --rounds 1 --every output/pretended_gpu.csv)
fi
code=0
python -m pytest -q -m gpu tests/trainers/test_gpu.py "$@" || code=$?
python -m experiments.benchmarks.step "${steps[@]}" || code=$?
exit "$code"
