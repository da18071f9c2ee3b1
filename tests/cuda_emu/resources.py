#!/usr/bin/env python3
"""Registers, spills and shared memory of every kernel on every architecture, by ptxas, against the committed table.

    resources.py PTX_FOLDER            compares; exits 77 where ptxas is of another version than the table's
    resources.py PTX_FOLDER --write    writes the table

PTX_FOLDER holds <arch>/<source>.ptx. With another toolkit than the table's the numbers may differ: then only the limits of
the hardware are checked, the largest differences are told, and the exit status says that the comparison was skipped.
"""
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "resources.tsv")
ARCHS = ["80", "90", "100"]
HEADER = "kernel\tarch\tregisters\tspill_bytes\tstack_bytes\tstatic_shared_bytes"
REGISTERS_MAX, SHARED_MAX = 255, 48 << 10


def ptxas_version():
    text = subprocess.run(["ptxas", "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"release \S+ V(\S+)", text).group(1)


def demangle(names):
    return subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout.split("\n")


def short(name):
    """add_norm_forward<float, 4, 6>: without return type and parameters."""
    name = re.sub(r"^void ", "", name)
    depth = 0
    for at, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            name = name[:at]
            break
    return name.replace("__nv_bfloat16", "bf16")


def read(arch, path):
    done = subprocess.run(["ptxas", "-v", "-arch=sm_" + arch, path, "-o", "/dev/null"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit("ptxas %s: %s" % (path, done.stderr[-2000:]))
    rows, name, spill, stack = [], None, 0, 0
    for line in done.stderr.splitlines():
        found = re.search(r"Compiling entry function '(\S+)'", line)
        if found:
            name, spill, stack = found.group(1), 0, 0
        found = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line)
        if found:
            stack, spill = int(found.group(1)), int(found.group(2)) + int(found.group(3))
        found = re.search(r"Used (\d+) registers", line)
        if found and name:
            shared = re.search(r"(\d+) bytes smem", line)
            rows.append((name, arch, int(found.group(1)), spill, stack, int(shared.group(1)) if shared else 0))
            name = None
    return rows


def measure(folder):
    jobs = [(arch, os.path.join(folder, arch, f)) for arch in ARCHS if os.path.isdir(os.path.join(folder, arch))
            for f in sorted(os.listdir(os.path.join(folder, arch))) if f.endswith(".ptx")]
    if not jobs:
        sys.exit("no PTX in " + folder)
    with ThreadPoolExecutor(2) as pool:
        rows = [row for found in pool.map(lambda job: read(*job), jobs) for row in found]
    names = [short(n) for n in demangle([row[0] for row in rows])]
    return {(name, row[1]): row[2:] for name, row in zip(names, rows)}


def differences(now, then):
    """One line: how many kernels need as many registers, the largest differences, and where more is spilled than then."""
    both = sorted(set(now) & set(then))
    more = {key: now[key][0] - then[key][0] for key in both}
    least, most = min(both, key=more.get), max(both, key=more.get)
    spills = ["%s on sm_%s %d (%d)" % (*key, now[key][1], then[key][1]) for key in both if now[key][1] > then[key][1]]
    return "registers: %d of %d kernels alike, %+d (%s on sm_%s) to %+d (%s on sm_%s); more bytes spilled: %s" % (
        list(more.values()).count(0), len(now), more[least], *least, more[most], *most, ", ".join(spills) or "nowhere")


def main():
    folder = sys.argv[1]
    version, now = ptxas_version(), measure(folder)
    if "--write" in sys.argv:
        with open(TABLE, "w") as table:
            table.write("# ptxas %s; written by tests/cuda_emu/resources.py --write\n%s\n" % (version, HEADER))
            for (name, arch), numbers in sorted(now.items(), key=lambda e: (e[0][0], ARCHS.index(e[0][1]))):
                table.write("\t".join([name, "sm_" + arch] + [str(n) for n in numbers]) + "\n")
        return 0
    failures = ["%s on sm_%s: %d registers, %d bytes of static shared memory" % (n, a, r[0], r[3])
                for (n, a), r in now.items() if r[0] > REGISTERS_MAX or r[3] > SHARED_MAX]
    with open(TABLE) as table:
        made_by = table.readline().split()[2].rstrip(";")
        table.readline()
        then = {}
        for line in table:
            name, arch, *numbers = line.rstrip("\n").split("\t")
            then[(name, arch[3:])] = tuple(int(n) for n in numbers)
    archs = {a for _, a in now}
    print("%d kernels on %s, ptxas %s; the table is of ptxas %s" % (len(now), ", ".join("sm_" + a for a in sorted(archs)),
                                                                  version, made_by))
    if version == made_by:
        for key in sorted(set(now) | {k for k in then if k[1] in archs}):
            if now.get(key) != then.get(key):
                failures.append("%s on sm_%s: %s, in the table %s (registers, spills, stack, shared)" %
                                (key[0], key[1], now.get(key), then.get(key)))
    for failure in failures:
        print("FAIL", failure)
    if failures:
        print("where the change is meant: tests/cuda_emu/resources.py %s --write" % folder)
        return 1
    if version != made_by:
        print(differences(now, then))
        print("skipped: the comparison with the table, which is of ptxas %s" % made_by)
        return 77
    return 0


if __name__ == "__main__":
    sys.exit(main())
