# Sourced by scripts/<trainer>/base2new_{train,test}.sh and demo.sh: CoOp's base-to-new protocol, CoOp's folders.
#   DATA   folder of the data sets (data)         CFG    recipe (tiny for openmoji, else the trainer's default)
#   SHOTS  training images a class (16)           OUTPUT where the runs go (output/base2new)
# A run whose results.json exists is done and skipped; any other is begun, or resumed from its last checkpoint.

recipe() { # trainer dataset
    if [ -n "${CFG:-}" ]; then echo "$CFG"; elif [ "$2" = openmoji ]; then echo tiny; else echo vit_b16; fi
}

run_folder() { # part trainer dataset seed
    echo "${OUTPUT:-output/base2new}/$1/$3/shots_${SHOTS:-16}/$2/$(recipe "$2" "$3")/seed$4"
}

run() { # part trainer dataset seed classes [more arguments of train.py]
    local part=$1 trainer=$2 dataset=$3 seed=$4 classes=$5 folder
    shift 5
    folder=$(run_folder "$part" "$trainer" "$dataset" "$seed")
    if [ -f "$folder/results.json" ]; then
        echo "done already: $folder" >&2
        return
    fi
    # the console shows progress bars; what Dassl prints is kept in log.txt
    python train.py --root "${DATA:-data}" --seed "$seed" --trainer "$trainer" \
        --dataset-config-file "configs/datasets/$dataset.yaml" \
        --config-file "configs/trainers/$trainer/$(recipe "$trainer" "$dataset").yaml" \
        --output-dir "$folder" "$@" \
        DATASET.NUM_SHOTS "${SHOTS:-16}" DATASET.SUBSAMPLE_CLASSES "$classes" > /dev/null
}

base2new_train() { # trainer dataset seed: trains on the base classes and tests on them
    run train_base "$1" "$2" "$3" base
}

base2new_test() { # trainer dataset seed: tests the trained prompts on the new classes
    local trained
    trained=$(run_folder train_base "$1" "$2" "$3")
    if [ ! -f "$trained/results.json" ]; then
        echo "error: $trained is not trained to its end: run base2new_train.sh $2 $3 first" >&2
        return 2
    fi
    if [ "$trained/results.json" -nt "$(run_folder test_new "$1" "$2" "$3")/results.json" ]; then
        rm -f "$(run_folder test_new "$1" "$2" "$3")/results.json"  # it tested prompts that have been trained anew
    fi
    run test_new "$1" "$2" "$3" new --eval-only --model-dir "$trained"
}
