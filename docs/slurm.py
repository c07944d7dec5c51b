"""Run a ksdiff command with workers that are Slurm jobs.

    pip install 'ksdiff[distributed]' dask-jobqueue
    python docs/slurm.py --jobs 4 sharpen /shared/pan.tif /shared/ms.tif -o /shared/out.tif
    python docs/slurm.py --jobs 4 sharpen --batch /shared/scenes.csv -o /shared/sharpened

Run it on a node that the jobs can reach. Inputs and outputs lie where all nodes see them under one path. If the time of
the jobs runs out, the same command goes on. With --dry-run the job script is printed and nothing is started.
"""

import argparse
import subprocess
import sys

from dask_jobqueue import SLURMCluster


def main() -> int:
    """Start the jobs, run the command, end the jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="Slurm jobs")
    parser.add_argument("--cores", type=int, default=8, help="cores of a job, each of which is a worker")
    parser.add_argument("--memory", default="24GB", help="of a job: 2 GB for each worker (ksdiff's --memory), and some")
    parser.add_argument("--gpu", action="store_true", help="one GPU a job, which is then one worker")
    parser.add_argument("--walltime", default="04:00:00")
    parser.add_argument("--partition", default=None)
    parser.add_argument("--interface", default=None, help="network between the nodes, e.g. ib0")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what follows ksdiff")
    given = parser.parse_args()
    with SLURMCluster(
        cores=given.cores,
        processes=1 if given.gpu else given.cores,
        memory=given.memory,
        walltime=given.walltime,
        queue=given.partition,
        interface=given.interface,
        job_extra_directives=["--gres=gpu:1"] if given.gpu else [],
        # two threads a GPU: one reads the next window meanwhile. A worker's memory is ksdiff's affair, not Dask's
        worker_extra_args=["--nthreads", "2" if given.gpu else "1", "--memory-limit", "0"],
    ) as cluster:
        if given.dry_run:
            print(cluster.job_script())
            return 0
        cluster.scale(jobs=given.jobs)
        command = [sys.executable, "-m", "ksdiff_cli", *given.command, "--scheduler", cluster.scheduler_address]
        return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
