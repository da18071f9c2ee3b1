"""Where validate.py runs things: all ranks on this machine, or each on a virtual node of its own.

A virtual node has a network, a host name, a /dev/shm and shared memory of its own; one kernel and its cores are all
nodes'. Their ranks reach each other by TCP only, over links whose rate can be limited. mpirun, on the first node, starts
the others' daemons by a remote shell that is nsenter. (The nodes of tests/slurm are made the same way, and have Slurm
besides, which this needs not.) Needs root, unshare, nsenter, ip and tc."""

import os
import shutil
import subprocess
import tempfile

TIMEOUT = 300
SUBNET = "10.78.0"
NODE = """mount -t tmpfs tmpfs /dev/shm && mount --bind %s/hosts /etc/hosts && hostname $0 && ip link set lo up &&
echo ready && exec sleep infinity"""


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
        self.links, self.processes = links, []

    def boot(self, name, script, *namespaces):
        process = subprocess.Popen(["unshare", *namespaces, "sh", "-c", script, name], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        if process.stdout.readline() != "ready\n":
            raise SystemExit("%s: no namespaces; root, unshare, ip are needed" % name)
        return process.pid

    def inside(self, pid, *command):
        subprocess.run(["nsenter", "-t", str(pid), "-n", *command], check=True)

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="fb3-nodes-")
        try:
            self.make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def make(self):
        numbers = range(1, self.NODES + 1)
        with open(os.path.join(self.folder, "hosts"), "w") as hosts:
            hosts.writelines(["127.0.0.1 localhost\n"] + ["%s.%d node%d\n" % (SUBNET, n, n) for n in numbers])
        switch = self.boot("switch", "ip link add br0 type bridge && ip link set br0 up && echo ready && exec sleep infinity", "--net")
        self.pids = {}
        for n in numbers:
            pid = self.pids["node%d" % n] = self.boot("node%d" % n, NODE % self.folder, "--net", "--uts", "--ipc", "--mount")
            self.inside(switch, "ip", "link", "add", "port%d" % n, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
            self.inside(switch, "ip", "link", "set", "port%d" % n, "master", "br0", "up")
            self.inside(pid, "ip", "addr", "add", "%s.%d/24" % (SUBNET, n), "dev", "eth0")
            self.inside(pid, "ip", "link", "set", "eth0", "up")
        self.shell = os.path.join(self.folder, "shell")
        with open(self.shell, "w") as file:
            file.write("#!/bin/sh\ncase $1 in\n")
            file.writelines("%s) pid=%d ;;\n" % item for item in self.pids.items())
            file.write("esac\nshift\nexec nsenter -t $pid -n -u -i -m -- sh -c \"$*\"\n")
        os.chmod(self.shell, 0o755)

    def __exit__(self, *_):
        for process in self.processes:  # the namespaces go with them
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def limit(self, link):
        """Of what a node sends."""
        for pid in self.pids.values():
            subprocess.run(["nsenter", "-t", str(pid), "-n", "tc", "qdisc", "delete", "dev", "eth0", "root"], stderr=subprocess.DEVNULL)
            if link != "free":
                self.inside(pid, "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", link, "burst", "256kb", "latency", "50ms")

    def run(self, ranks, command, folder):
        # cores are not the nodes' own: no binding, and who waits gives his core away
        settings = {"plm_rsh_agent": self.shell, "orte_tmpdir_base": "/dev/shm", "hwloc_base_binding_policy": "none",
                    "mpi_yield_when_idle": "1", "orte_keep_fqdn_hostnames": "0"}
        hosts = ",".join("node%d" % n for n in range(1, ranks + 1))
        return finish(start(["nsenter", "-t", str(self.pids["node1"]), "-n", "-u", "-i", "-m", "--", "mpirun", "--host", hosts, "-np",
                             str(ranks), "--wdir", folder] + [w for k, v in settings.items() for w in ("--mca", k, v)] + command, folder))
