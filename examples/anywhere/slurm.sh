#!/bin/bash
# Four nodes share a split; each task begins when it gets its node, and a preempted one is queued again.
#SBATCH --job-name=fmr
#SBATCH --array=1-4
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@60
set -u
fmrgen generate imagenet-resnet50 --num-processes 8 --output "$SCRATCH/out" --log-file "$SCRATCH/out-$SLURM_ARRAY_TASK_ID.jsonl" --quiet &
job=$!
trap 'kill -TERM $job' TERM  # the shell gets the signal first
wait $job || wait $job
fmrgen verify "$SCRATCH/out" --files --quiet || scontrol requeue "$SLURM_JOB_ID"
