# shellcheck shell=bash
# Settings of the site: which modules, which partition and account, which network. The batch scripts read this file in
# the job; sbatch itself reads SBATCH_* in the shell that submits, so source it there once:
#
#   source slurm/env.sh && sbatch slurm/train_folds.sh fb3.yaml
#
# Everything is commented out: a cluster whose defaults are right needs nothing here. Keep your own copy outside of the
# repository if you like, and name it in FB3_ENV. lib.sh lists the other knobs (FB3_DIST, FB3_LAUNCHER, ...).

# Example 1: GPU nodes with InfiniBand, software by environment modules.
#
#   module purge && module load openmpi/4.1 cuda/12 hdf5
#   export SBATCH_PARTITION=gpu SBATCH_ACCOUNT=myproject
#   export SBATCH_GPUS_PER_NODE=4                   # with: sbatch --ntasks-per-node=4 --cpus-per-task=16
#   export NCCL_SOCKET_IFNAME=ib0 NCCL_IB_HCA=mlx5  # how NCCL's ranks find each other, and which adapters they use

# Example 2: CPU nodes with several Ethernet networks, of which one connects the nodes; Slurm without PMIx.
#
#   module load gcc openmpi
#   export SBATCH_PARTITION=cpu SBATCH_QOS=normal
#   export FB3_LAUNCHER=mpirun
#   export OMPI_MCA_btl_tcp_if_include=10.1.0.0/16 OMPI_MCA_oob_tcp_if_include=10.1.0.0/16

# Example 3: software in a conda environment, preemptible GPU nodes, Slurm with PMIx in several versions.
#
#   source "$HOME/miniforge3/bin/activate" fb3
#   export SBATCH_PARTITION=preempt SBATCH_TIMELIMIT=02:00:00
#   export FB3_DIST=$HOME/fb3-dist/build/fb3-dist FB3_SRUN_MPI=pmix_v4
#   export HF_HOME=/scratch/$USER/huggingface       # weights that a login node has downloaded
#   export FB3_STAGE=1                              # read them from the node's own disk
