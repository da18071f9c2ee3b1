"""Running fb3-dist in tests: the sample, a temporary directory, mpirun, and readers of what it writes."""

import csv
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE = os.environ.get("FB3_SOURCE_DIR", os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
PROGRAM = os.path.join(os.environ.get("FB3_BUILD_DIR", os.path.join(SOURCE, "build")), "fb3-dist")
SAMPLE = os.path.join(SOURCE, "tests", "sample")
TRAIN, TEST = os.path.join(SAMPLE, "train.csv"), os.path.join(SAMPLE, "test.csv")
SPM = os.path.join(SAMPLE, "spm.model")
TARGETS = ["cohesion", "syntax", "vocabulary", "phraseology", "grammar", "conventions"]

# Sanitizers make the program slow, and valgrind cannot run it.
SANITIZED = os.environ.get("FB3_TEST_SANITIZED") == "1"

# Float arithmetic on the processor unless a test asks for something else: what they expect must not depend on the
# machine.
ARITHMETIC = {"FB3_BF16": "false", "FB3_DEVICE": "cpu"}

# A tiny model on a part of the sample: seconds, not minutes.
TINY = {
    "model_preset": "tiny", "init": "random", "tokenizer": SPM, "train_file": TRAIN, "folds": 2, "max_length": 64,
    "per_device_train_batch_size": 8, "total_train_batch_size": 16, "learning_rate": 1e-3, "max_steps": 6,
    "max_train_samples": 64, "max_eval_samples": 32, "train_folds": 0,
}


def environment(**extra):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("FB3_", "SLURM_", "OMPI_", "PMIX_"))}
    env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_rmaps_base_oversubscribe="1",
               ASAN_OPTIONS="detect_leaks=0", **ARITHMETIC)
    env.update(extra)
    return env


def arguments(options):
    words = []
    for key, value in options.items():
        words += ["--" + key, str(value).lower() if isinstance(value, bool) else str(value)]
    return words


def command(words, ranks=None):
    launcher = [] if ranks is None else ["mpirun", "--oversubscribe", "-np", str(ranks)]
    return launcher + [PROGRAM] + [str(w) for w in words]


def run(*words, ranks=None, code=0, cwd=None, env=None, timeout=120, **options):
    """Runs the program; fails with its output unless it exits with `code` (None: any)."""
    full = command(list(words) + arguments(options), ranks)
    done = subprocess.run(full, cwd=cwd, env=env or environment(), capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL)
    if code is not None and done.returncode != code:
        raise AssertionError("exit %d instead of %d: %s\n%s%s" % (done.returncode, code, " ".join(full), done.stdout,
                                                                  done.stderr))
    return done


def start(*words, ranks=None, cwd=None, env=None, **options):
    return subprocess.Popen(command(list(words) + arguments(options), ranks), cwd=cwd, env=env or environment(),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
                            start_new_session=True)


def cuda_devices():
    """The lines of doctor about devices: [] where CUDA cannot be used."""
    done = subprocess.run([PROGRAM, "doctor"], env=environment(), capture_output=True, text=True, timeout=60)
    return [line for line in done.stdout.splitlines() if " cuda:" in line]


def pids_of(out):
    """The processes of the program that run in the directory `out`, mpirun not counted."""
    found = []
    for pid in os.listdir("/proc"):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        if words[0] == PROGRAM.encode() and out.encode() in words:
            found.append(int(pid))
    return found


def pid_of_rank(out, rank):
    """The process of that rank of the world, of mpirun, that runs in the directory `out`."""
    for pid in pids_of(out):
        with open("/proc/%d/environ" % pid, "rb") as f:
            if b"OMPI_COMM_WORLD_RANK=%d" % rank in f.read().split(b"\0"):
                return pid
    raise AssertionError("rank %d is not there" % rank)


def kill_all(process, out):
    """kill -9 of the launcher and of every rank: mpirun's ranks are no longer in its process group. What was printed."""
    os.killpg(process.pid, signal.SIGKILL)
    while pids_of(out):
        for pid in pids_of(out):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    return process.communicate()


def events(run_directory, fold=0, kind=None):
    with open(os.path.join(run_directory, "fold-%d" % fold, "metrics.jsonl")) as log:
        every = [json.loads(line) for line in log]
    return [e for e in every if kind is None or e["event"] == kind]


def losses(run_directory, fold=0):
    return [e["loss"] for e in events(run_directory, fold, "step")]


def steps_done(run_directory, fold=0):
    """The steps that are logged; 0 as long as there is no log, or its last line is being written."""
    try:
        return len(losses(run_directory, fold))
    except (OSError, ValueError):
        return 0


def summary(run_directory):
    with open(os.path.join(run_directory, "summary.json")) as file:
        return json.load(file)


def rows(path):
    with open(path, newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


def safetensors(path):
    """name -> (dtype, shape, bytes)"""
    with open(path, "rb") as f:
        (size,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(size))
        data = f.read()
    header.pop("__metadata__", None)
    return {n: (t["dtype"], t["shape"], data[t["data_offsets"][0]:t["data_offsets"][1]]) for n, t in header.items()}


def weights_digest(checkpoint):
    """sha256 of every tensor of a checkpoint, by way of an export."""
    folder = tempfile.mkdtemp()
    try:
        out = os.path.join(folder, "export")
        run("export", checkpoint, output=out)
        tensors = safetensors(os.path.join(out, "model.safetensors"))
        return hashlib.sha256(b"".join(n.encode() + tensors[n][2] for n in sorted(tensors))).hexdigest()
    finally:
        shutil.rmtree(folder)


def fold_bits(out, fold):
    """All of a fold that depends on arithmetic: equal for two runs that did the same."""
    folder = os.path.join(out, "fold-%d" % fold)
    return (losses(out, fold), [e["eval_MCRMSE"] for e in events(out, fold, "eval")],
            weights_digest(os.path.join(folder, "best.h5")), weights_digest(os.path.join(folder, "last.h5")))


class ProgramTest(unittest.TestCase):
    """A test with a directory of its own: self.path("run")."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="fb3-test-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def assertOneLine(self, done):
        lines = done.stderr.strip().split("\n")
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertTrue(lines[0].startswith("fb3-dist: "), lines[0])
        return lines[0]
