"""The ground of the archive drills: what garage and moto do, and that the proxy's faults are real.

An archive leans on puts, ranged gets, listings, multipart uploads and conditional puts. Here they
are tried with boto3, which shares no code with comlog, so that a drill that fails later does not
leave the question whose fault it was.
"""

import contextlib
import http.client
import pathlib
import secrets
import shutil
import sys
import tempfile
import threading
import time

import botocore.exceptions
import fault_proxy
import harness
import stores

PART_BYTES = 5 << 20
RACERS = 8


class Checks(harness.Checks):
    """The checks, each of one store."""

    def store(self, store, honours_conditions):
        """What must hold of a store without faults."""
        self.name = type(store).__name__.lower()
        client, body = store.client(), secrets.token_bytes(100_000)
        client.put_object(Bucket=stores.BUCKET, Key="a/one", Body=body)
        client.put_object(Bucket=stores.BUCKET, Key="a/two", Body=b"")
        client.put_object(Bucket=stores.BUCKET, Key="b", Body=b"b")
        self.check(f"{self.name}: get gives what was put", store.read("a/one") == body)
        part = client.get_object(Bucket=stores.BUCKET, Key="a/one", Range="bytes=1000-1999")
        self.check(f"{self.name}: a range is that range", part["Body"].read() == body[1000:2000])
        self.check(f"{self.name}: list", store.keys("a/") == {"a/one": 100_000, "a/two": 0})
        client.delete_object(Bucket=stores.BUCKET, Key="a/one")
        self.check(f"{self.name}: delete", store.keys("a/") == {"a/two": 0})
        self.multipart(store, client)
        winners = race(store)
        expected = 1 if honours_conditions else RACERS
        self.check(
            f"{self.name}: {expected} of {RACERS} racing if-none-match win", winners == expected, winners
        )
        self.replace(store, client, honours_conditions)

    def multipart(self, store, client):
        """An upload in parts is there only when it is complete."""
        place = {"Bucket": stores.BUCKET, "Key": "multi"}
        upload = client.create_multipart_upload(**place)["UploadId"]
        parts = [secrets.token_bytes(PART_BYTES), b"the end"]
        tags = []
        for number, part in enumerate(parts, 1):
            answer = client.upload_part(**place, UploadId=upload, PartNumber=number, Body=part)
            tags.append({"ETag": answer["ETag"], "PartNumber": number})
        self.check(f"{self.name}: parts alone are no object", store.keys("multi") == {})
        client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": tags})
        self.check(f"{self.name}: parts together are one", store.read("multi") == b"".join(parts))

    def replace(self, store, client, honours_conditions):
        """Replacing with If-Match and a tag of the past."""
        place = {"Bucket": stores.BUCKET, "Key": "manifest"}
        old = client.put_object(**place, Body=b"1")["ETag"]
        client.put_object(**place, Body=b"2")
        refused = False
        try:
            client.put_object(**place, Body=b"3", IfMatch=old)
        except botocore.exceptions.ClientError as error:
            refused = error.response["ResponseMetadata"]["HTTPStatusCode"] == 412
        left = store.read("manifest")
        self.check(
            f"{self.name}: a stale if-match is {'refused' if honours_conditions else 'ignored'}",
            refused == honours_conditions and left == (b"2" if honours_conditions else b"3"),
            left,
        )

    def restart(self, garage):
        """What garage holds outlives a kill."""
        before = garage.keys()
        garage.kill()
        garage.start()
        self.check("garage: the same objects after a kill", before and garage.keys() == before)

    def proxy(self, store):
        """Each fault does what it says, and the next request passes unharmed."""
        proxy = fault_proxy.FaultProxy(store.port)
        body = secrets.token_bytes(200_000)
        client = store.client(proxy.port)
        client.put_object(Bucket=stores.BUCKET, Key="victim", Body=body)
        half = len(body) // 2
        wrong = body[:half] + bytes([body[half] ^ 0x55]) + body[half + 1 :]
        expected = {
            fault_proxy.STATUS: "503",
            fault_proxy.FALSE_503: "503",
            fault_proxy.RESET_BEFORE: "closed",
            fault_proxy.LOST_ANSWER: "closed",
            fault_proxy.CUT: "cut short",
            fault_proxy.RESET_BODY: "cut short",
            fault_proxy.SHORT: body[:half],
            fault_proxy.WRONG: wrong,
        }
        for kind, outcome in expected.items():
            proxy.add(kind, method="GET", key="victim", times=1)
            found = fetch(client)
            self.check(f"proxy: {kind}", found == outcome, found if isinstance(found, str) else "")
            self.check(f"proxy: whole again after {kind}", fetch(client) == body)
        self.unanswered_put(store, proxy)
        self.slow_hung_and_down(store, proxy, body)
        proxy.stop()

    def unanswered_put(self, store, proxy):
        """A put whose answer is lost has happened all the same."""
        proxy.add(fault_proxy.LOST_ANSWER, method="PUT", key="ghost", times=1)
        with contextlib.suppress(botocore.exceptions.BotoCoreError):
            store.client(proxy.port).put_object(Bucket=stores.BUCKET, Key="ghost", Body=b"boo")
        self.check("proxy: a put without answer is stored", store.read("ghost") == b"boo")

    def slow_hung_and_down(self, store, proxy, body):
        """Faults in time."""
        client = store.client(proxy.port)
        proxy.add(fault_proxy.SLOW, key="victim", times=1, bytes_per_second=len(body))
        started = time.monotonic()
        whole = fetch(client) == body
        self.check("proxy: slow", whole and time.monotonic() - started > 0.9)
        proxy.add(fault_proxy.HANG, method="GET", key="victim")
        found = []
        reader = threading.Thread(target=lambda: found.append(fetch(client)))
        reader.start()
        reader.join(1)
        self.check("proxy: a request that hangs has no answer", not found)
        proxy.clear()
        reader.join()
        self.check("proxy: and a reset in the end", found == ["closed"])
        proxy.stop()
        self.check("proxy: down refuses", fetch(client) == "refused")
        proxy.start()
        self.check("proxy: up again on its port", fetch(client) == body)


def race(store):
    """How many of several puts of one new key with If-None-Match succeed."""
    won = []

    def put(number):
        with contextlib.suppress(botocore.exceptions.ClientError):
            store.client().put_object(
                Bucket=stores.BUCKET, Key="race", Body=b"%d" % number, IfNoneMatch="*"
            )
            won.append(number)

    racers = [threading.Thread(target=put, args=[number]) for number in range(RACERS)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    return len(won)


def fetch(client):
    """The body of the victim, or what went wrong."""
    try:
        answer = client.get_object(Bucket=stores.BUCKET, Key="victim")
        return answer["Body"].read()
    except botocore.exceptions.ClientError as error:
        return str(error.response["ResponseMetadata"]["HTTPStatusCode"])
    except (botocore.exceptions.IncompleteReadError, botocore.exceptions.ResponseStreamingError):
        return "cut short"
    except botocore.exceptions.EndpointConnectionError:
        return "refused"
    except (botocore.exceptions.ConnectionClosedError, http.client.HTTPException):
        return "closed"


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="comlog-stores-"))
    garage = moto = None
    checks = Checks()
    try:
        garage = stores.Garage(folder / "garage")
        checks.store(garage, honours_conditions=False)
        checks.restart(garage)
        moto = stores.Moto(folder / "moto")
        checks.store(moto, honours_conditions=True)
        checks.proxy(garage)
    finally:
        for store in (garage, moto):
            if store:
                store.kill()
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(checks.summary())


if __name__ == "__main__":
    main()
