"""Whole jobs under mpirun: their exit codes, their last words, and the cores that their ranks run on.

usage: test_jobs.py COMM_JOB MPIRUN
"""
import os
import subprocess
import sys
import time
import unittest

JOB, MPIRUN = sys.argv[1], sys.argv[2]
CORES = sorted(os.sched_getaffinity(0))
TIME_LIMIT = 30
DEATH_LIMIT = 10  # seconds after which no rank may be left when one has died


def physical(cpu):
    """The first CPU of the physical core that `cpu` is part of."""
    try:
        with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as file:
            return int(file.read().replace("-", ",").split(",")[0])
    except OSError:
        return cpu


def run(*command, env=None):
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    environment.pop("OMP_NUM_THREADS", None)
    environment.update(env or {})
    start = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT)
    done.seconds = time.monotonic() - start
    return done


def job(ranks, *arguments, timeout=20, options=(), wrapper=(), env=None):
    return run(MPIRUN, "--oversubscribe", *options, "-np", str(ranks), *wrapper, JOB, str(timeout), *arguments, env=env)


def ours(done):
    return [line for line in done.stderr.splitlines() if line.startswith("fb3-dist: ")]


class Ends(unittest.TestCase):
    def test_exit_codes_of_an_orderly_end(self):
        for ranks, code in ((1, 0), (1, 2), (2, 0), (2, 1), (2, 75)):
            self.assertEqual(job(ranks, "exit", str(code)).returncode, code)

    def test_abort_gives_its_code_to_the_launcher(self):
        for code in (2, 75):
            done = job(3, "abort", str(code))
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertLess(done.seconds, DEATH_LIMIT)
            self.assertRegex(done.stderr.splitlines()[0], r"^fb3-dist: \[rank 2 \S+\] boom; mend it$")

    def test_abort_of_a_world_of_one_says_nothing_more(self):
        for command in ((JOB, "20"), (MPIRUN, "-np", "1", JOB, "20")):
            done = run(*command, "abort", "2")
            self.assertEqual(done.returncode, 2)
            self.assertEqual(done.stderr.splitlines()[0], "fb3-dist: boom; mend it")
            self.assertNotIn("MPI_ABORT", done.stderr)

    def test_the_death_of_a_rank_ends_the_others(self):
        for scene in ("kill", "leave"):
            done = job(3, scene)
            self.assertNotEqual(done.returncode, 0, scene)
            self.assertLess(done.seconds, DEATH_LIMIT, scene)

    def test_an_agreed_error_is_said_once(self):
        done = job(3, "agree")
        self.assertEqual(done.returncode, 2)
        self.assertEqual(len(ours(done)), 1)
        self.assertTrue(ours(done)[0].endswith("rank 2: no such column; mend it"), ours(done))

    def test_a_node_agrees_about_a_failure_of_any_rank(self):
        done = job(3, "node-agree")
        self.assertEqual(done.returncode, 2)
        self.assertEqual(len(ours(done)), 1)
        self.assertTrue(ours(done)[0].endswith("no such file here; copy it"), ours(done))


class Watchdog(unittest.TestCase):
    def check(self, done, pattern):
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertGreaterEqual(done.seconds, 1)
        self.assertLess(done.seconds, DEATH_LIMIT)
        self.assertRegex(ours(done)[0], pattern)

    def test_ends_a_collective_that_waits_too_long(self):
        self.check(job(2, "late", timeout=1),
                   r"^fb3-dist: \[rank 0 \S+\] meeting point: not finished after 1 s; .*ddp_timeout")

    def test_ends_a_sum_that_waits_too_long(self):
        self.check(job(2, "late-sum", timeout=1),
                   r"^fb3-dist: \[rank 0 \S+\] gradient all-reduce, step 12: not finished after 1 s; ")

    def test_ends_something_else_that_takes_too_long(self):
        self.check(job(1, "watch", timeout=1), r"^fb3-dist: writing last.h5, step 12: not finished after 1 s; ")

    def test_signs_of_life_of_the_root_start_the_deadline_anew(self):
        done = job(3, "root-works", "30", timeout=1)
        self.assertEqual((done.returncode, len(ours(done))), (2, 1), done.stderr)
        self.assertIn("no rows; give it some", ours(done)[0])
        self.assertGreaterEqual(done.seconds, 3)

    def test_ends_a_wait_for_a_root_that_gives_no_sign(self):
        self.check(job(3, "root-works", "5", timeout=1), r"long work: not finished after 1 s; .*ddp_timeout")

    def test_lets_what_ends_in_time_pass(self):
        self.assertEqual(job(2, "exit", "0", timeout=1).returncode, 0)


class LonelyWorlds(unittest.TestCase):
    def test_names_launcher_and_cure(self):
        for variable, cure in (("SLURM_STEP_NUM_TASKS", "srun --mpi=pmix"), ("PMI_SIZE", "Open MPI")):
            done = run(JOB, "20", "exit", "0", env={variable: "2"})
            self.assertEqual(done.returncode, 2)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertIn("2 processes", done.stderr)
            self.assertIn(cure, done.stderr)

    def test_a_task_alone_or_under_mpirun_is_no_lonely_world(self):
        self.assertEqual(run(JOB, "20", "exit", "0", env={"SLURM_STEP_NUM_TASKS": "1"}).returncode, 0)
        self.assertEqual(job(1, "exit", "0", env={"SLURM_STEP_NUM_TASKS": "2"}).returncode, 0)


class Binding(unittest.TestCase):
    def cores(self, done):
        """[(threads, cpus)] by rank."""
        self.assertEqual(done.returncode, 0, done.stderr)
        table = {}
        for line in done.stdout.splitlines():
            words = line.split()
            table[int(words[1])] = (int(words[3]), [int(cpu) for cpu in words[5:]])
        return [table[rank] for rank in sorted(table)]

    def check_division(self, table, allowed):
        """Ranks have CPUs of their own that together are all of `allowed`, and threads to fill their cores."""
        self.assertEqual(sorted(cpu for _, cpus in table for cpu in cpus), sorted(allowed))
        for threads, cpus in table:
            self.assertEqual(threads, len({physical(cpu) for cpu in cpus}))

    def test_one_rank_has_all_cores(self):
        for options in ((), ("--bind-to", "none"), ("--bind-to", "core")):
            self.check_division(self.cores(job(1, "bind", options=options)), CORES)
        self.check_division(self.cores(run(JOB, "20", "bind")), CORES)

    @unittest.skipIf(len({physical(cpu) for cpu in CORES}) < 2, "needs two cores")
    def test_two_ranks_divide_the_cores(self):
        for options in ((), ("--bind-to", "none"), ("--bind-to", "core"), ("--bind-to", "socket")):
            table = self.cores(job(2, "bind", options=options))
            self.assertEqual(len(table), 2)
            self.check_division(table, CORES)

    @unittest.skipIf(len(CORES) > 16, "would start too many ranks")
    def test_more_ranks_than_cores_have_one_thread_each(self):
        table = self.cores(job(len(CORES) + 2, "bind"))
        self.assertEqual(len(table), len(CORES) + 2)
        for threads, cpus in table:
            self.assertEqual((threads, cpus), (1, CORES))

    def test_a_limit_around_mpirun_is_kept(self):
        command = ("taskset", "-c", str(CORES[-1]), MPIRUN, "--oversubscribe")
        for ranks in (1, 2):
            table = self.cores(run(*command, "-np", str(ranks), JOB, "20", "bind"))
            self.assertEqual(table, [(1, [CORES[-1]])] * ranks)

    def test_a_script_between_mpirun_and_us(self):
        self.check_division(self.cores(job(1, "bind", wrapper=("sh", "-c", '"$@"; exit $?', "sh"))), CORES)

    def test_the_users_thread_count_stands(self):
        self.assertEqual(self.cores(job(1, "bind", env={"OMP_NUM_THREADS": "3"})), [(3, CORES)])

    def test_keep_leaves_what_the_launcher_did(self):
        threads, cpus = self.cores(job(1, "bind-keep", options=("--bind-to", "core")))[0]
        self.assertEqual(len({physical(cpu) for cpu in cpus}), 1)
        self.assertEqual(threads, len(cpus))
        self.assertEqual(self.cores(job(1, "bind-keep", options=("--bind-to", "none"))), [(len(CORES), CORES)])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
