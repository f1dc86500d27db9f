"""A Baton worker in Python, from generated stubs alone. README says how to generate them.

    python examples/python/worker.py QUEUE... [--addr HOST:PORT] [--concurrency N]

It holds a stream open and is handed jobs on it, at most as many as it can run at once. While the stream lives, the
broker keeps their leases. What `handle` returns becomes the job's result; an exception makes the job fail, to be tried
again. When the stream breaks, the worker opens another. SIGTERM or SIGINT: it takes no more, and finishes what it has.
"""

import argparse
import os
import queue
import random
import signal
import socket
import sys
import threading
import time

import grpc

from baton.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc

# A lost connection shows within half a minute, and a broker that is back is found within two seconds.
CHANNEL_OPTIONS = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
]
# Trying again may help. Anything else is a mistake of this program or its settings.
PASSING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}
RELEASE_TIMEOUT_S = 10
RELEASE_FOR_S = 60


def handle(job: job_pb2.ReservedJob) -> str:
    """Your work goes here. This one counts the words of a text; the header `seconds` makes it take its time."""
    time.sleep(float(job.headers.get("seconds", "0")))
    words = job.payload.text.split()
    if not words:
        raise ValueError("there is no text to count")
    return f"{len(words)} words"


class Worker:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.stub = job_service_pb2_grpc.JobServiceStub(grpc.insecure_channel(args.addr, options=CHANNEL_OPTIONS))
        self.stopping = threading.Event()
        self.stream: grpc.Call | None = None
        # The stream's credit bounds it: the broker never hands out more than the threads can run.
        self.jobs: queue.SimpleQueue[job_pb2.ReservedJob | None] = queue.SimpleQueue()
        self.revoked: set[str] = set()

    def run(self) -> None:
        threads = [threading.Thread(target=self.work) for _ in range(self.args.concurrency)]
        for thread in threads:
            thread.start()
        try:
            self.subscribe()
        finally:
            for _ in threads:
                self.jobs.put(None)
            for thread in threads:
                thread.join()

    def stop(self, *_: object) -> None:
        """Ends the stream; the broker leaves what this worker still holds to it for the disconnect grace."""
        self.stopping.set()
        if self.stream is not None:
            self.stream.cancel()

    def subscribe(self) -> None:
        request = job_service_pb2.SubscribeRequest(
            queues=[job_service_pb2.QueueSelector(name=name) for name in self.args.queues],
            max_outstanding=self.args.concurrency,
            worker_id=self.args.worker_id,
        )
        request.disconnect_grace.FromMilliseconds(int(self.args.grace * 1_000))
        while not self.stopping.is_set():
            try:
                self.stream = self.stub.Subscribe(request, wait_for_ready=True)
                if self.stopping.is_set():  # The signal came between the two lines above.
                    self.stream.cancel()
                for message in self.stream:
                    self.receive(message)
                say("the stream has ended")
            except grpc.RpcError as error:
                if self.stopping.is_set():
                    return
                say(f"the stream broke: {error.code().name}: {error.details()}")
                if error.code() not in PASSING:
                    raise
            # Many workers must not come back at the same moment.
            self.stopping.wait(random.uniform(0.1, 1))

    def receive(self, message: job_service_pb2.SubscribeResponse) -> None:
        event = message.WhichOneof("event")
        if event == "started":
            say(f"subscribed as {message.started.worker_id}")
        elif event == "jobs":
            for job in message.jobs.jobs:
                self.jobs.put(job)
        elif event == "revoked":
            self.revoked.update(message.revoked.lease_tokens)
        elif event == "draining":
            say("the broker shuts down: it ends the stream when what it handed out is released")

    def work(self) -> None:
        """One thread: a job at a time, until there is a None in place of one."""
        while (job := self.jobs.get()) is not None:
            if job.lease_token not in self.revoked:
                self.run_job(job)
            self.revoked.discard(job.lease_token)

    def run_job(self, job: job_pb2.ReservedJob) -> None:
        release = job_service_pb2.ReleaseRequest(lease_token=job.lease_token)
        say(f"{job.queue} {job.id}: attempt {job.attempt}")
        try:
            release.completed.result.text = handle(job)
        except Exception as error:  # Whatever it is, it is the job that failed, and not the worker.
            release.failed.type = type(error).__name__
            release.failed.message = str(error)
        self.release(job, release)

    def release(self, job: job_pb2.ReservedJob, release: job_service_pb2.ReleaseRequest) -> None:
        """Safe to repeat, and so repeated while the broker is away."""
        give_up_at = time.monotonic() + RELEASE_FOR_S
        while True:
            try:
                answer = self.stub.Release(release, timeout=RELEASE_TIMEOUT_S, wait_for_ready=True)
                state = job_pb2.JobState.Name(answer.state).removeprefix("JOB_STATE_")
                say(f"{job.queue} {job.id}: {release.WhichOneof('outcome')}, now {state}")
                return
            except grpc.RpcError as error:
                # FAILED_PRECONDITION: the lease is lost, and the job is another worker's by now, or deleted.
                if error.code() not in PASSING or time.monotonic() > give_up_at:
                    say(f"{job.queue} {job.id}: not released: {error.code().name}: {error.details()}")
                    return
                time.sleep(random.uniform(0.1, 0.5))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Counts the words of each job's text.")
    parser.add_argument("queues", nargs="+", metavar="QUEUE")
    parser.add_argument("--addr", default=os.environ.get("BATON_ADDR", "127.0.0.1:7711"), metavar="HOST:PORT")
    parser.add_argument("--concurrency", type=int, default=4, metavar="N", help="how many jobs to run at once")
    parser.add_argument("--grace", type=float, default=10, metavar="SECONDS",
                        help="how long its jobs stay with this worker when its stream has ended")
    parser.add_argument("--worker-id", default=f"{socket.gethostname()}:{os.getpid()}", metavar="NAME")
    worker = Worker(parser.parse_args())
    signal.signal(signal.SIGTERM, worker.stop)
    signal.signal(signal.SIGINT, worker.stop)
    worker.run()


if __name__ == "__main__":
    main()
