"""Where validate.py runs things: all ranks on this machine, or each on a virtual node of its own.

The virtual nodes are those of tests/slurm/slurm_up.sh: network, host name, processes and /dev/shm of their own, one
kernel and its cores together. Their ranks reach each other by TCP only, over links whose rate can be limited."""

import os
import shutil
import subprocess
import tempfile

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SLURM_UP = os.path.join(SOURCE, "tests", "slurm", "slurm_up.sh")
TIMEOUT = 300


def environment():
    return dict(os.environ, OMP_NUM_THREADS="1", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")


def start(command, folder, env=None):
    return subprocess.Popen(command, env=env or environment(), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            stdin=subprocess.DEVNULL, text=True)


def finish(process):
    out, err = process.communicate(timeout=TIMEOUT)
    if process.returncode != 0:
        raise SystemExit("%s: %s" % (" ".join(process.args), err.strip() or out.strip()))
    return out


class Machine:
    """mpirun on this machine: shared memory."""
    name, links = "one machine, shared memory", ("memory",)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def limit(self, link):
        pass

    def run(self, ranks, command, folder):
        return finish(start(["mpirun", "--oversubscribe", "-np", str(ranks)] + command, folder))


class Nodes:
    """A rank on each of four virtual nodes."""
    name, NODES = "virtual nodes, TCP", 4

    def __init__(self, links):
        self.links = links

    def slurm_up(self, *words):
        subprocess.run(["bash", SLURM_UP, words[0], self.folder, *words[1:]], env=dict(os.environ, NODES=str(self.NODES)),
                       check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=60)

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="fb3-slurm-")
        self.slurm_up("up")
        self.variables = environment()
        with open(os.path.join(self.folder, "env")) as lines:
            self.variables.update(line.rstrip("\n").split("=", 1) for line in lines)
        return self

    def __exit__(self, *_):
        self.slurm_up("down")
        shutil.rmtree(self.folder, ignore_errors=True)

    def limit(self, link):
        for node in range(1, self.NODES + 1):
            self.slurm_up("link", "node%d" % node, link)

    def run(self, ranks, command, folder):
        return finish(start([os.path.join(self.folder, "bin", "srun"), "--mpi=pmix", "--nodes=%d" % ranks,
                             "--ntasks-per-node=1"] + command, folder, self.variables))
