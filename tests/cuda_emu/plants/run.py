#!/usr/bin/env python3
"""Tests the emulator: every planted bug of plants.tsv must be found by the modes that claim to, in the words that they
claim; the same programs without bugs must pass in every mode and schedule.

    run.py [build folder]        (default: a folder beside the sources' build, under /tmp)

Builds one library of all plants for each flavour, once; a plant is chosen when it runs. Exits 77 where a compiler that
some modes need is missing: these modes are left out by name, the others are tested all the same.
"""
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from glob import glob

HERE = os.path.dirname(os.path.abspath(__file__))
EMULATOR = os.path.join(HERE, "..", "emulator")
NVCC_HEADERS = os.path.join(HERE, "..", "..", "..", "src", "backend", "cuda", "nvcc")
CUDA = os.environ.get("CUDA_HOME", "/usr/local/cuda")
SOURCES = ["sync.cu", "memory.cu", "streams.cu"]
COMMON = ["-std=c++17", "-fPIC", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-I" + EMULATOR,
          "-isystem", CUDA + "/include"]
SANITIZE = ["-fsanitize=address,bounds,alignment", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
CHECK = ["-fsanitize=thread,bounds", "-fno-sanitize-recover=all", "-mllvm", "-tsan-instrument-func-entry-exit=0",
         "-mllvm", "-tsan-instrument-atomics=0"]
# flavour: compiler, options of everything, further options of kernels, of the emulator, of the link
FLAVOURS = {
    "fast": ("g++", ["-O2", "-g1"], [], [], []),
    "asan": ("g++", ["-O1", "-g"], SANITIZE, SANITIZE, SANITIZE),
    "check": ("clang++", ["-g", "-DCUDAEMU_CHECK"], ["-O1"] + CHECK, ["-O2"],
              ["-Wl,--wrap=memcpy,--wrap=memset,--wrap=memmove"]),
}
MODES = ["fast", "asan", "check", "ptx"]
SEEDS = 4  # of the modes whose verdict depends on the schedule
TIME_LIMIT = 60


def newest(paths):
    return max(os.path.getmtime(p) for p in paths)


def build_all(folder):
    """Compiles what is out of date, two at a time. Returns the modes that cannot run, with the reason."""
    os.makedirs(folder, exist_ok=True)
    missing = {}
    jobs, links = [], []
    headers = glob(EMULATOR + "/*.h") + [HERE + "/plants.h"]
    with open(EMULATOR + "/sources.txt") as file:
        runtime = [os.path.join(EMULATOR, line.strip()) for line in file if line.strip()]
    for flavour, (compiler, options, kernels, emulator, link) in FLAVOURS.items():
        if not shutil.which(compiler):
            missing[flavour] = compiler + " is not installed"
            continue
        objects = []
        for source in [os.path.join(HERE, s) for s in SOURCES] + runtime:
            target = os.path.join(folder, "%s-%s.o" % (flavour, os.path.basename(source)))
            objects.append(target)
            if os.path.exists(target) and os.path.getmtime(target) > newest(headers + [source]):
                continue
            more = kernels if source.endswith(".cu") else emulator
            jobs.append([compiler] + COMMON + options + more + ["-x", "c++", "-c", source, "-o", target])
        library = os.path.join(folder, "libplants_%s.so" % flavour)
        links.append([compiler, "-shared", "-Wl,-z,defs"] + link + objects + ["-o", library, "-ldl", "-lpthread", "-lm"])
    if shutil.which("nvcc"):
        for source in SOURCES:
            target = os.path.join(folder, "ptx", source + ".ptx")
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if not os.path.exists(target) or os.path.getmtime(target) < newest([os.path.join(HERE, source)] + headers):
                jobs.append(["nvcc", "-std=c++17", "-O3", "-arch=sm_80", "-ptx", "-I" + NVCC_HEADERS, "-I" + HERE,
                             os.path.join(HERE, source), "-o", target])
    else:
        missing["ptx"] = "nvcc is not installed"
    jobs.append(["gcc", "-O1", os.path.join(HERE, "host.c"), "-o", os.path.join(folder, "plant_host"), "-ldl"])
    with ThreadPoolExecutor(2) as pool:
        for group in (jobs, links):
            for job, done in zip(group, pool.map(lambda j: subprocess.run(j, capture_output=True, text=True), group)):
                if done.returncode != 0:
                    sys.exit("%s\n%s" % (" ".join(job), done.stderr[-4000:]))
    return missing


def run(folder, mode, plant, bug, **more):
    """What a program says, and its status."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("CUDAEMU_")}
    flavour = "fast" if mode == "ptx" else mode
    if mode == "ptx":
        own = os.path.join(HERE, plant + ".ptx")
        env["CUDAEMU_PTX"] = own if bug and os.path.exists(own) else os.path.join(folder, "ptx")
    if mode == "asan":
        env["LD_PRELOAD"] = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
        env["ASAN_OPTIONS"] = "detect_leaks=0"
    env.update(more)
    command = [os.path.join(folder, "plant_host"), os.path.join(folder, "libplants_%s.so" % flavour), plant, str(bug)]
    try:
        done = subprocess.run(command, env=env, capture_output=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return "TIME LIMIT", 124
    return (done.stdout + done.stderr).decode(errors="replace"), done.returncode


VERDICTS = re.compile(r"==cudaemu== (?:ERROR: )?.*|.*runtime error: .*|.*AddressSanitizer: .*|WRONG RESULT.*|REFUSED.*|TIME LIMIT")


def verdict(text, status):
    """The line that says what was found, or "-"."""
    if status == 0:
        return "-"
    found = VERDICTS.search(text)
    return found.group(0).strip() if found else "status %d: %s" % (status, text.strip()[-100:])


def plant_verdict(folder, mode, plant, wanted):
    """In the modes that depend on the schedule, of the first seed that shows anything, or what is wanted."""
    best = "-"
    for seed in range(1, SEEDS + 1):
        text, status = run(folder, mode, plant, 1, CUDAEMU_SEED=str(seed))
        said = verdict(text, status)
        if said != "-" and (best == "-" or (wanted and re.search(wanted, text))):
            best = said
        if status != 0 and (not wanted or re.search(wanted, text)):
            return said, True
        if mode in ("check", "asan") and status != 0:
            break
    return best, False


# What is not a plant: settings, and what a program sees of them.
SETTINGS = [
    ({}, r"count 1, cudaSuccess\nemulated device, capability 9\.0, 8192 MiB, bus 0000:10:00\.0, shared 232448"),
    ({"CUDAEMU_DRIVER": "0"}, r"driver 0, count -7, cudaErrorInsufficientDriver"),
    ({"CUDAEMU_DRIVER": "11080"}, r"driver 11080, count -7, cudaErrorInsufficientDriver"),
    ({"CUDAEMU_DEVICES": "0"}, r"count -7, cudaErrorNoDevice"),
    ({"CUDAEMU_DEVICES": "4", "CUDAEMU_CAPABILITY": "8.0", "CUDAEMU_MEMORY": "2G"},
     r"count 4, cudaSuccess\nemulated device, capability 8\.0, 2048 MiB, bus 0000:13:00\.0, shared 166912"),
]


def test_settings(folder):
    failures = 0
    for settings, expected in SETTINGS:
        text, _ = run(folder, "fast", "describe_device", 0, **settings)
        if not re.search(expected, text):
            failures += 1
            print("FAIL: with %s the device says: %s" % (settings, text.strip()))
    print("settings: %d of %d as they should be" % (len(SETTINGS) - failures, len(SETTINGS)))
    return failures


def test_counts(folder, modes):
    """Of the kernel that copies N floats: exact numbers."""
    failures = 0
    for mode in modes:
        path = os.path.join(folder, "stats-%s.tsv" % mode)
        run(folder, mode, "misaligned_vector", 0, CUDAEMU_STATS=path)
        run(folder, mode, "wrong_mma_layout", 0, CUDAEMU_STATS=path + ".mma")
        rows = {}
        for p in (path, path + ".mma"):
            with open(p) as file:
                names = file.readline().rstrip("\n").split("\t")
                for line in file:
                    values = line.rstrip("\n").split("\t")
                    rows[values[0]] = dict(zip(names[1:], map(int, values[1:])))
        copy, product = rows["vector_copy"], rows["product"]
        memory = {"global_read": 1008, "global_written": 1008, "unique_read": 1008, "unique_written": 1008}
        wanted = [(copy, {"launches": 1, "blocks": 1, "threads": 63}),
                  (product, {"mma": 1, "ldmatrix": 1, "block_barriers": 1})]
        if mode in ("check", "ptx"):
            wanted += [(copy, memory), (product, {"shared_written": 512, "shared_read": 512, "unique_written": 512})]
        else:
            wanted += [(copy, dict.fromkeys(memory, -1))]
        for row, numbers in wanted:
            for name, number in numbers.items():
                if row[name] != number:
                    failures += 1
                    print("FAIL: %s mode counts %s %d, not %d" % (mode, name, row[name], number))
    print("counts: %s" % ("right" if failures == 0 else "%d wrong" % failures))
    return failures


def test_clean(folder, modes):
    failures = 0
    schedules = [{"CUDAEMU_ORDER": "seq"}, {"CUDAEMU_ORDER": "rev"}, {"CUDAEMU_LAZY": "0"}]
    schedules += [{"CUDAEMU_SEED": str(seed)} for seed in range(1, SEEDS + 1)]
    jobs = [(mode, s) for mode in modes for s in schedules]
    with ThreadPoolExecutor(2) as pool:
        for (mode, s), (text, status) in zip(jobs, pool.map(lambda j: run(folder, j[0], "all", 0, **j[1]), jobs)):
            if status != 0 or "==cudaemu==" in text:
                failures += 1
                print("FAIL: without bugs, %s %s: status %d\n%s" % (mode, s, status, text[-1500:]))
    print("without bugs: %d of %d runs pass (%s; %d schedules)" % (len(jobs) - failures, len(jobs), ", ".join(modes),
                                                                  len(schedules)))
    return failures


def test_plants(folder, modes):
    failures, kinds, unseen = 0, 0, []
    with open(os.path.join(HERE, "plants.tsv")) as file:
        rows = [line.rstrip("\n").split("\t") for line in file if line.strip() and not line.startswith("#")]
    jobs = []
    for row in rows:
        claims = dict(claim.split("=", 1) for claim in row[1:])
        jobs += [(row[0], mode, claims.get(mode)) for mode in modes]
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(lambda j: plant_verdict(folder, j[1], j[0], j[2]), jobs))
    print("\n%-32s | %-30s | %-36s | %-36s | %s" % (("plant",) + tuple("%s" % m for m in MODES)))
    for row in rows:
        cells, caught = [], False
        for mode in MODES:
            if mode not in modes:
                cells.append("(not run)")
                continue
            index = [i for i, j in enumerate(jobs) if j[0] == row[0] and j[1] == mode][0]
            (said, right), wanted = verdicts[index], jobs[index][2]
            said = re.sub(r"==cudaemu== (ERROR: )?|^.*(runtime error|ERROR: AddressSanitizer): |^REFUSED: .*: ", "", said)
            said = re.sub(r"^/\S*/|^\S*:\d+: | on (address|unknown).*| \(pc.*|: \d+-byte.*| at 0x.*", "", said)
            caught = caught or (wanted is not None and right)
            if wanted is not None and not right:
                failures += 1
                print("FAIL: %s in %s mode: claimed /%s/, got %s" % (row[0], mode, wanted, said))
            cells.append(("" if wanted is not None or said == "-" else "~ ") + said)
        kinds += caught
        if not caught:
            unseen.append(row[0])
        print("%-32s | %-30.30s | %-36.36s | %-36.36s | %.60s" % ((row[0],) + tuple(cells)))
    print("\n%d kinds of bugs are caught by the modes that claim to; ~: seen, but not claimed; -: not seen" % kinds)
    if unseen:
        print("caught by no mode: " + ", ".join(unseen))
    return failures


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else "/tmp/fb3-plants-%d" % os.getuid()
    missing = build_all(folder)
    modes = [m for m in MODES if m not in missing]
    for mode, why in missing.items():
        print("left out: %s: %s" % (mode, why))
    failures = test_settings(folder) + test_counts(folder, modes) + test_clean(folder, modes) + test_plants(folder, modes)
    if failures:
        sys.exit("%d failures" % failures)
    sys.exit(77 if missing else 0)


if __name__ == "__main__":
    main()
