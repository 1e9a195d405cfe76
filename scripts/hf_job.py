# /// script
# requires-python = ">=3.11"
# dependencies = ["fmrgen"]
# ///
"""Makes a perturbed split in a job of Hugging Face, and goes on after every restart.

With a bucket as the folder, which outlives the job:

    hf jobs uv run --flavor a10g-large --timeout 6h --secrets HF_TOKEN -v hf://buckets/you/fmr:/out \
        scripts/hf_job.py imagenet-resnet50 --output /out --push you/imagenet-perturbed

With a dataset repo that keeps the state in a branch of its own:

    hf jobs uv run --flavor a10g-large --timeout 6h --secrets HF_TOKEN \
        scripts/hf_job.py imagenet-resnet50 --output /tmp/out --state you/fmr-state --push you/imagenet-perturbed

Run the same command again when it has ended early: finished shards are kept. All other arguments are those of
`fmrgen generate`.
"""

import argparse
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

BRANCH = "state"
ATTEMPTS, PAUSE = 5, 30  # seconds, to keep the last state


def fetch(repo: str, output: Path) -> None:
    """Brings the state of an earlier job, where there is one."""
    try:
        snapshot_download(repo, repo_type="dataset", revision=BRANCH, local_dir=output)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        print(f"{repo}: no earlier state; beginning", flush=True)


def keep(repo: str, output: Path) -> None:
    """Sends what is finished so far; what is there already is not sent again."""
    api = HfApi()
    api.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
    api.create_branch(repo, branch=BRANCH, repo_type="dataset", exist_ok=True)
    hidden = [".*", "**/.*", ".*/**"]  # locks, temporary files, and what the client notes down
    api.upload_folder(
        repo_id=repo, repo_type="dataset", revision=BRANCH, folder_path=output, ignore_patterns=hidden,
        commit_message="State of a job",
    )  # fmt: skip


def main() -> int:
    """Fetches, generates, and keeps the state all the while, and once more where a signal ends the job; returns its
    exit status.
    """
    parser = argparse.ArgumentParser(description="fmrgen generate, in a job that may be restarted", allow_abbrev=False)
    parser.add_argument("recipe")
    parser.add_argument("-o", "--output", type=Path, default=Path("/tmp/out"))
    parser.add_argument("--state", metavar="REPO", help="keep unfinished work in this dataset repo")
    parser.add_argument(
        "--every", type=float, default=600, metavar="S", help="seconds between two commits of the state"
    )
    known, others = parser.parse_known_args()
    if known.state:
        fetch(known.state, known.output)
    command = [sys.executable, "-m", "fmrgen", "generate", known.recipe, "--output", str(known.output), *others]
    ended = threading.Event()

    def try_to_keep() -> bool:
        try:
            if known.output.is_dir():
                keep(known.state, known.output)
            return True
        except Exception as error:  # the next time it may work, and the job goes on meanwhile
            print(f"{known.state}: not kept this time: {error}", file=sys.stderr, flush=True)
            return False

    def keep_now_and_then() -> None:
        while not ended.wait(known.every):
            try_to_keep()

    keeper = threading.Thread(target=keep_now_and_then, daemon=True)
    if known.state:
        keeper.start()
    job = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGINT):  # what a container gets whose machine is taken away
        signal.signal(number, lambda number, frame: job.send_signal(number))
    status = job.wait()
    status = 128 - status if status < 0 else status
    ended.set()
    if known.state:
        keeper.join()
        if not any(try_to_keep() or time.sleep(PAUSE) for _ in range(ATTEMPTS)):
            return status or 1
    return status


if __name__ == "__main__":
    sys.exit(main())
