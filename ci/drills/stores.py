"""Object stores that the drills run: garage, a real S3 server, and moto, a mock of one.

They differ in what matters most to an archive: garage ignores If-Match and If-None-Match, so it
can have one writer only, by promise; moto honours them. garage keeps its objects over a kill, moto
forgets them with its process. Both listen on free loopback ports and are ended by process id.
"""

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

BUCKET = "comlog"
REGION = "drill"
START_SECONDS = 60


def free_port():
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Store:
    """A store as a child process; its objects are under `url`."""

    def __init__(self, folder, access_key, secret_key):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.access_key = access_key
        self.secret_key = secret_key
        self.port = free_port()
        self.process = None

    def url(self, prefix):
        """What `--archive` takes, for a prefix of the bucket."""
        return f"s3://{BUCKET}/{prefix}"

    def environment(self, port=None):
        """What comlog needs to reach the store, or a proxy before it on another port."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT": f"http://127.0.0.1:{port or self.port}",
            "AWS_REGION": REGION,
            "AWS_ALLOW_HTTP": "true",
        }

    def client(self, port=None):
        """A boto3 client: a second opinion that shares no code with comlog."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port or self.port}",
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"},
            ),
        )

    def keys(self, prefix=""):
        """Every key below a prefix, with its size."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", [])}

    def read(self, key):
        """One object, whole."""
        return self.client().get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def start(self):
        """Starts it, on the same port and data as before, and waits until it answers."""
        with open(self.folder / "store.log", "ab") as log:
            self.process = subprocess.Popen(
                self.command(), env=self.process_environment(), stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the store did not start, see {self.folder}/store.log")
            time.sleep(0.05)

    def answers(self):
        """Whether it speaks HTTP, whatever it says."""
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=1).close()
            return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def kill(self):
        """SIGKILL."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


class Garage(Store):
    """A real S3 server. GARAGE_BIN names the binary (see ci/garage)."""

    def __init__(self, folder):
        super().__init__(folder, "GK" + secrets.token_hex(12), secrets.token_hex(32))
        self.config = folder / "garage.toml"
        self.config.write_text(
            f'metadata_dir = "{folder}/meta"\n'
            f'data_dir = "{folder}/data"\n'
            'db_engine = "lmdb"\n'
            "replication_factor = 1\n"
            f'rpc_bind_addr = "127.0.0.1:{free_port()}"\n'
            f'rpc_public_addr = "127.0.0.1:{free_port()}"\n'
            f'rpc_secret = "{secrets.token_hex(32)}"\n'
            "[s3_api]\n"
            f's3_region = "{REGION}"\n'
            f'api_bind_addr = "127.0.0.1:{self.port}"\n'
            "[admin]\n"
            f'api_bind_addr = "127.0.0.1:{free_port()}"\n'
        )
        self.start()

    def command(self):
        """Its command line."""
        binary = os.environ.get("GARAGE_BIN")
        if not binary:
            sys.exit("GARAGE_BIN must name garage; ci/garage prints it")
        return [binary, "-c", str(self.config), "server", "--single-node", "--default-bucket"]

    def process_environment(self):
        """Its environment."""
        return {
            **os.environ,
            "GARAGE_DEFAULT_ACCESS_KEY": self.access_key,
            "GARAGE_DEFAULT_SECRET_KEY": self.secret_key,
            "GARAGE_DEFAULT_BUCKET": BUCKET,
            "RUST_LOG": "garage=warn",
        }


class Moto(Store):
    """A mock of S3 that honours conditional writes."""

    def __init__(self, folder):
        super().__init__(folder, "drill", "drill-secret")
        self.start()
        self.client().create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
        )

    def command(self):
        """Its command line, run by this very Python."""
        serve = "import sys; from moto.server import main; main(sys.argv[1:])"
        return [sys.executable, "-c", serve, "-H", "127.0.0.1", "-p", str(self.port)]

    def process_environment(self):
        """Its environment."""
        return dict(os.environ)
