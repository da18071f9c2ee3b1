"""A real Slurm cluster of virtual nodes for tests (slurm_up.sh): submitting, waiting, reading what jobs print."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
from program import *

SCRIPTS = os.path.join(SOURCE, "slurm")
SLURM_UP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "slurm_up.sh")
OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE"}

# Long enough to be interrupted: a few seconds on two ranks.
LONG = dict(TINY, max_steps=150, save_strategy="steps", save_steps=10, eval_strategy="steps", eval_steps=75,
            hidden_dropout_prob=0.1)

def what_is_missing():
    """What a virtual cluster needs and this machine does not have; None if nothing."""
    if SANITIZED:
        return "a sanitized build is too slow for Slurm's time limits"
    if os.geteuid() != 0:
        return "virtual nodes need root"
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    for name in ["slurmctld", "slurmd", "sbatch", "srun", "munged", "ip", "unshare", "nsenter", "mpirun"]:
        if not shutil.which(name, path=path):
            return name + " is not installed"
    trial = subprocess.run(["unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "true"],
                           capture_output=True, text=True)
    return "no namespaces: " + trial.stderr.strip() if trial.returncode else None

def main():
    missing = what_is_missing()
    if missing:
        print("skipped: " + missing)
        sys.exit(77)
    unittest.main(verbosity=2)

def wait_until(condition, seconds, what):
    limit = time.time() + seconds
    while not condition():
        if time.time() > limit:
            raise AssertionError("not within %d s: %s" % (seconds, what))
        time.sleep(0.1)

class SlurmTest(ProgramTest):
    """Each class has a cluster of its own; each test a directory that every node and every user sees."""
    SETTINGS = {"NODES": "2"}

    @classmethod
    def slurm_up(cls, command, *words):
        done = subprocess.run(["bash", SLURM_UP, command, cls.cluster] + list(words), text=True, capture_output=True,
                              env=dict(os.environ, **cls.SETTINGS), stdin=subprocess.DEVNULL, timeout=60)
        if done.returncode:
            raise AssertionError("slurm_up.sh %s: %s" % (command, done.stderr))
        return done.stdout

    @classmethod
    def setUpClass(cls):
        cls.cluster = tempfile.mkdtemp(prefix="fb3-slurm-")
        cls.addClassCleanup(shutil.rmtree, cls.cluster, ignore_errors=True)
        cls.addClassCleanup(cls.slurm_up, "down")
        cls.slurm_up("up")
        with open(os.path.join(cls.cluster, "env")) as lines:
            cls.variables = dict(line.rstrip("\n").split("=", 1) for line in lines)
        cls.variables["PATH"] = os.path.join(cls.cluster, "bin") + ":" + os.environ["PATH"]

    def setUp(self):
        super().setUp()
        os.chmod(self.folder, 0o755)

    def slurm(self, *words, code=0, **variables):
        """A Slurm command as on a login node."""
        env = environment(FB3_DIST=PROGRAM, **self.variables)
        env.update(variables)
        done = subprocess.run([str(w) for w in words], cwd=self.folder, env=env, text=True, capture_output=True,
                              stdin=subprocess.DEVNULL, timeout=60)
        if code is not None and done.returncode != code:
            raise AssertionError("exit %d: %s\n%s%s" % (done.returncode, words, done.stdout, done.stderr))
        return done.stdout

    def submit(self, script, *words, sbatch=(), variables={}, **options):
        """sbatch; the job's number. A script without a folder is one of slurm/."""
        path = os.path.join(SCRIPTS, script)
        log = self.path("%A_%a.log" if any("--array" in w for w in sbatch) else "%j.log")
        return self.slurm("sbatch", "--parsable", "--output=" + log, *sbatch, path, *words, *arguments(options),
                          **variables).strip()

    def jobs(self, job):
        """Slurm's record of a job, or one for each task of an array."""
        lines = self.slurm("scontrol", "show", "job", "-o", job).splitlines()
        return [dict(w.split("=", 1) for w in line.split() if "=" in w) for line in lines if line]

    def wait(self, job, state="COMPLETED", seconds=90):
        """Waits for the end of a job and checks how it ended; its record."""
        try:
            wait_until(lambda: all(j["JobState"] in OVER for j in self.jobs(job)), seconds, "the end of job " + job)
            for record in self.jobs(job):
                self.assertEqual(record["JobState"], state)
            # the scripts' own variables do not reach the program, which would warn of each
            self.assertNotIn("is no key of fb3-dist", self.log(job))
        except AssertionError as failure:
            raise AssertionError("%s\n%s\n%s" % (failure, self.jobs(job), self.log(job)))
        return self.jobs(job)[0]

    def log(self, job):
        text = ""
        for name in sorted(os.listdir(self.folder)):
            if name == job + ".log" or name.startswith(job + "_"):
                with open(self.path(name)) as f:
                    text += f.read()
        return text

    def wait_for_step(self, run_directory, step, fold=0):
        wait_until(lambda: steps_done(run_directory, fold) >= step, 60, "step %d of %s" % (step, run_directory))

    def assertSameTable(self, a, b, name="oof.csv"):
        with open(os.path.join(a, name)) as one, open(os.path.join(b, name)) as two:
            self.assertEqual(one.read(), two.read())
