"""Jobs that are stopped, preempted, cut off or lose a node: back in the queue, and the same weights in the end."""

from cluster import *

TWO_NODES = ["--nodes=2", "--ntasks-per-node=1"]
LAUNCHERS = ["srun", "mpirun"]


class Requeue(SlurmTest):
    SETTINGS = {"NODES": "6", "KILL_WAIT": "8"}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.undisturbed = tempfile.mkdtemp(prefix="fb3-undisturbed-")
        cls.addClassCleanup(shutil.rmtree, cls.undisturbed)
        run("train", ranks=2, **dict(LONG, output_dir=cls.undisturbed))
        cls.digest = weights_digest(os.path.join(cls.undisturbed, "fold-0", "last.h5"))

    def restarts(self, job):
        return sum(int(record["Restarts"]) for record in self.jobs(job))

    def wait_for_restart(self, job, seconds=60):
        wait_until(lambda: self.restarts(job) > 0, seconds, "requeue of job %s\n%s" % (job, self.log(job)))

    def assertUndisturbed(self, out, fold=0):
        self.assertEqual(losses(out, fold), losses(self.undisturbed, fold))
        self.assertEqual(weights_digest(os.path.join(out, "fold-%d" % fold, "last.h5")), self.digest)
        self.assertSameTable(out, self.undisturbed)

    def start(self, launcher, *sbatch, script="train_folds.sh", variables={}, **options):
        return self.submit(script, sbatch=TWO_NODES + list(sbatch), variables=dict(variables, FB3_LAUNCHER=launcher),
                           **{**LONG, "output_dir": launcher, **options})

    def test_stop_signal(self):
        jobs = {}
        for launcher in LAUNCHERS:
            jobs[launcher] = self.start(launcher)
        for launcher in LAUNCHERS:
            self.wait_for_step(self.path(launcher), 12)
            self.slurm("scancel", "--batch", "--signal=USR1", jobs[launcher])
        for launcher in LAUNCHERS:
            self.wait(jobs[launcher])
            log = self.log(jobs[launcher])
            self.assertIn("with a complete checkpoint; run again", log)
            self.assertLess(log.index("with a complete checkpoint"), log.index("back in the queue"), log)
            self.assertEqual(self.restarts(jobs[launcher]), 1, self.log(jobs[launcher]))
            self.assertUndisturbed(self.path(launcher))

    def assertStartsAgain(self, started, out, variables={}):
        """A signal to the batch script as soon as `started` says so."""
        jobs = [self.start(launcher, output_dir=out + launcher, variables=variables) for launcher in LAUNCHERS]
        for launcher, job in zip(LAUNCHERS, jobs):
            wait_until(lambda: started(job, out + launcher), 20, "start of the job")
            self.slurm("scancel", "--batch", "--signal=USR1", job)
        for launcher, job in zip(LAUNCHERS, jobs):
            self.wait(job)
            self.assertEqual(self.restarts(job), 1, self.log(job))
            self.assertUndisturbed(self.path(out + launcher))

    def test_stop_signal_before_the_launch(self):
        """While the modules are loaded, for example."""
        with open(self.path("site.sh"), "w") as f:
            f.write('touch "%s-$SLURM_JOB_ID"\nsleep 2\n' % self.path("loading"))
        self.assertStartsAgain(lambda job, out: os.path.exists(self.path("loading-" + job)), "run-",
                               {"FB3_ENV": self.path("site.sh")})

    def test_stop_signal_to_ranks_without_a_handler(self):
        """It kills them."""
        self.assertStartsAgain(lambda job, out: pids_of(out), "run-")

    def test_array_task(self):
        """Only the task that stopped goes back, and what waits for the array waits for it."""
        array = self.submit("train_array.sh", sbatch=["--ntasks=2", "--array=0-1"],
                            **{k: v for k, v in dict(LONG, output_dir="run").items() if k != "train_folds"})
        self.wait_for_step(self.path("run", "task-1"), 12, fold=1)
        # the last task has the number of the array itself
        self.slurm("scancel", "--batch", "--signal=USR1", array + "_1")
        self.wait(array)
        self.assertEqual({j["ArrayTaskId"]: j["Restarts"] for j in self.jobs(array)}, {"0": "0", "1": "1"})
        (gather,) = re.findall(r"gathered by job (\d+)", self.log(array))
        self.wait(gather)
        self.assertEqual(weights_digest(self.path("run", "fold-0", "last.h5")), self.digest)
        self.assertEqual({row["fold"] for row in rows(self.path("run", "oof.csv"))}, {"0", "1"})

    def test_cancelled_jobs_stay_cancelled(self):
        """Their ranks still have the time to write a checkpoint, also under mpirun."""
        jobs = [self.start(launcher, max_steps=100000, save_steps=100000) for launcher in LAUNCHERS]
        for launcher, job in zip(LAUNCHERS, jobs):
            self.wait_for_step(self.path(launcher), 12)
            if launcher == "mpirun":
                with open("/proc/%d/environ" % pids_of(launcher)[0]) as f:
                    self.assertIn("OMPI_MCA_odls_base_sigkill_timeout=3\0", f.read())
            self.slurm("scancel", job)
        for launcher, job in zip(LAUNCHERS, jobs):
            self.wait(job, "CANCELLED")
            self.assertEqual(self.restarts(job), 0)
            wait_until(lambda: not pids_of(launcher), 20, "the end of the ranks")
            # the script outlives its ranks
            wait_until(lambda: "ended by Slurm" in self.log(job), 10, "the script's last line: " + self.log(job))
            self.assertEqual([e["path"] for e in events(self.path(launcher), 0, "checkpoint")], ["last.h5"],
                             self.log(job))

    def test_end_of_the_time_limit(self):
        """The ranks stop by the clock (Slurm's signal is no stop signal), or by Slurm's signal; both jobs go on."""
        endless = dict(max_steps=100000, save_steps=100000, eval_steps=100000)
        clock = self.start("srun", "--time=1", "--signal=B:CONT@1", stop_before_end=45, **endless)
        signal = self.start("mpirun", "--time=1", "--signal=B:USR1@55", stop_before_end=0, **endless)
        for launcher, job in [("srun", clock), ("mpirun", signal)]:
            self.wait_for_restart(job)
            self.assertIn("with a complete checkpoint; run again", self.log(job))
            done = steps_done(self.path(launcher))
            self.wait_for_step(self.path(launcher), done + 5)
            self.slurm("scancel", job)

    def test_time_limit_too_short(self):
        # not even the time in which training stops by itself
        short = self.submit("train_folds.sh", sbatch=["--time=2"], output_dir="short", **LONG)
        # a start that takes all of the time there is
        with open(self.path("slow"), "w") as f:
            f.write('#!/bin/sh\nsleep 8\nexec "%s" "$@"\n' % PROGRAM)
        os.chmod(self.path("slow"), 0o755)
        slow = self.submit("train_folds.sh", sbatch=["--time=1", "--signal=B:CONT@1"],
                           variables={"FB3_DIST": self.path("slow")},
                           **dict(LONG, output_dir="slow-run", stop_before_end=53))
        for job in [short, slow]:
            self.wait(job, "FAILED")
            self.assertEqual(self.restarts(job), 0)
            self.assertEqual(self.log(job).count("the time limit is too short"), 1, self.log(job))
        self.assertFalse(os.path.exists(self.path("short")))

    def test_not_for_ever(self):
        job = self.start("srun", variables={"FB3_MAX_REQUEUES": "0"})
        self.wait_for_step(self.path("srun"), 12)
        self.slurm("scancel", "--batch", "--signal=USR1", job)
        record = self.wait(job, "FAILED")
        self.assertEqual(record["ExitCode"], "75:0")
        self.assertIn("FB3_MAX_REQUEUES", self.log(job))

    def test_lost_node(self):
        """The node of the batch script, or another one: then mpirun gives up long before Slurm notices, and the script has
        to ask, although a node did not answer the first time that it asked. The job of srun must go on where it was, with
        what the lost node has kept of it."""
        with open(self.path("site.sh"), "w") as f:
            f.write('srun() { [[ -e "%s" ]] && command srun "$@" || { touch "%s"; return 1; }; }\n' % (
                (self.path("asked"),) * 2))
        cases = [("srun", 1), ("mpirun", 1), ("mpirun", 0)]
        outs = ["run-%d" % i for i in range(len(cases))]
        jobs = [self.start(launcher, "--exclusive", *["--nodelist=node1,node2"] * (launcher == "srun"), max_steps=400,
                           save_steps=20, output_dir=out,
                           variables={"FB3_ENV": self.path("site.sh")} if (launcher, lost) == ("mpirun", 1) else {})
                for (launcher, lost), out in zip(cases, outs)]
        for out in outs:
            self.wait_for_step(self.path(out), 30)
        tables = [re.findall(r"[01] +(node\d) ", self.log(job)) for job in jobs]
        lost = [table[which] for table, (_, which) in zip(tables, cases)]
        for node in lost:
            self.slurm_up("kill", node)
        began = time.time()
        for (launcher, which), job in zip(cases, jobs):
            self.wait_for_restart(job, 90)
            print("%s, the node of rank %d lost: in the queue again within %.1f s" % (launcher, which, time.time() - began))
        for node in lost:
            self.slurm_up("boot", node)
        for job, out in zip(jobs, outs):
            self.wait(job, seconds=120)
            steps = [e["step"] for e in events(self.path(out), 0, "step")]
            self.assertEqual(steps, list(range(1, 401)))
            self.assertRegex(self.log(job), r"fold 0 continues after step [1-9]\d*0 of 400")


if __name__ == "__main__":
    main()
