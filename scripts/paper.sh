#!/usr/bin/env bash
# The grid of papers on prompt learning as calls of run.py: ViT-B/16, three seeds, base-to-new and few-shot on 11 data sets, cross-data-set
# and domain generalisation from ImageNet; nine trainers everywhere, others where their authors ran them, and zero-shot CLIP.
# Costs: 4460 runs, 3306 of them trainings. OpenAI's weights, the data sets laid out as CoOp's DATASETS.md says, and a GPU. We have not run it.
# All arguments go to each call, in an environment that is active:
#   DATA=… bash scripts/paper.sh --plan                       what it consists of, what is done, and after scripts/gpu.sh how many hours are left
#   DATA=… bash scripts/paper.sh                              here, one run after the other
#   DATA=… bash scripts/paper.sh --slurm partition=gpu gpus=1 cpus-per-task=8 time=240 --shards 16
#   DATA=… bash scripts/paper.sh --shard 3/16                 the third of 16 jobs of any other scheduler
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

sets=(imagenet caltech101 oxford_pets stanford_cars oxford_flowers food101 fgvc_aircraft sun397 dtd eurosat ucf101)
trainers=(CoOp CoCoOp KgCoOp ProGrad VPT IVLP MaPLe PromptSRC CDC)
new=(TCP CoPrompt DePTCoOp DePTKgCoOp DePTMaPLe DePTPromptSRC MMA MMRL GDA ProLIP)

run() {
    python run.py --root "${DATA:-data}" --seeds 1 2 3 --dataset "${sets[@]:0:$1}" "${@:2}"
}

run 11 --protocol base2new --trainer "${trainers[@]}" "${new[@]}" "$@"
run 11 --protocol fewshot --trainer "${trainers[@]}" CLIPLoRA TipAdapter TipAdapterF LinearProbe MMRL GDA ProLIP "$@"
run 1 --protocol xd dg --trainer "${trainers[@]}" MMA MMRL ProLIP "$@"
run 1 --protocol dg --trainer GDA "$@"
run 11 --protocol zeroshot --trainer ZeroshotCLIP "$@"
