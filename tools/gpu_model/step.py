"""One step of the real program on the emulated device: runs tests/cuda_emu/one_step and reads the trace."""

import json
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass, field

# In the order of struct Counters (tests/cuda_emu/emulator/stats.h).
COUNTERS = ("launches blocks threads block_barriers warp_operations shuffles mma ldmatrix async_copies global_read "
            "global_written unique_read unique_written shared_read shared_written instructions fp32 fp32_fma fp32_special "
            "warp_instructions warp_narrow_loads warp_shared_loads warp_shared_stores").split()


@dataclass
class Launch:
    kind: str  # kernel, product, copy, fill
    name: str  # of the kernel, without namespaces
    op: str = ""  # of the backend's table
    layer: int = -1
    phase: str = ""  # forward, backward, step
    grid: tuple = ()
    threads: int = 0
    shared: int = 0
    counters: dict = field(default_factory=dict)
    numbers: tuple = ()  # of a product, copy or fill

    @property
    def base(self):
        return self.name.split("<")[0]


@dataclass
class Step:
    sizes: dict
    launches: list

    def of_layer(self, layer, phase):
        return [l for l in self.launches if l.layer == layer and l.phase == phase]


def short(name):
    return name.replace("__nv_bfloat16", "bf16")


def parse_row(row):
    fields = row.split("\t")
    if fields[0] == "kernel":
        x, y, z, threads, shared, *counters = [int(f) for f in fields[2:]]
        return Launch("kernel", short(fields[1]), grid=(x, y, z), threads=threads, shared=shared,
                      counters=dict(zip(COUNTERS, counters)))
    return Launch(fields[0], fields[0], numbers=tuple(int(f) for f in fields[1:]))


def parse(text):
    launches, waiting, phase, begun = [], [], "forward", False
    for row in text.splitlines():
        if not row.startswith("op\t"):
            waiting.append(parse_row(row))
            continue
        _, op, layer = row.split("\t")
        if op == "setup":
            begun, waiting = True, []
            continue
        if op == "loss_bwd":
            phase = "backward"
        if op == "sum_squares":
            phase = "step"
        for launch in waiting:
            if launch.kind == "copy":  # uploads and downloads are no observed operations
                launch.op, launch.layer, launch.phase = "transfer", -1, phase
            else:
                launch.op, launch.layer, launch.phase = op, int(layer), phase
        launches += waiting if begun else []
        waiting = []
    for launch in waiting:
        launch.op, launch.phase = "transfer", phase
    return launches + (waiting if begun else [])


class Emulator:
    def __init__(self, build):
        self.build = os.path.abspath(build)
        self.program = os.path.join(self.build, "tests", "one_step")

    def run(self, ptx=None, kernels="run", products="count", **shape):
        """A step of that shape: preset, layers, heads, intermediate, vocab, sequences, max_length."""
        with tempfile.TemporaryDirectory() as folder:
            trace = os.path.join(folder, "trace")
            environment = dict(os.environ, CUDAEMU_TRACE=trace, CUDAEMU_LAZY="0", CUDAEMU_KERNELS=kernels,
                               CUDAEMU_PRODUCTS=products, CUDAEMU_MEMORY="140G", CUDAEMU_ORDER="seq",
                               FB3_CUDA_LIBRARY=os.path.join(self.build, "libfb3_cuda.so"),
                               OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
            environment.pop("CUDAEMU_PTX", None)
            if ptx:
                environment["CUDAEMU_PTX"] = os.path.join(self.build, "ptx", ptx)
            command = [self.program] + ["%s=%s" % item for item in shape.items()]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                raise SystemExit("%s: %s" % (" ".join(command), done.stderr.strip()))
            with open(trace) as file:
                return Step(json.loads(done.stdout.splitlines()[-1]), parse(file.read()))


def sass_ratios(build, arch, source, kernels):
    """Instructions that ptxas made of a kernel over those of its PTX, both static: 16 bytes each in the cubin's text."""
    ptx = os.path.join(build, "ptx", arch, source + ".ptx")
    with open(ptx) as file:
        text = file.read()
    with tempfile.TemporaryDirectory() as folder:
        cubin = os.path.join(folder, "cubin")
        subprocess.run(["ptxas", "-arch=sm_" + arch, ptx, "-o", cubin], check=True, capture_output=True)
        with open(cubin, "rb") as file:
            sizes = text_sections(file.read())
    ratios = {}
    for symbol in re.findall(r"\.entry (\w+)\(", text):
        name = demangled(symbol)
        if name not in kernels:
            continue
        begin = text.index(".entry " + symbol + "(")
        body = text[begin:text.index("\n}", begin)]
        instructions = sum(1 for line in body.split("\n")
                           if line.strip().endswith(";") and not line.strip().startswith("."))
        ratios[name] = sizes[symbol] / 16 / instructions
    return ratios


def demangled(symbol):
    text = subprocess.run(["c++filt", symbol], check=True, capture_output=True, text=True).stdout.strip()
    return short(re.sub(r"^void ", "", text).split("(")[0])


def text_sections(elf):
    """Bytes of each .text.<symbol> section of a 64-bit ELF file."""
    number = lambda at, size: int.from_bytes(elf[at:at + size], "little")
    table, entry, count, names = number(40, 8), number(58, 2), number(60, 2), number(62, 2)
    strings = number(table + names * entry + 24, 8)
    sizes = {}
    for i in range(count):
        at = table + i * entry
        begin = strings + number(at, 4)
        name = elf[begin:elf.index(b"\0", begin)].decode()
        if name.startswith(".text."):
            sizes[name[len(".text."):]] = number(at + 32, 8)
    return sizes
