"""Measures leakscan beside the bare program and beside other tools, and prints the table that README quotes.

Every figure is a ratio from pairs: bare, tool, bare, tool ... in one run, so that what else the machine does falls on both.
"median (least-most)" over the pairs. CPU is user + system time of the program and of what it waited for; memory is the peak
resident set. Called by scripts/bench, which brings the tools and the built programs.
"""
import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
arguments = argparse.ArgumentParser()
arguments.add_argument("--work", type=Path, required=True)
arguments.add_argument("--built", type=Path, required=True)
arguments.add_argument("--quick", action="store_true")
arguments.add_argument("--only", default="")
arguments.add_argument("--peers", action="store_true")
arguments.add_argument("--json", type=Path)
options = arguments.parse_args()
WORK, LEAKSCAN, LIBRARY = options.work, options.built / "leakscan", options.built / "libleakscan.so"
PAIRS = 3 if options.quick else 7
SCALE = 1 if options.quick else 3


def first(*paths):
    """The first of the files that is there."""
    return next((str(path) for pattern in paths for path in sorted(Path("/").glob(pattern.lstrip("/")))), None)


HEAPTRACK = first("/usr/lib/heaptrack/libheaptrack_preload.so", "/usr/lib/*/heaptrack/libheaptrack_preload.so")
LSAN = first("/usr/lib/*/liblsan.so.0")
VALGRIND = shutil.which("valgrind")
GPERFTOOLS = first("/usr/lib/*/libtcmalloc.so.4")
JEMALLOC = first("/usr/lib/*/libjemalloc.so.2")
PYTHON = first("/usr/bin/python3") or sys.executable

BASE = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "LEAKSCAN_OPTIONS", "LSAN_OPTIONS")}
# Each tool does its work to the end, its report included; heaptrack's interpreter is left out, and its output thrown away.
def leakscan(more=""):
    return {"LD_PRELOAD": str(LIBRARY), "LEAKSCAN_OPTIONS": f"quiet=1:log_path={WORK}/report.%p{more}"}


# Of clang's LeakSanitizer there is no library to preload: it is built into what this measures itself, beside the same without it.
CLANG = "LeakSanitizer of clang"
TOOLS = {
    "bare": {},
    "passed on": {"LD_PRELOAD": str(WORK / "libpass.so")},
    "leakscan": leakscan(),
    "leakscan sampling": leakscan(":sample=524288"),
    "leakscan bundled": leakscan(":allocator=bundled"),
    "leakscan sampling bundled": leakscan(":sample=524288:allocator=bundled"),
    "heaptrack": HEAPTRACK and {"LD_PRELOAD": HEAPTRACK, "DUMP_HEAPTRACK_OUTPUT": "/dev/null"},
    "LeakSanitizer": LSAN and {"LD_PRELOAD": LSAN, "LSAN_OPTIONS": f"exitcode=0:log_path={WORK}/lsan"},
    # With --peers. The heap checker wants a pprof, and would print its findings.
    "gperftools": GPERFTOOLS and {"LD_PRELOAD": GPERFTOOLS, "HEAPCHECK": "normal", "PPROF_PATH": "/bin/true"},
    CLANG: {"LSAN_OPTIONS": f"exitcode=0:log_path={WORK}/lsan"},
    "jemalloc": JEMALLOC and {"LD_PRELOAD": JEMALLOC, "MALLOC_CONF": f"prof:true,lg_prof_sample:0,prof_final:false,prof_prefix:{WORK}/jeprof"},
}


class Run:
    """A program run to its end: CPU and clock in seconds, peak memory in KiB, and what it wrote."""

    def __init__(self, command, environment=None, stdin=None):
        out = WORK / "out"
        with open(out, "wb") as file, open(stdin or os.devnull, "rb") as given, open(WORK / "told", "wb") as told:
            begun = time.monotonic()
            actions = [(os.POSIX_SPAWN_DUP2, given.fileno(), 0), (os.POSIX_SPAWN_DUP2, file.fileno(), 1),
                       (os.POSIX_SPAWN_DUP2, told.fileno(), 2)]
            pid = os.posix_spawnp(command[0], command, {**BASE, **(environment or {})}, file_actions=actions)
            _, status, usage = os.wait4(pid, 0)
            self.clock = time.monotonic() - begun
        self.cpu, self.memory, self.out = usage.ru_utime + usage.ru_stime, usage.ru_maxrss, out.read_bytes()
        if status:
            sys.stderr.write((WORK / "told").read_text(errors="replace"))
            sys.exit(f"bench: {' '.join(command)}: status {os.waitstatus_to_exitcode(status)} with {environment}")


def tidy():
    for file in [*WORK.glob("report.*"), *WORK.glob("lsan.*")]:
        file.unlink()


def ratio(values):
    middle = statistics.median(values)
    digits = 2 if middle < 10 else 1 if middle < 100 else 0
    return f"{middle:.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def pairs(measure, tools, rounds=PAIRS):
    """For each tool the list of ratios tool/bare of each figure that `measure(tool, built)` gives (a tuple), where `built` is what the names
    of programs that were built for it end with."""
    found = {tool: [] for tool in tools if TOOLS.get(tool, True) is not None}
    for at in range(rounds):
        # (They take a hundred times as long as others.)
        for tool in (tool for tool in found if at < 3 or tool not in PEERS):
            by = "-clang" if tool == CLANG else ""
            bare, with_tool = measure("bare", by), measure(tool, by and by + "-lsan")
            found[tool].append([b and a / b for a, b in zip(with_tool, bare)])
    # Not sooner: ext4 looks twice at each place of a file that was deleted within the last five seconds.
    tidy()
    return {tool: [ratio(column) for column in zip(*rows)] for tool, rows in found.items()}


rows = []


def row(what, found, index=0, absent="–"):
    rows.append([what, *(found.get(tool, {index: absent})[index] for tool in COLUMNS)])
    print("bench:", *rows[-1], sep="  ", file=sys.stderr)


COLUMNS = ["leakscan", "leakscan sampling", "leakscan bundled", "leakscan sampling bundled", "passed on", "heaptrack", "LeakSanitizer"]
TITLES = ["leakscan, every stack", "`sample=524288`", "`allocator=bundled`", "both", "passed on", "heaptrack", "LeakSanitizer"]
PEERS = [CLANG, "gperftools", "jemalloc"]
if options.peers:
    COLUMNS += PEERS
    TITLES += [CLANG, "gperftools' heap checker", "jemalloc's profiler, every stack"]


def allocation():
    for threads in 1, 4:
        def measure(tool, built):
            return (float(Run([f"{WORK}/pairs{built}", str(threads), str(1000000 * SCALE)], TOOLS[tool]).out),)

        row(f"malloc + free, {threads} thread{'s' * (threads > 1)}, time", pairs(measure, COLUMNS))

    def measure_paths(tool, built):
        return (float(Run([f"{WORK}/paths{built}", str(1000000 * SCALE)], TOOLS[tool]).out),)

    row("malloc + free from 4,096 stacks of 20 frames, time", pairs(measure_paths, COLUMNS))


def start():
    """Many starts are one measurement: one of them is too short for the clock."""
    count, processes = 50 * SCALE, 200 if options.quick else 1000

    def measure(tool, _):
        begun = time.monotonic()
        for _ in range(count):
            Run(["/bin/true"], TOOLS[tool])
        return (time.monotonic() - begun,)

    def script(tool, _):
        command = ["/bin/sh", "-c", f"i=0; while [ $i -lt {processes} ]; do /bin/cat /dev/null; i=$((i + 1)); done"]
        return (Run(command, TOOLS[tool]).clock,)

    tools = [tool for tool in COLUMNS if tool != CLANG]
    row("start and end of `/bin/true`, time", pairs(measure, tools))
    row(f"a shell script that starts {processes:,} processes, time", pairs(script, tools, 3))


def program(name, command, environment=None, stdin=None, leave_out=(CLANG,), memory=True):
    expected = Run(command, environment, stdin).out

    def measure(tool, built):
        run = Run([command[0] + built, *command[1:]], {**(environment or {}), **TOOLS[tool]}, stdin)
        if run.out != expected:
            sys.exit(f"bench: {name}: other output under {tool}")
        return run.cpu, run.memory

    found = pairs(measure, [tool for tool in COLUMNS if tool not in leave_out])
    row(f"{name}, CPU", found)
    # (The peak of a program smaller than this one cannot be told: it is this one's, from before the exec.)
    if memory:
        row(f"{name}, peak memory", found, 1)


def python():
    program("python3, JSON and dicts", [PYTHON, str(HERE / "work.py"), str(50 * SCALE)], {"PYTHONMALLOC": "malloc"})


def containers():
    program("C++ containers", [str(WORK / "containers"), str(30 * SCALE)], leave_out=(), memory=False)


def compiler():
    program("g++, this C++ program", ["g++", "-O1", "-S", "-o", "/dev/null", str(HERE / "containers.cc")])


def sqlite():
    script = WORK / "work.sql"
    script.write_text((HERE / "work.sql").read_text().replace("ROWS", str(150000 * SCALE)))
    program(f"sqlite3, {150 * SCALE},000 rows", ["sqlite3", ":memory:"], stdin=script,
            # Debian's sqlite3 shell calls a null pointer at its start under a preloaded liblsan.so.0.
            leave_out=["LeakSanitizer", CLANG])


class Server:
    """A redis-server on a socket of its own."""

    def __init__(self, tool):
        self.socket = WORK / "redis"
        self.process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", self.socket, "--save", "", "--logfile", WORK / "redis.log"],
            env={**BASE, **TOOLS[tool]}, cwd=WORK, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while self.ask("ping") != "PONG":
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"bench: redis-server does not serve under {tool}")
            time.sleep(0.02)

    def ask(self, *words):
        return subprocess.run(["redis-cli", "-s", self.socket, *words], capture_output=True, text=True).stdout.strip()

    def cpu(self):
        return sum(float(value) for value in re.findall(r"^used_cpu_(?:user|sys):([\d.]+)", self.ask("info", "cpu"), re.M))

    def peak(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"^VmHWM:\s*(\d+)", status, re.M)[1])


def redis():
    def measure(tool, _):
        server = Server(tool)
        before, begun = server.cpu(), time.monotonic()
        subprocess.run(["redis-benchmark", "-s", server.socket, "-q", "-n", str(50000 * SCALE), "-r", "100000", "-t",
                        "set,get,lpush,hset"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        figures = time.monotonic() - begun, server.cpu() - before, server.peak()
        server.ask("shutdown", "nosave")
        server.process.wait()
        return figures

    found = pairs(measure, [tool for tool in COLUMNS if tool != CLANG], max(3, PAIRS - 2))
    row("redis-server under redis-benchmark, time per request", found)
    row("redis-server under redis-benchmark, CPU", found, 1)
    row("redis-server under redis-benchmark, peak memory", found, 2)


def pause():
    """The pause of a scan beside LeakSanitizer's, which stands still for all of its check. Gives the text below the table."""
    blocks, size = (100000, 40000000) if options.quick else (1000000, 400000000)
    ours, large, theirs, scans = [], [], [], []

    def scan(environment):
        child = subprocess.Popen([WORK / "heap", str(blocks), str(size)], env={**BASE, **TOOLS["leakscan"], **environment},
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()
        said = subprocess.run([LEAKSCAN, "scan", "--format", "json", str(child.pid)], env={**BASE, **TOOLS["leakscan"], "LD_PRELOAD": ""},
                              capture_output=True, text=True)
        if said.returncode:
            sys.exit(f"bench: leakscan scan: {said.stderr}")
        scan = json.loads(said.stdout)["scans"][-1]
        if scan["live_blocks"] < blocks * 0.99:
            sys.exit(f"bench: the scan saw {scan['live_blocks']} blocks")
        child.communicate(b"\n")
        tidy()
        return scan

    for _ in range(3 if options.quick else 5):
        one = scan({})
        ours.append(one["pause_us"])
        scans.append(one["scan_ms"] * 1000)
        large.append(scan({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"})["pause_us"])
        theirs.append(float(Run([str(WORK / "heap-lsan"), str(blocks), str(size)], {"LSAN_OPTIONS": f"log_path={WORK}/lsan"}).out))
        tidy()
    parts = [b / a for a, b in zip(ours, theirs)]
    return (f"Pause of one scan of {blocks:,} live blocks in {size / 1e6:.0f} MB, {len(ours)} pairs: LeakSanitizer's is "
            f"**{ratio(parts)} times** leakscan's; with the heap in large pages (`leakscan run --large-pages`) "
            f"{ratio([b / a for a, b in zip(large, theirs)])} times.\n"
            f"leakscan's whole scan, done beside the running program, takes {ratio([b / a for a, b in zip(theirs, scans)])} "
            "times as long as LeakSanitizer's check, in which it stands still.")


def valgrind():
    script = WORK / "short.sql"
    script.write_text((HERE / "work.sql").read_text().replace("ROWS", "4000"))
    check = [VALGRIND, "-q", "--leak-check=full", f"--log-file={WORK}/valgrind"]
    parts = {"leakscan": [], "valgrind": []}
    for _ in range(3):
        for tool, command, environment in (("leakscan", [], TOOLS["leakscan"]), ("valgrind", check, {})):
            bare = Run(["sqlite3", ":memory:"], stdin=script).cpu
            parts[tool].append(Run([*command, "sqlite3", ":memory:"], environment, script).cpu / bare)
            tidy()
    return (f"A short run (sqlite3, 4,000 rows, start and report included), CPU: leakscan {ratio(parts['leakscan'])}, "
            f"valgrind --leak-check=full {ratio(parts['valgrind'])}.")


texts = []
for measurement in allocation, start, python, containers, sqlite, compiler, redis:
    if options.only in measurement.__name__:
        measurement()
for measurement in pause, valgrind:
    if options.only in measurement.__name__ and (measurement is not valgrind or VALGRIND):
        texts.append(measurement())
        print("bench:", texts[-1], file=sys.stderr)

print(f"Times the bare program's, median (least–most) of {PAIRS} interleaved pairs"
      f"{' (3 at least for redis-server)' if options.quick else f' ({PAIRS - 2} for redis-server)'}; less is better, 1 is free.\n")
for line in [["", *TITLES], ["---"] + ["---:"] * len(COLUMNS), *rows]:
    print("|", " | ".join(line), "|")
print()
print("\n\n".join(texts))
if options.json:
    figures = [dict(zip(["what", *COLUMNS], line)) for line in rows]
    options.json.write_text(json.dumps({"pairs": PAIRS, "ratios": figures, "texts": texts}, indent=1, ensure_ascii=False) + "\n")
