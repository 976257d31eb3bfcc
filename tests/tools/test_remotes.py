"""Push here, pull elsewhere: every result is there and nothing is computed again."""

import re
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.tools.project import NOTHING_TO_DO, run

pytestmark = pytest.mark.slow
KEYS = {"AWS_ACCESS_KEY_ID": "ada", "AWS_SECRET_ACCESS_KEY": "ada", "AWS_DEFAULT_REGION": "us-east-1"}


def test_a_folder_as_remote(project, tmp_path):
    run(f"dvc remote add --default backup {tmp_path / 'backup'}", cwd=project)
    push_and_pull(project, tmp_path / "elsewhere")


@pytest.fixture
def s3():
    """The address of an S3 service on loopback."""
    pytest.importorskip("dvc_s3", reason="pip install -e '.[s3]'")
    pytest.importorskip("moto", reason="pip install -e '.[slow-tests]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{address}/moto-api/", timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, "moto's server has ended"
                time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        server.wait()


def test_s3_as_remote(project, tmp_path, s3):
    bucket = f"import boto3; boto3.client('s3', endpoint_url='{s3}').create_bucket(Bucket='detoxlens')"
    run(f'python -c "{bucket}"', cwd=project, **KEYS)
    run("dvc remote add --default backup s3://detoxlens/dvc", cwd=project)
    run(f"dvc remote modify backup endpointurl {s3}", cwd=project)
    push_and_pull(project, tmp_path / "elsewhere", **KEYS)


def push_and_pull(project, elsewhere, **environment):
    """Pushes from one clone and pulls into another that has a cache of its own."""
    run("git commit -qam remote", cwd=project)
    run("dvc push", cwd=project, **environment)
    run(f"git clone -q {project} {elsewhere}", cwd=project)
    run("dvc cache dir --local .dvc/cache", cwd=elsewhere)
    assert not (elsewhere / "adapters").exists()
    run("dvc pull", cwd=elsewhere, **environment)
    assert NOTHING_TO_DO in run("dvc status", cwd=elsewhere)
    assert NOTHING_TO_DO in run("dvc repro", cwd=elsewhere)
    for name in ("reports/index.html", "reports/metrics.json", "adapters/tiny-neox/ft/adapter_model.safetensors"):
        assert (elsewhere / name).read_bytes() == (project / name).read_bytes()
    run("detoxlens log", cwd=elsewhere)  # its runs too, without a stage having run here
    told = run("detoxlens doctor", cwd=elsewhere, **environment)
    assert re.search(r"✓ runs +all \d+ outputs lead to live runs; 2 of 2 runs", told), told
    assert "✓ cache" in told and "✓ remote" in told
