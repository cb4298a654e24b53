"""Runs every `grpcurl` example in the comments of the proto files, in order, on a fresh server.

As grpcurl does, this knows the service only by the server's reflection, and sends and prints JSON.
"""

import pathlib
import re
import shlex
import shutil
import sys
import tempfile

import grpc
import harness
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

# Topics first, since the other files use what their examples make.
FILES = ["comlog/v1/topic.proto", "comlog/v1/log.proto", "comlog/v1/group.proto"]
# Exists before the examples are run: a topic named in one that does not make it.
TOPICS_BEFORE = ["ledger"]
SECONDS = 10


def examples(path):
    """The commands in the comments of a file, as lists of words."""
    lines = [line.strip().removeprefix("//").strip() for line in path.read_text().splitlines()]
    text = "\n".join(lines).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.startswith("grpcurl ")]


def methods(path):
    """The full names of the methods that a file defines."""
    text = path.read_text()
    package = re.search(r"^package ([\w.]+);", text, re.MULTILINE)[1]
    service = re.search(r"^service (\w+)", text, re.MULTILINE)[1]
    return {f"{package}.{service}/{name}" for name in re.findall(r"^  rpc (\w+)", text, re.MULTILINE)}


def call(channel, pool, full_name, body):
    """Sends JSON to a method and returns its answers as JSON."""
    service, method = full_name.split("/")
    descriptor = pool.FindServiceByName(service).FindMethodByName(method)
    request = json_format.Parse(body, message_factory.GetMessageClass(descriptor.input_type)(), descriptor_pool=pool)
    answer = message_factory.GetMessageClass(descriptor.output_type)
    path = f"/{full_name}"
    coding = (lambda message: message.SerializeToString(), answer.FromString)
    if descriptor.server_streaming:
        answers = list(channel.unary_stream(path, *coding)(request, timeout=SECONDS))
    else:
        answers = [channel.unary_unary(path, *coding)(request, timeout=SECONDS)]
    return [json_format.MessageToJson(one, indent=None, descriptor_pool=pool) for one in answers]


def run(address):
    """Runs all examples; returns how many there were and what failed."""
    failures, count = [], 0
    with grpc.insecure_channel(address) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        for topic in TOPICS_BEFORE:
            call(channel, pool, "comlog.v1.TopicService/CreateTopic", f'{{"name": "{topic}"}}')
        for file in FILES:
            for words in examples(harness.ROOT / "proto" / file):
                body = words[words.index("-d") + 1]
                full_name = words[-1]
                count += 1
                try:
                    answers = call(channel, pool, full_name, body)
                    print(f"ok: {full_name} {body}\n    {' '.join(answers)}")
                except (grpc.RpcError, json_format.ParseError, KeyError) as error:
                    failures.append(full_name)
                    print(f"FAILED: {full_name} {body}\n    {error}")
    return count, failures


def main():
    named = {words[-1] for file in FILES for words in examples(harness.ROOT / "proto" / file)}
    defined = {name for file in FILES for name in methods(harness.ROOT / "proto" / file)}
    if not named <= defined:
        sys.exit(f"examples of methods that do not exist: {named - defined}")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="comlog-examples-"))
    server = harness.Server(folder / "data")
    try:
        count, failures = run(server.address)
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)
    if count == 0:
        sys.exit("no example was found")
    print(f"{count - len(failures)} passed, {len(failures)} failed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
