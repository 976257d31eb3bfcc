"""A Ray cluster of two nodes of one core each, beside a head that has none, on this machine."""

import tempfile

import pytest


@pytest.fixture
def ray_cluster(monkeypatch):
    """In RAY_ADDRESS; its processes have none of the keys that a test sets later, and nothing of it is left behind."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        nodes = {"object_store_memory": 80 * 2**20, "temp_dir": folder}
        cluster = Cluster(initialize_head=True, head_node_args=nodes | {"num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, **nodes)
            monkeypatch.setenv("RAY_ADDRESS", cluster.address)
            cluster.folder = folder
            yield cluster
        finally:
            cluster.shutdown()
