"""Takes all CPUs of the cluster, until it is killed."""

from __future__ import annotations

import signal

import ray


class Holder:
    def here(self) -> bool:
        return True


if __name__ == "__main__":
    ray.init(logging_level="ERROR")
    cpus = int(ray.cluster_resources()["CPU"])
    holders = [ray.remote(num_cpus=1)(Holder).remote() for _ in range(cpus)]
    ray.get([holder.here.remote() for holder in holders])
    print("held", flush=True)
    signal.pause()
