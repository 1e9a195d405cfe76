"""Commands in this process, in one of its own or in several, and scripts that ask the Hub."""

import json
import os
import subprocess
import sys
import time

import warm
from places import SUPPORT

# What may happen to a request, as `hub_server.Fault` has it.
FAULTS = {
    "500": {"status": 500},
    "429": {"status": 429, "headers": {"Retry-After": "1"}},
    "dropped": {"drop": "before"},
    "cut": {"drop": "middle"},
    "unanswered": {"drop": "after"},
    "killed": {"drop": "before", "killed": True},
    "killed after": {"drop": "after", "killed": True},
}


def fmrgen(*arguments, launcher=("-m", "fmrgen"), cwd=None, fresh=False, **environment):
    """Runs the command in a process of its own; returns it with stdout and stderr.

    It is a new interpreter under a launcher, and where it has to be `fresh`: what is imported may differ.
    """
    env = {**os.environ, "COLUMNS": "120", **environment}
    command = [*launcher, *map(str, arguments)]
    if not fresh and (launcher[0] == "-c" or launcher == ("-m", "fmrgen")):
        return warm.run(command, env, timeout=300, cwd=cwd)
    return subprocess.run([sys.executable, *command], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def succeeded(*arguments, **options):
    """Runs it, and it ends well."""
    done = fmrgen(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done


def refused(*arguments, told, **options):
    """Runs it, and it ends with one line, which has `told`; returns that line."""
    done = fmrgen(*arguments, **options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert told in done.stderr
    return done.stderr


def launched(count, *arguments, **environment):
    """Runs the command in `count` processes of one launch, started without a launcher; returns each, by rank."""
    env = {**os.environ, "COLUMNS": "120", **environment}
    return warm.launch(count, ["-m", "fmrgen", *map(str, arguments)], env, timeout=300)


def python(hub, script, *arguments, **environment):
    """Runs a script that asks the Hub, in a process of its own; returns what it printed."""
    done = warm.run(["-c", script, *map(str, arguments)], {**os.environ, **hub.environment, **environment}, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def push(hub, *arguments, **environment):
    """Pushes to the Hub, in a process of its own."""
    return fmrgen("push", *arguments, **{**hub.environment, **environment})


def pushed(hub, *arguments, **environment):
    """A push that succeeds."""
    result = push(hub, *arguments, **environment)
    assert result.returncode == 0, result.stderr
    return result


def push_refused(message, hub, *arguments, **environment):
    """A push that ends in one line, which has the message in it; returns that line."""
    return refused("push", *arguments, told=message, **{**hub.environment, **environment})


def run(*arguments):
    """Runs the command in this process; returns its exit status."""
    from fmrgen.cli.app import main

    try:
        main(list(map(str, arguments)))
    except SystemExit as end:
        return end.code


def run_jobs(hub, tmp_path, jobs):
    """Runs the jobs of `command_driver`; returns the calls of each."""
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    drive = "import sys, command_driver; command_driver.drive(sys.argv[1])"
    return json.loads(python(hub, drive, tmp_path / "jobs.json", PYTHONPATH=str(SUPPORT)))


def upload(hub, folder, repo, **environment):
    """Uploads a folder as it is with the Hub's own client; returns the commit."""
    script = (
        "import sys; from huggingface_hub import HfApi; api = HfApi();"
        "api.create_repo(sys.argv[2], repo_type='dataset', exist_ok=True);"
        "print(api.upload_folder(repo_id=sys.argv[2], repo_type='dataset', folder_path=sys.argv[1]).oid)"
    )
    return python(hub, script, folder, repo, **environment)


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
