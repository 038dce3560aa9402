# Sourced by scripts/*_train.sh and *_test.sh: one stage of one protocol for one trainer, data set and seed, in CoOp's folders. Pairs KEY VALUE
# after the seed override all config files, as in CoOp's train.py: bash scripts/base2new_train.sh CoOp dtd 1 OPTIM.MAX_EPOCH 10
#   DATA   folder of the data sets (data)
#   BACKBONE  the CLIP, whose recipe is taken: ViT-B/16, RN50, tiny … (tiny for the embedded data, else ViT-B/16)
#   CFG    another recipe, by its name
#   SHOTS  training images a class (16; fewshot: "1 2 4 8 16")
#   OUTPUT where the runs go (output/<protocol>; xd and dg share output/transfer)
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

protocol() { # protocol stage trainer dataset seed [KEY VALUE …]
    local words=(protocol stage TRAINER DATASET SEED)
    if [ $# -lt 5 ]; then
        echo "error: ${words[$#]} is missing: bash $0 TRAINER DATASET SEED [KEY VALUE …]" >&2
        exit 2
    fi
    set_up demo
    # shellcheck disable=SC2086  (SHOTS may be several numbers)
    python run.py --protocol "$1" --stage "$2" --trainer "$3" --dataset "$4" --seeds "$5" \
        --root "${DATA:-data}" ${BACKBONE:+--backbone "$BACKBONE"} ${CFG:+--config "$CFG"} ${SHOTS:+--shots $SHOTS} ${OUTPUT:+--output "$OUTPUT"} ${6:+--} "${@:6}"
}
