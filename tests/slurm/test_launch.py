"""The batch scripts on a real scheduler: both launchers, an ordinary user, what cannot be launched."""

from cluster import *

TWO_NODES = ["--nodes=2", "--ntasks-per-node=1"]
FOLDS = dict(TINY, train_folds="all")


class Launch(SlurmTest):
    SETTINGS = {"NODES": "4", "GPUS": "2"}

    def test_srun_and_mpirun_train_the_same(self):
        by_srun = self.submit("train_folds.sh", sbatch=TWO_NODES, variables={"FB3_SRUN_OPTIONS": "--label"},
                              output_dir="srun", **FOLDS)
        by_mpirun = self.submit("train_folds.sh", sbatch=TWO_NODES, output_dir="mpirun", **FOLDS, variables={
            "FB3_LAUNCHER": "mpirun", "FB3_MPIRUN_OPTIONS": "--tag-output"})
        self.wait(by_srun)
        self.wait(by_mpirun)
        self.assertRegex(self.log(by_srun), r"\n1: .*MCRMSE|\n0: .*MCRMSE")
        self.assertRegex(self.log(by_mpirun), r"\[1,0\]<std...>:.*MCRMSE")
        for job in [by_srun, by_mpirun]:
            self.assertEqual(len(set(re.findall(r"[01] +(node\d) ", self.log(job)))), 2, self.log(job))
        self.assertSameTable(self.path("srun"), self.path("mpirun"))
        self.assertEqual({row["fold"] for row in rows(self.path("srun", "oof.csv"))}, {"0", "1"})

    def test_folds_side_by_side(self):
        """auto: as many groups as divide the folds and the nodes; each fold stays within a node."""
        job = self.submit("train_folds.sh", sbatch=["--nodes=2", "--ntasks-per-node=2"], output_dir="run", **FOLDS)
        self.wait(job)
        table = re.findall(r"^ *(\d)  (node\d) .*  group (\d): fold (\d)$", self.log(job), re.M)
        self.assertEqual([(rank, group, fold) for rank, _, group, fold in table],
                         [("0", "0", "0"), ("1", "0", "0"), ("2", "1", "1"), ("3", "1", "1")], self.log(job))
        self.assertEqual(len({(node, group) for _, node, group, _ in table}), 2)
        self.assertEqual({row["fold"] for row in rows(self.path("run", "oof.csv"))}, {"0", "1"})

    def test_cut_link(self):
        """A node that is cut off: the other one names what it waits for, and the job does not hang."""
        job = self.submit("train_folds.sh", sbatch=TWO_NODES + ["--no-requeue"], variables={"FB3_LAUNCHER": "mpirun"},
                          output_dir="run", **dict(LONG, max_steps=100000, ddp_timeout=5))
        self.wait_for_step(self.path("run"), 12)
        (cut,) = re.findall(r" 1  (node\d) ", self.log(job))
        self.slurm_up("link", cut, "down")
        began = time.time()
        try:
            wait_until(lambda: "fb3-dist: [rank 0 " in self.log(job), 30, "the watchdog's line: " + self.log(job))
            self.assertRegex(self.log(job), r"fb3-dist: \[rank 0 node\d\] .*another rank")
            print("the watchdog's line %.1f s after the link was cut, with ddp_timeout 5 s" % (time.time() - began))
        finally:
            self.slurm_up("link", cut, "up")
            self.slurm("scancel", job)

    def test_four_nodes(self):
        job = self.submit("train_folds.sh", sbatch=["--nodes=4", "--ntasks-per-node=1"], output_dir="run",
                          **FOLDS)
        self.wait(job)
        self.assertEqual(set(re.findall(r"[0-3] +(node\d) ", self.log(job))), {"node1", "node2", "node3", "node4"})

    def test_ordinary_user(self):
        """Scripts, program and configuration in directories of that user, with spaces in their names."""
        shutil.copytree(SCRIPTS, self.path("batch scripts"))
        shutil.copy(PROGRAM, self.path("the program"))
        shutil.copytree(SAMPLE, self.path("sample"))
        os.mkdir(self.path("work"))
        os.chmod(self.path("work"), 0o777)
        options = dict(FOLDS, tokenizer=self.path("sample", "spm.model"), train_file=self.path("sample", "train.csv"))
        with open(self.path("fb3.yaml"), "w") as f:
            f.writelines("%s: %s\n" % item for item in options.items())
            f.write("output_dir: ${WORK:-.}/run   # where this user may write\n")
        user = ["--uid=nobody", "--gid=nogroup", "--output=" + self.path("work", "%j.log")] + TWO_NODES
        for launcher in ["srun", "mpirun"]:
            work = self.path("work", launcher)
            os.mkdir(work)
            os.chmod(work, 0o777)
            job = self.submit(self.path("batch scripts", "train_folds.sh"), self.path("fb3.yaml"), sbatch=user,
                              variables={"FB3_DIST": self.path("the program"), "FB3_LAUNCHER": launcher, "WORK": work})
            self.wait(job)
            self.assertEqual(len(rows(os.path.join(work, "run", "oof.csv"))), 64)

    def test_what_cannot_be_launched_is_refused(self):
        os.mkdir(self.path("foreign"))
        with open(self.path("foreign", "mpirun"), "w") as f:
            f.write("#!/bin/sh\necho HYDRA build details\n")
        os.chmod(self.path("foreign", "mpirun"), 0o755)
        foreign = {"PATH": self.path("foreign") + ":" + self.variables["PATH"]}
        absent = {"FB3_SRUN_MPI": "pmix_v99"}
        cases = [
            ({"FB3_LAUNCHER": "srun", **absent}, [], "does not offer pmix_v99"),
            ({**foreign, **absent}, [], "nothing here can start the ranks"),
            ({"FB3_LAUNCHER": "mpirun", **foreign}, [], "no mpirun of Open MPI"),
            ({"FB3_LAUNCHER": "ssh"}, [], "FB3_LAUNCHER=ssh is not one of"),
            ({"FB3_DIST": self.path("nowhere")}, [], "there is no program"),
            ({"FB3_LAUNCHER": "mpirun"}, ["--gpus-per-task=1"], "--gpus-per-node"),
            ({"FB3_SRUN_MPI": "pmi2"}, [], "by PMIx only"),
        ]
        jobs = [(self.submit("train_folds.sh", sbatch=TWO_NODES + more, variables=variables, output_dir="run", **TINY),
                 text) for variables, more, text in cases]
        for job, text in jobs:
            self.wait(job, "FAILED")
            self.assertIn(text, self.log(job))
        self.assertFalse(os.path.exists(self.path("run", "run.yaml")))
        outside = subprocess.run(["bash", os.path.join(SCRIPTS, "train_folds.sh")], env=environment(), text=True,
                                 capture_output=True)
        self.assertEqual(outside.returncode, 2)
        self.assertIn("sbatch", outside.stderr)

    def test_another_launcher_where_srun_has_no_pmix(self):
        job = self.submit("train_folds.sh", sbatch=TWO_NODES, output_dir="run", **TINY, variables={
            "FB3_SRUN_MPI": "pmix_v99", "FB3_MPIRUN_OPTIONS": "--tag-output"})
        self.wait(job)
        self.assertIn("[1,0]<std", self.log(job))

    def test_idle_gpus_are_named(self):
        job = self.submit("train_folds.sh", sbatch=["--gpus-per-node=2"], output_dir="run", **TINY)
        self.wait(job)
        self.assertIn("2 GPUs on this node and 1 rank", self.log(job))

    def halves(self):
        """The sample in two files of the same name."""
        table, paths = rows(TRAIN), []
        for part, some in enumerate((table[:len(table) // 2], table[len(table) // 2:])):
            os.makedirs(self.path("half-%d" % part))
            paths.append(self.path("half-%d" % part, "part.csv"))
            with open(paths[-1], "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, table[0])
                writer.writeheader()
                writer.writerows(some)
        return paths

    def test_staging(self):
        """/dev/shm is a node's own, as the disk under TMPDIR is on a cluster. Two training files of one name."""
        files = self.halves()
        options = dict(TINY, train_file=",".join(files))
        job = self.submit("train_folds.sh", sbatch=TWO_NODES, output_dir="run", **options,
                          variables={"FB3_STAGE": "1", "FB3_STAGE_DIR": "/dev/shm"})
        self.wait(job)
        staged = "/dev/shm/fb3-%s/train_file" % job
        with open(self.path("run", "run.yaml")) as f:
            text = f.read()
        self.assertIn("train_file: [%s/part.csv, %s-1/part.csv]\n" % (staged, staged), text)
        self.assertIn("tokenizer: /dev/shm/fb3-%s/tokenizer/spm.model\n" % job, text)
        for node in self.jobs(job)[0]["NodeList"], "node1", "node2":
            if "[" not in node:
                self.assertNotIn("fb3-", self.slurm_up("node", node, "ls", "/dev/shm"))
        # the same run from the originals
        again = self.submit("train_folds.sh", sbatch=TWO_NODES, output_dir="run", **options)
        self.wait(again)
        self.assertIn("complete already", self.log(again))

    def test_predict(self):
        run("train", **dict(FOLDS, output_dir=self.path("run")))
        run("predict", self.path("run"), ranks=2, test_file=TEST, output_file=self.path("expected.csv"))
        job = self.submit("predict.sh", "run", sbatch=TWO_NODES, test_file=TEST, output_file="submission.csv")
        self.wait(job)
        for a, b in zip(rows(self.path("expected.csv")), rows(self.path("submission.csv"))):
            for t in TARGETS:
                self.assertAlmostEqual(float(a[t]), float(b[t]), delta=1e-5)


if __name__ == "__main__":
    main()
