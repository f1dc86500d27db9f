"""A producer in Python as README's "Several brokers" describes it: generated stubs, and examples/service-config.json.

    python producer.py SERVICE_CONFIG HOST:PORT,HOST:PORT,... QUEUE

It makes calls of all kinds, one after the other, and leaves their repetition to gRPC. Only what the end of a connection
cut off in the midst of its answer, which gRPC does not repeat, it repeats itself. Until SIGTERM; then it prints what it
did, as one JSON object: {"put": how many jobs, "repeated": [...], "errors": [...], "slowest": seconds}.
"""

import json
import signal
import sys
import time

import grpc
from google.protobuf.duration_pb2 import Duration

from baton.v1 import job_service_pb2 as jobs
from baton.v1 import job_service_pb2_grpc, queue_service_pb2, queue_service_pb2_grpc

DEADLINE_S = 20
PAUSE_S = 0.02
config, addresses, queue = sys.argv[1:]
own_queue = f"{queue}-own"

with open(config, encoding="utf-8") as file:
    options = [
        ("grpc.service_config", file.read()),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]
channel = grpc.insecure_channel(f"ipv4:{addresses}", options=options)
job_service = job_service_pb2_grpc.JobServiceStub(channel)
queue_service = queue_service_pb2_grpc.QueueServiceStub(channel)

stopping = False
seen = {"put": 0, "repeated": [], "errors": [], "slowest": 0.0}


def stop(*_):
    global stopping
    stopping = True


def call(method, request):
    begun = time.monotonic()
    try:
        for failures in (seen["repeated"], seen["errors"]):
            try:
                return method(request, timeout=DEADLINE_S)
            except grpc.RpcError as error:
                failures.append(f"{type(request).__name__}: {error.code().name}: {error.details()}")
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    seen["errors"].append(failures[-1])
                    break
        return None
    finally:
        seen["slowest"] = max(seen["slowest"], time.monotonic() - begun)


def put_request(number, name=queue):
    return jobs.PutRequest(queue=name, id=f"python-{number}", on_conflict=jobs.ON_CONFLICT_KEEP)


signal.signal(signal.SIGTERM, stop)
round_number = 0
print("started", flush=True)
while not stopping:
    round_number += 1
    first = f"{round_number}-a"
    call(job_service.Put, put_request(first))
    batch = call(job_service.PutMany, jobs.PutManyRequest(jobs=[put_request(f"{round_number}-{n}") for n in range(3)]))
    if batch is not None:
        seen["errors"] += [result.error.message for result in batch.results if result.HasField("error")]
    seen["put"] += 4
    call(job_service.Get, jobs.GetRequest(queue=queue, id=f"python-{first}"))
    call(queue_service.GetQueue, queue_service_pb2.GetQueueRequest(queue=queue))
    call(job_service.Put, put_request(round_number, own_queue))
    reserve = jobs.ReserveRequest(queues=[jobs.QueueSelector(name=own_queue)], wait=Duration(seconds=2))
    answer = call(job_service.Reserve, reserve)
    for job in answer.jobs if answer is not None else ():
        call(job_service.Extend, jobs.ExtendRequest(lease_tokens=[job.lease_token]))
        call(job_service.ReportProgress, jobs.ReportProgressRequest(lease_token=job.lease_token, percent=50))
        release = jobs.ReleaseRequest(lease_token=job.lease_token)
        release.completed.SetInParent()
        call(job_service.Release, release)
    time.sleep(PAUSE_S)
print(json.dumps(seen), flush=True)
