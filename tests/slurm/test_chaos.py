"""Kills under the scheduler: kill -9 of a rank, of all ranks, of a whole node, in jobs of srun and of mpirun. After a rank
the job has failed, and is submitted again with another shape; after a node Slurm puts it back into the queue, where it
takes the nodes that are left. In the end the run has the very bits of one that never stopped (reproducible: true).

FB3_CHAOS_KILLS: how many (tests/soak/chaos_slurm: 100)."""

import random

from cluster import *

KILLS = int(os.environ.get("FB3_CHAOS_KILLS", 3))
# what is killed, and what becomes of the job
FAULTS = {"a rank": "it has failed", "all ranks": "it has failed", "a node": "it runs again on the others"}
TURNS = ["a rank", "all ranks", "a node", "a rank", "all ranks"]
LAUNCHERS = ["srun", "mpirun"]
NODES = 3
SHAPES = [["--nodes=%d" % nodes, "--ntasks-per-node=%d" % ranks]
          for nodes, ranks in [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1)]]
AS_MANY_AS_THERE_ARE = ["--nodes=1-%d" % NODES]  # a rank on each
FOLDS = 2
RUN = dict(TINY, reproducible=True, folds=FOLDS, train_folds="all", max_steps=16 + 8 * KILLS, max_train_samples=40,
           save_strategy="steps", save_steps=2, eval_strategy="steps", eval_steps=10, hidden_dropout_prob=0.1,
           attention_probs_dropout_prob=0.1, per_device_eval_batch_size=8, fold_groups=1)


class Chaos(SlurmTest):
    SETTINGS = {"NODES": str(NODES)}

    def steps(self):
        return sum(steps_done(self.path("run"), fold) for fold in range(FOLDS))

    def start(self, launcher, shape):
        return self.submit("train_folds.sh", sbatch=shape, variables={"FB3_LAUNCHER": launcher}, output_dir="run", **RUN)

    def sizes(self, job):
        """The number of ranks of each start of the job."""
        tables = self.log(job).split("rank  host")[1:]
        return [len(re.findall(r"^ +\d+  node\d ", table, re.M)) for table in tables]

    def wait_for_steps(self, job, more):
        goal = self.steps() + more
        try:
            wait_until(lambda: self.steps() >= goal, 90, "%d steps" % goal)
        except AssertionError as failure:
            raise AssertionError("%s\n%s\n%s" % (failure, self.jobs(job), self.log(job)))

    def kill_ranks(self, job, pids):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # its launcher was faster
                pass
        self.wait(job, "FAILED")

    def kill_node(self, job, chance):
        """A node of the job is gone at once, and comes back when the job runs on those that are left."""
        starts = len(self.sizes(job))
        nodes = self.slurm("scontrol", "show", "hostnames", self.jobs(job)[0]["NodeList"]).split()
        self.assertEqual(self.sizes(job)[-1], NODES, self.log(job))
        node = chance.choice(nodes)
        self.slurm_up("kill", node)
        wait_until(lambda: len(self.sizes(job)) > starts, 90, "another start of job %s\n%s" % (job, self.log(job)))
        self.slurm_up("boot", node)
        self.assertGreater(int(self.jobs(job)[0]["Restarts"]), 0)
        self.assertEqual(self.sizes(job)[-1], NODES - 1, self.log(job))

    def test_same_bits_after_all(self):
        whole, chance, job = self.path("whole"), random.Random(22), None
        run("train", timeout=1800, **dict(RUN, output_dir=whole))
        seconds = {fault: [] for fault in FAULTS}
        for i in range(KILLS):
            fault = TURNS[i % len(TURNS)]
            if not job:
                shape = AS_MANY_AS_THERE_ARE if fault == "a node" else chance.choice(SHAPES)
                job = self.start(LAUNCHERS[i % len(LAUNCHERS)], shape)
            self.wait_for_steps(job, chance.randrange(2, 8))
            time.sleep(0.05 * chance.random())  # anywhere between two steps, and in a checkpoint
            began, there = time.time(), pids_of("run")
            if fault == "a node":
                self.kill_node(job, chance)
            else:
                self.assertTrue(there)
                self.kill_ranks(job, there if fault == "all ranks" else [chance.choice(there)])
                job = None
            seconds[fault].append(time.time() - began)
        job = job or self.start(chance.choice(LAUNCHERS), chance.choice(SHAPES))
        self.wait(job, seconds=900)
        for fold in range(FOLDS):
            self.assertEqual(fold_bits(self.path("run"), fold), fold_bits(whole, fold))
        self.assertSameTable(self.path("run"), whole)
        median = {fault: sorted(values)[len(values) // 2] for fault, values in seconds.items() if values}
        print("%d kills: %s; %d folds of %d steps: the same bits" % (KILLS, ", ".join(
            "%d of %s (%s after %.1f s, median)" % (len(seconds[fault]), fault, FAULTS[fault], median[fault])
            for fault in median), FOLDS, RUN["max_steps"]))


if __name__ == "__main__":
    main()
