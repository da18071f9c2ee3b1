"""Arrays: a fold per task and the job that gathers them, and a sweep with a line of settings per task."""

from cluster import *

FOLDS = {**{key: value for key, value in TINY.items() if key != "train_folds"}, "fold_groups": 1}


class Array(SlurmTest):
    SETTINGS = {"NODES": "2"}

    def gather_job(self, array):
        """The job that the array's first task has submitted."""
        self.wait(array)
        (number,) = re.findall(r"the folds are gathered by job (\d+)", self.log(array))
        self.wait(number)
        return number

    def test_folds_and_their_gathering(self):
        shape = ["--nodes=1", "--ntasks=2"]
        whole = self.submit("train_folds.sh", sbatch=shape, output_dir="whole", **FOLDS)
        self.wait(whole)
        run("predict", self.path("whole"), test_file=TEST, output_file=self.path("whole", "submission.csv"))
        options = dict(FOLDS, output_dir="array", test_file=TEST)
        array = self.submit("train_array.sh", sbatch=shape + ["--array=0-1"], **options)
        gather = self.gather_job(array)
        for name in ["oof.csv", "folds.csv"]:
            self.assertSameTable(self.path("whole"), self.path("array"), name)
        for a, b in zip(rows(self.path("whole", "submission.csv")), rows(self.path("array", "submission.csv"))):
            for t in TARGETS:
                self.assertAlmostEqual(float(a[t]), float(b[t]), delta=1e-5)
        self.assertEqual([n for n in os.listdir(self.path("array")) if n.startswith("task")], [])
        # a run directory like any other, at its new place
        with open(self.path("array", "run.yaml")) as f:
            text = f.read()
        self.assertIn("output_dir: 'array'", text)
        self.assertIn("total_train_batch_size: 16", text)
        # once more: nothing is trained, the tables are made again
        os.remove(self.path("array", "oof.csv"))
        again = self.submit("train_array.sh", sbatch=shape + ["--array=0-1"], **options)
        self.gather_job(again)
        self.assertEqual(self.log(again).count("trained and gathered already"), 2)
        self.assertSameTable(self.path("whole"), self.path("array"))

    def test_a_fold_that_fails_is_not_gathered(self):
        """The array's dependent job is cancelled; submitted again, only the missing fold is trained."""
        options = dict(FOLDS, output_dir="array")
        os.makedirs(self.path("array", "task-1"))
        with open(self.path("array", "task-1", "run.yaml"), "w") as f:
            f.write("nonsense: true\n")
        array = self.submit("train_array.sh", sbatch=["--array=0-1"], **options)
        wait_until(lambda: all(j["JobState"] in OVER for j in self.jobs(array)), 60, "the array's end")
        self.assertEqual(sorted(j["JobState"] for j in self.jobs(array)), ["COMPLETED", "FAILED"])
        (gather,) = re.findall(r"gathered by job (\d+)", self.log(array))
        self.wait(gather, "CANCELLED")
        os.remove(self.path("array", "task-1", "run.yaml"))
        again = self.submit("train_array.sh", sbatch=["--array=0-1"], **options)
        self.gather_job(again)
        self.assertIn("fold 0 is complete already", self.log(again))
        self.assertEqual(len(rows(self.path("array", "oof.csv"))), 64)

    def test_what_is_refused(self):
        cases = [
            ("train_array.sh", ["--array=0"], TINY, "train_folds is what the array's indices say"),
            ("sweep.sh", ["--array=1"], {}, "no table"),
            ("gather.sh", [], dict(FOLDS, output_dir="nothing"), "holds no trained folds"),
        ]
        jobs = [(self.submit(script, sbatch=sbatch, **options), text) for script, sbatch, options, text in cases]
        for job, text in jobs:
            self.wait(job, "FAILED")
            self.assertIn(text, self.log(job))

    def test_sweep(self):
        with open(self.path("grid.tsv"), "w") as f:
            f.write("# rates and losses\nlearning_rate\tseed\tloss_type\n1e-3\t7\trmse\n\n2e-3\t\tmse\n")
        options = dict(TINY, output_dir="swept")
        del options["learning_rate"]
        job = self.submit("sweep.sh", "grid.tsv", sbatch=["--array=1-3"], **options)
        wait_until(lambda: len(self.jobs(job)) == 3 and all(j["JobState"] in OVER for j in self.jobs(job)), 60, job)
        states = {j["ArrayTaskId"]: j["JobState"] for j in self.jobs(job)}
        self.assertEqual(states, {"1": "COMPLETED", "2": "COMPLETED", "3": "FAILED"}, self.log(job))
        self.assertIn("grid.tsv has 2 lines of values and this is task 3", self.log(job))
        for task, values in [(1, ("0.001", "7", "rmse")), (2, ("0.002", "42", "mse"))]:
            with open(self.path("swept", "sweep-%d" % task, "run.yaml")) as f:
                text = f.read()
            for key, value in zip(["learning_rate", "seed", "loss_type"], values):
                self.assertIn("\n%s: %s\n" % (key, value), text)
            self.assertTrue(os.path.exists(self.path("swept", "sweep-%d" % task, "fold-0", "best.h5")))
        alone = self.submit("sweep.sh", "grid.tsv", **options)
        self.wait(alone, "FAILED")
        self.assertIn("sbatch --array=1-2 slurm/sweep.sh grid.tsv", self.log(alone))


if __name__ == "__main__":
    main()
